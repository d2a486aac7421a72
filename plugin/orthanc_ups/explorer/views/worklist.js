// SPDX-License-Identifier: AGPL-3.0-or-later
// The worklist: a table that only ever holds one page, whatever the server has.

import { downloadCsv, get } from "../api.js";
import { debounced, h, isTyping, replace } from "../dom.js";
import { count, plural } from "../format.js";
import { Filters } from "./filters.js";
import { Table } from "./table.js";
import { mayAct } from "../rights.js";
import { selectionBar } from "./bulk.js";
import { errorBox, failed, select } from "../parts/dialog.js";
import { icon, stateIcon } from "../parts/icons.js";
import { empty, stateWords } from "../parts/words.js";
import { link, rewrite } from "../router.js";

const SIZES = [25, 50, 100, 200];
const SIZE_KEY = "ups.page-size";
const OWN = ["page", "of"];
const TYPING_PAUSE = 250;
const QUIET = 700;

function rememberedSize() {
  const found = Number(localStorage.getItem(SIZE_KEY));
  return SIZES.includes(found) ? found : 50;
}

class Worklist {
  constructor(context) {
    this.system = context.system;
    this.asked = { ...context.query };
    this.size = rememberedSize();
    this.total = null;
    this.loading = null;
    this.filters = new Filters(this.system, this.asked, (changes) => this.ask(changes));
    this.table = new Table({
      order: () => this.asked.order || "-created",
      onOrder: (order) => this.ask({ order }),
      onSelect: () => this.showSelection(),
    });
    this.build();
    this.reload = debounced(QUIET, () => this.load({ quiet: true }));
    this.recount = debounced(QUIET, () => this.count());
  }

  // --- parts ---

  build() {
    this.search = h("input", {
      type: "search",
      placeholder: "Patient, label, accession number, UID …",
      "aria-label": "Search",
      value: this.asked.text || "",
      oninput: debounced(TYPING_PAUSE, () => this.search.value.trim() === (this.asked.text || "") || this.ask({})),
    });
    this.csv = h("button", { type: "button", onclick: () => this.export(), title: "Everything that is found, as CSV" }, icon("download"), "CSV");
    this.states = h("div.segments", { role: "group", "aria-label": "State" });
    this.worklists = h("select", { "aria-label": "Worklist", onchange: () => this.ask({ WorklistLabel: this.worklists.value }) });
    this.found = h("span.faint", { "aria-live": "polite" });
    this.pager = h("nav.pager", { "aria-label": "Pages" });
    this.selection = h("div.selection", { hidden: true });
    this.body = h("div.table-box", { tabindex: -1 }, this.table.element);
    this.element = h(
      "div.listing",
      {},
      h(
        "div.toolbar",
        {},
        h("label.search", {}, icon("search"), this.search, h("kbd", {}, "/")),
        this.states,
        this.worklists,
        h("span.spring", {}),
        this.filters.button,
        this.csv,
      ),
      this.filters.chips,
      this.body,
      this.selection,
      h("footer.foot", {}, this.found, h("span.spring", {}), this.pager),
    );
  }

  // --- what is asked ---

  ask(changes) {
    const typed = this.search.value.trim(); // whatever else is asked must not lose what was typed just now
    for (const [name, value] of Object.entries({ page: "", text: typed, ...changes })) {
      if (value === "" || value === null || value === undefined) delete this.asked[name];
      else this.asked[name] = String(value);
    }
    rewrite("worklist", [], this.asked);
    window.dispatchEvent(new Event("hashchange"));
  }

  parameters() {
    return Object.fromEntries(Object.entries(this.asked).filter(([name]) => !OWN.includes(name)));
  }

  get page() {
    return Math.max(1, Number(this.asked.page) || 1);
  }

  // --- loading ---

