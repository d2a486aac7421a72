// SPDX-License-Identifier: AGPL-3.0-or-later
// The rows of the worklist: sorting by heading, selecting, moving with the keyboard.

import { h, replace } from "../dom.js";
import { ago, birthDate, fully } from "../format.js";
import { icon } from "../parts/icons.js";
import { priorityBadge, progressBar, readinessWords, stateBadge, time } from "../parts/words.js";
import { go, link } from "../router.js";

const CURRENT_KEY = "ups.current";

const COLUMNS = [
  { name: "state", words: "State", order: "state" },
  { name: "priority", words: "Priority", order: "priority" },
  { name: "label", words: "Label", order: "label" },
  { name: "worklist", words: "Worklist", order: "worklist" },
  { name: "patient", words: "Patient", order: "patient" },
  { name: "start", words: "Scheduled start", order: "start" },
  { name: "station", words: "Station", order: "station" },
  { name: "performer", words: "Performer", order: "performer" },
  { name: "progress", words: "Progress", order: "-progress" },
  { name: "age", words: "Age", order: "-created", turned: true },
];

const clipped = (text, extra = null) => h("span.clip", { title: text || null }, text, extra);

const CELLS = {
  state: (row) => stateBadge(row.state),
  priority: (row) => priorityBadge(row.priority),
  label: (row) => [waits(row), asked(row), h("a.clip", { href: link("workitem", [row.uid]), tabindex: -1, title: row.label }, row.label || "(no label)")],
  worklist: (row) => clipped(row.worklist),
  patient: (row) => {
    const about = [row.patient.name, row.patient.id, birthDate(row.patient.birth_date)].filter(Boolean).join(" · ");
    return h("span.clip", { title: about }, row.patient.name || h("span.faint", {}, "no name"), h("span.faint.number", {}, ` ${row.patient.id}`));
  },
  start: (row) => [isLate(row) && late(), time(row.start)],
  station: (row) => clipped(row.stations.join(", ")),
  performer: (row) => clipped(row.performers.join(", ")),
  progress: (row) => progressBar(row.progress),
  age: (row) => h("time.number", { datetime: row.created, title: `Created ${fully(row.created)}` }, ago(row.created)),
};

function waits(row) {
  const open = row.state === "SCHEDULED" && row.readiness !== "READY";
  return open && h("span.flag.waits", { title: readinessWords(row.readiness) }, "inputs?");
}

function asked(row) {
  return row.cancel_requested && h("span.flag.waits", { title: "The performer was asked to cancel" }, "cancel?");
}

function isLate(row) {
  return row.state === "SCHEDULED" && row.start && new Date(row.start).getTime() < Date.now() - 60_000;
}

// In front of the time, as a column may be too narrow for both.
function late() {
  const words = "late: the scheduled start has passed";
  return h("span.late", { title: words, role: "img", "aria-label": words }, icon("alert"));
}

export class Table {
  constructor({ order, onOrder, onSelect }) {
    this.order = order;
    this.onOrder = onOrder;
    this.onSelect = onSelect;
    this.rows = [];
    this.chosen = new Set();
    this.lines = new Map();
    this.current = sessionStorage.getItem(CURRENT_KEY);
    this.anchor = null;
    this.all = h("input", { type: "checkbox", "aria-label": "Select all on this page", onchange: () => this.chooseAll() });
    this.head = h("tr", {});
    this.body = h("tbody", {});
    this.element = h("table.rows", {}, h("caption.offscreen", {}, "Workitems"), h("thead", {}, this.head), this.body);
  }

  show(rows, { flash = false } = {}) {
    const before = new Map(this.rows.map((row) => [row.uid, JSON.stringify(row)]));
    this.rows = rows;
    this.chosen = new Set([...this.chosen].filter((uid) => rows.some((row) => row.uid === uid)));
    this.showHead();
    const focused = this.body.contains(document.activeElement);
    this.lines = new Map(rows.map((row) => [row.uid, this.line(row, flash && before.get(row.uid) !== JSON.stringify(row))]));
    replace(this.body, [...this.lines.values()]);
    if (focused && this.lines.has(this.current)) this.lines.get(this.current).focus({ preventScroll: true });
    this.showChosen();
  }

