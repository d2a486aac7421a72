// SPDX-License-Identifier: AGPL-3.0-or-later
// The table of the worklist: sorting by heading, selection, keyboard navigation.

import { h, replace } from "../dom.js";
import { t } from "../languages.js";
import { icon } from "../parts/icons.js";
import { go } from "../router.js";
import { isUsual } from "./columns.js";

const CURRENT_KEY = "ups.current";
const CHOOSE_WIDTH = 38;

export class Table {
  constructor({ columns, order, onOrder, selection }) {
    this.columns = columns;
    this.order = order;
    this.onOrder = onOrder;
    this.selection = selection;
    this.rows = [];
    this.lines = new Map();
    this.current = sessionStorage.getItem(CURRENT_KEY);
    this.anchor = null;
    this.all = h("input", { type: "checkbox", "aria-label": t("Select all on this page"), onchange: () => this.selection.set(this.rows, this.all.checked) });
    this.head = h("tr", { role: "row" });
    this.body = h("tbody", { role: "rowgroup" });
    this.element = h("table.rows", { role: "table" }, h("caption.offscreen", {}, t("Workitems")), h("thead", { role: "rowgroup" }, this.head), this.body);
  }

  show(rows, { flash = false } = {}) {
    const before = new Map(this.rows.map((row) => [row.uid, JSON.stringify(row)]));
    this.rows = rows;
    this.selection.refresh(rows);
    this.showHead();
    const focused = this.body.contains(document.activeElement);
    this.lines = new Map(rows.map((row) => [row.uid, this.line(row, flash && before.get(row.uid) !== JSON.stringify(row))]));
    replace(this.body, [...this.lines.values()]);
    if (focused && this.lines.has(this.current)) this.lines.get(this.current).focus({ preventScroll: true });
    this.showChosen();
  }

  showHead() {
    const order = this.order();
    const columns = this.columns();
    this.element.classList.toggle("usual", isUsual(columns.map((column) => column.name)));
    if (!this.element.classList.contains("usual")) {
      this.element.style.setProperty("--least", `${columns.reduce((sum, column) => sum + column.width, CHOOSE_WIDTH)}px`);
    }
    replace(this.head, h("th.choose", { scope: "col", role: "columnheader" }, this.all), columns.map((column) => sized(this.heading(column, order), column, this.element.classList.contains("usual"))));
  }

  heading(column, order) {
    const properties = { scope: "col", role: "columnheader", class: column.hidden || "" };
    if (!column.order) return h(`th.${column.name}`, properties, column.words);
    const plain = column.order.replace("-", "");
    const sorted = order.replace("-", "") === plain;
    // "Age" increases as the time of creation decreases.
    const descending = order.startsWith("-") !== Boolean(column.turned);
    const next = sorted ? (order.startsWith("-") ? plain : `-${plain}`) : column.order;
    const sign = sorted ? icon(descending ? "down" : "up") : null;
    const direction = sorted ? (descending ? "descending" : "ascending") : null;
    const button = h("button", { type: "button", onclick: () => this.onOrder(next) }, column.words, sign);
    return h(`th.${column.name}`, { ...properties, "aria-sort": direction }, button);
  }

  line(row, changed) {
    const box = h("input", { type: "checkbox", checked: this.selection.has(row.uid), tabindex: -1, "aria-label": t("Select {label}", { label: row.label }) });
    const cells = this.columns().map((column) => h(`td.${column.name}`, { role: "cell", class: column.hidden || "", "data-words": column.words }, column.cell(row)));
    const line = h(
      "tr",
      { role: "row", tabindex: row.uid === this.current ? 0 : -1, class: changed ? "changed" : "", dataset: { uid: row.uid } },
      h("td.choose", { role: "cell" }, box),
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
    const span = from < 0 ? [this.rows[at]] : this.rows.slice(Math.min(from, at), Math.max(from, at) + 1);
    this.anchor = uid;
    this.selection.set(span, on);
  }

  showChosen() {
    for (const [uid, line] of this.lines) {
      const on = this.selection.has(uid);
      line.classList.toggle("chosen", on);
      line.querySelector("input").checked = on;
    }
    const chosen = this.rows.filter((row) => this.selection.has(row.uid)).length;
    this.all.checked = this.rows.length > 0 && chosen === this.rows.length;
    this.all.indeterminate = chosen > 0 && !this.all.checked;
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
    else if ((event.key === "x" || event.key === " ") && line) this.choose(this.current, !this.selection.has(this.current));
    else if (event.key === "Escape" && this.selection.size) this.selection.clear();
    else return false;
    return true;
  }
}

function sized(heading, column, usual) {
  heading.style.width = usual && column.share ? column.share : `${column.width}px`;
  return heading;
}