  async load({ quiet = false } = {}) {
    if (this.loading) this.loading.abort();
    const mine = (this.loading = new AbortController());
    this.element.classList.toggle("busy", !quiet);
    try {
      const asked = { ...this.parameters(), offset: String((this.page - 1) * this.size), limit: String(this.size) };
      this.take(await get("workitems", asked, mine.signal), quiet);
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error, quiet);
    } finally {
      if (this.loading === mine) this.element.classList.remove("busy");
    }
  }

  take(found, quiet) {
    this.total = found.total;
    const last = Math.max(1, Math.ceil(found.total / this.size));
    if (this.page > last) return this.ask({ page: last === 1 ? "" : last });
    this.table.show(found.workitems, { flash: quiet });
    replace(this.body, found.total ? this.table.element : this.nothing());
    this.showFound();
    this.showSelection();
    return undefined;
  }

  fail(error, quiet) {
    if (!quiet) replace(this.body, errorBox(error));
  }

  nothing() {
    const narrowed = Object.keys(this.parameters()).some((name) => name !== "order");
    if (narrowed) {
      const all = h("button", { type: "button", onclick: () => this.clear() }, "Show all");
      return empty("No workitem fits this search.", all);
    }
    return empty("The worklist is empty.", mayAct(this.system) && h("a.button.primary", { href: "#/new" }, icon("plus"), "Create the first workitem"));
  }

  clear() {
    this.search.value = "";
    this.ask(Object.fromEntries(Object.keys(this.asked).map((name) => [name, name === "order" ? this.asked.order : ""])));
  }

  async count() {
    try {
      this.showCounts(await get("counts"));
    } catch {
      // the next change brings the counts
    }
  }

  // --- showing ---

  showCounts(counts) {
    this.counts = counts;
    const chosen = this.asked.ProcedureStepState || "";
    const all = Object.values(counts.states).reduce((sum, one) => sum + one, 0);
    const entries = [["", "All", all], ...this.system.states.map((one) => [one, stateWords(one), counts.states[one] || 0])];
    replace(
      this.states,
      entries.map(([value, words, number]) =>
        h(
          "button",
          { type: "button", "aria-pressed": String(chosen === value), onclick: () => this.ask({ ProcedureStepState: value }) },
          value && stateIcon(value),
          words,
          h("span.number", {}, count(number)),
        ),
      ),
    );
    this.showWorklists();
  }

  showWorklists() {
    const chosen = this.asked.WorklistLabel || "";
    const labels = this.counts.worklists.map((one) => one.worklist);
    const known = chosen && !labels.includes(chosen) ? [...labels, chosen] : labels;
    replace(this.worklists, [["", "All worklists"], ...known.map((one) => [one, one])].map(([value, words]) => h("option", { value }, words)));
    this.worklists.value = chosen;
  }

  showFound() {
    const first = this.total ? (this.page - 1) * this.size + 1 : 0;
    const end = Math.min(this.page * this.size, this.total);
    this.found.textContent = this.total ? `${count(first)}–${count(end)} of ${plural(this.total, "workitem")}` : "";
    const last = Math.max(1, Math.ceil(this.total / this.size));
    const sizes = select(SIZES.map((size) => [String(size), `${size} a page`]), String(this.size), { "aria-label": "Page size" });
    sizes.addEventListener("change", () => this.resize(Number(sizes.value)));
    const jump = h("input", { type: "number", min: 1, max: last, value: this.page, "aria-label": `Page, of ${last}` });
    jump.addEventListener("change", () => this.turn(Number(jump.value), last));
    replace(
      this.pager,
      sizes,
      h("button", { type: "button", disabled: this.page <= 1, onclick: () => this.turn(this.page - 1, last), "aria-label": "Previous page" }, icon("back")),
      h("span", {}, "Page ", jump, ` of ${count(last)}`),
      h("button", { type: "button", disabled: this.page >= last, onclick: () => this.turn(this.page + 1, last), "aria-label": "Next page" }, icon("next")),
    );
  }

  turn(page, last) {
    const wanted = Math.min(Math.max(1, Math.round(page) || 1), last);
    if (wanted !== this.page) this.ask({ page: wanted });
  }

  resize(size) {
    localStorage.setItem(SIZE_KEY, String(size));
    const first = (this.page - 1) * this.size;
    this.size = size;
    this.ask({ page: Math.floor(first / size) + 1 });
  }

  showSelection() {
    const chosen = this.table.selected();
    this.selection.hidden = chosen.length === 0;
    if (chosen.length) replace(this.selection, selectionBar(chosen, this.system, () => this.table.unselect(), () => this.load({ quiet: true })));
  }

  async export() {
    const show = (words) => replace(this.csv, icon("download"), words);
    this.csv.disabled = true;
    try {
      await downloadCsv(this.parameters(), "workitems.csv", (share) => show(`${Math.round(share * 100)} %`));
    } catch (error) {
      failed(error);
    } finally {
      show("CSV");
      this.csv.disabled = false;
    }
  }

  // --- the frame's calls ---

  moved(query) {
    this.asked = { ...query };
    if (document.activeElement !== this.search) this.search.value = this.asked.text || "";
    this.filters.show(this.asked);
    if (this.counts) this.showCounts(this.counts);
    this.load();
    return true;
  }

  key(event) {
    const last = Math.max(1, Math.ceil((this.total || 0) / this.size));
    if (event.key === "/") this.search.focus();
    else if (event.key === "[") this.turn(this.page - 1, last);
    else if (event.key === "]") this.turn(this.page + 1, last);
    else return this.table.key(event);
    return true;
  }
}

// "Workitems of this study": an identifier of Orthanc becomes what the list can be filtered by.
async function resolved(query) {
  if (!query.of) return query;
  const [level, id] = query.of.split("/");
  const found = await get("prefill", { level, id });
  const { of, ...rest } = query;
  const narrowed = level === "patient" ? { PatientID: found.patient_id } : { study: found.study };
  rewrite("worklist", [], { ...rest, ...narrowed });
  return { ...rest, ...narrowed };
}

export async function worklistView(context) {
  const query = await resolved(context.query);
  const list = new Worklist({ ...context, query });
  await Promise.all([list.load(), list.count()]);
  list.filters.show(list.asked);
  return {
    element: list.element,
    title: "Worklist",
    moved: (parts, asked) => (asked.of ? false : list.moved(asked)),
    changed: () => {
      list.reload();
      list.recount();
    },
    key: (event) => !isTyping(event) && list.key(event),
    entered: () => list.table.restore(),
    left: () => list.loading && list.loading.abort(),
  };
}

export const worklistLink = (query) => link("worklist", [], query);