  showHead() {
    const order = this.order();
    const headings = COLUMNS.map((column) => {
      if (!column.order) return h(`th.${column.name}`, { scope: "col" }, column.words);
      const plain = column.order.replace("-", "");
      const sorted = order.replace("-", "") === plain;
      // "Age" grows as the time of creation falls.
      const descending = order.startsWith("-") !== Boolean(column.turned);
      const next = sorted ? (order.startsWith("-") ? plain : `-${plain}`) : column.order;
      const sign = sorted ? icon(descending ? "down" : "up") : null;
      const direction = sorted ? (descending ? "descending" : "ascending") : null;
      return h(`th.${column.name}`, { scope: "col", "aria-sort": direction }, h("button", { type: "button", onclick: () => this.onOrder(next) }, column.words, sign));
    });
    replace(this.head, h("th.choose", { scope: "col" }, this.all), headings);
  }

  line(row, changed) {
    const box = h("input", { type: "checkbox", checked: this.chosen.has(row.uid), tabindex: -1, "aria-label": `Select ${row.label}` });
    const cells = COLUMNS.map(({ name }) => h(`td.${name}`, {}, CELLS[name](row)));
    const line = h(
      "tr",
      { tabindex: row.uid === this.current ? 0 : -1, class: changed ? "changed" : "", dataset: { uid: row.uid } },
      h("td.choose", {}, box),
      cells,
    );
    box.addEventListener("click", (event) => this.choose(row.uid, box.checked, event.shiftKey));
    line.addEventListener("focus", () => this.mark(row.uid));
    line.addEventListener("click", (event) => this.clicked(event, row));
    return line;
  }

  clicked(event, row) {
    if (event.target.closest("input, a, .choose")) return;
    if (window.getSelection().toString()) return;
    this.mark(row.uid);
    go("workitem", [row.uid]);
  }

  // --- selecting ---

  choose(uid, on, range = false) {
    const uids = this.rows.map((row) => row.uid);
    const from = range && this.anchor !== null ? uids.indexOf(this.anchor) : -1;
    const at = uids.indexOf(uid);
    const span = from < 0 ? [uid] : uids.slice(Math.min(from, at), Math.max(from, at) + 1);
    for (const one of span) {
      if (on) this.chosen.add(one);
      else this.chosen.delete(one);
    }
    this.anchor = uid;
    this.showChosen();
    this.onSelect();
  }

  chooseAll() {
    this.chosen = this.all.checked ? new Set(this.rows.map((row) => row.uid)) : new Set();
    this.showChosen();
    this.onSelect();
  }

  unselect() {
    this.chosen.clear();
    this.showChosen();
    this.onSelect();
  }

  selected() {
    return this.rows.filter((row) => this.chosen.has(row.uid));
  }

  showChosen() {
    for (const [uid, line] of this.lines) {
      const on = this.chosen.has(uid);
      line.classList.toggle("chosen", on);
      line.querySelector("input").checked = on;
    }
    this.all.checked = this.rows.length > 0 && this.chosen.size === this.rows.length;
    this.all.indeterminate = this.chosen.size > 0 && !this.all.checked;
    const first = this.lines.has(this.current) ? this.current : this.rows[0] && this.rows[0].uid;
    if (first) this.lines.get(first).tabIndex = 0;
  }

  // --- moving ---

  mark(uid) {
    const before = this.lines.get(this.current);
    if (before) before.tabIndex = -1;
    this.current = uid;
    sessionStorage.setItem(CURRENT_KEY, uid);
    const line = this.lines.get(uid);
    if (line) line.tabIndex = 0;
  }

  restore() {
    const line = this.lines.get(this.current);
    if (line) line.scrollIntoView({ block: "nearest" });
  }

  move(by) {
    const at = this.rows.findIndex((row) => row.uid === this.current);
    const focused = this.body.contains(document.activeElement);
    const next = at < 0 ? 0 : Math.min(Math.max(focused ? at + by : at, 0), this.rows.length - 1);
    if (!this.rows[next]) return;
    this.mark(this.rows[next].uid);
    this.lines.get(this.current).focus();
  }

  key(event) {
    const line = this.body.contains(document.activeElement) ? this.lines.get(this.current) : null;
    if (event.key === "j" || (event.key === "ArrowDown" && line)) this.move(1);
    else if (event.key === "k" || (event.key === "ArrowUp" && line)) this.move(-1);
    else if (event.key === "Enter" && document.activeElement === line && line) go("workitem", [this.current]);
    else if ((event.key === "x" || event.key === " ") && line) this.choose(this.current, !this.chosen.has(this.current));
    else if (event.key === "Escape" && this.chosen.size) this.unselect();
    else return false;
    return true;
  }
}
