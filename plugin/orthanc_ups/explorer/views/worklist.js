// SPDX-License-Identifier: AGPL-3.0-or-later
// The worklist: a table that holds a single page, however many workitems the server has.

import { downloadCsv, get } from "../api.js";
import { debounced, h, isTyping, replace } from "../dom.js";
import { count, n, t } from "../languages.js";
import { selectionBar } from "./bulk.js";
import { ORDERS, chooseColumns, isUsual, shownColumns } from "./columns.js";
import { Filters } from "./filters.js";
import { firstView, showViews } from "./saved.js";
import { Selection } from "./selection.js";
import { Table } from "./table.js";
import { mayAct } from "../rights.js";
import { errorBox, failed, select } from "../parts/dialog.js";
import { icon, stateIcon } from "../parts/icons.js";
import { resolved as resolvedTime } from "../parts/relative.js";
import { empty, stateWords } from "../parts/words.js";
import { enter, rewrite } from "../router.js";

const SIZES = [25, 50, 100, 200];
const SIZE_KEY = "ups.page-size";
const OWN = ["page", "of", "columns"];
const OPEN = ["SCHEDULED", "IN PROGRESS"];
const TYPING_PAUSE = 250;
const QUIET = 700;

function rememberedSize() {
  const size = Number(localStorage.getItem(SIZE_KEY));
  return SIZES.includes(size) ? size : 50;
}

class Worklist {
  constructor(context) {
    this.system = context.system;
    this.query = { ...context.query };
    this.size = rememberedSize();
    this.total = null;
    this.loading = null;
    this.selection = new Selection(() => this.showSelection());
    this.filters = new Filters(this.system, this.query, (changes) => this.changeQuery(changes));
    this.table = new Table({
      columns: () => shownColumns(this.query.columns),
      order: () => this.order,
      onOrder: (order) => this.changeQuery({ order }),
      selection: this.selection,
    });
    this.build();
    this.reload = debounced(QUIET, () => this.load({ quiet: true }));
    this.recount = debounced(QUIET, () => this.count());
  }

  // --- parts ---

  build() {
    this.search = h("input", {
      type: "search",
      placeholder: t("Patient, label, accession number, UID …"),
      "aria-label": t("Search"),
      value: this.query.text || "",
      oninput: debounced(TYPING_PAUSE, () => this.search.value.trim() === (this.query.text || "") || this.changeQuery({}, { typing: true })),
    });
    this.csv = h("button", { type: "button", onclick: () => this.export(), title: t("Export all matching workitems as CSV") }, icon("download"), t("CSV"));
    this.views = h("button", { type: "button", onclick: () => showViews(this.query), title: t("Saved views") }, icon("star"), t("Views"));
    this.columns = h("button", { type: "button", onclick: () => this.choose(), title: t("Choose and arrange columns") }, icon("columns"), t("Columns"));
    this.states = h("div.segments", { role: "group", "aria-label": t("State") });
    this.worklists = h("select", { "aria-label": t("Worklist"), onchange: () => this.changeQuery({ WorklistLabel: this.worklists.value }) });
    this.orders = h("select.narrow-only", { "aria-label": t("Sort by"), onchange: () => this.changeQuery({ order: this.orders.value }) });
    this.matchCount = h("span.faint", { "aria-live": "polite" });
    this.pager = h("nav.pager", { "aria-label": t("Pages") });
    this.bar = h("div.selection", { hidden: true });
    this.body = h("div.table-box", { tabindex: -1 }, this.table.element);
    this.element = h(
      "div.listing",
      {},
      h(
        "div.toolbar",
        {},
        h("label.search", {}, icon("search"), this.search, h("kbd", {}, "/")),
        this.worklists,
        this.orders,
        h("span.spring", {}),
        this.views,
        this.filters.button,
        this.columns,
        this.csv,
        mayAct(this.system) && h("a.button", { href: "#/many", title: t("Create workitems from a CSV file") }, icon("upload"), t("From CSV")),
      ),
      h("div.states-bar", {}, this.states),
      this.filters.chips,
      this.body,
      this.bar,
      h("footer.foot", {}, this.matchCount, h("span.spring", {}), this.pager),
    );
  }

  // --- query ---

  // Each change is a step that Back undoes; consecutive keystrokes are one step.
  changeQuery(changes, { typing = false } = {}) {
    const typed = this.search.value.trim(); // another change must not discard text typed within the pause
    for (const [name, value] of Object.entries({ page: "", text: typed, ...changes })) {
      if (value === "" || value === null || value === undefined) delete this.query[name];
      else this.query[name] = String(value);
    }
    if (!this.query.order) this.query.order = "-created";
    if (typing && this.typing) rewrite("worklist", [], this.query);
    else enter("worklist", [], this.query);
    this.typing = typing;
    window.dispatchEvent(new Event("hashchange"));
  }

  get order() {
    return this.query.order || "-created";
  }

  parameters() {
    const query = Object.entries(this.query).filter(([name]) => !OWN.includes(name));
    return Object.fromEntries(query.map(([name, value]) => [name, resolvedTime(value)]));
  }

  get page() {
    return Math.max(1, Number(this.query.page) || 1);
  }

  async choose() {
    const names = await chooseColumns(shownColumns(this.query.columns));
    if (!names) return;
    if (this.query.columns) this.changeQuery({ columns: isUsual(names) ? "" : names.join(), page: this.query.page });
    else this.table.show(this.table.rows);
  }

  // --- loading ---

  async load({ quiet = false } = {}) {
    if (this.loading) this.loading.abort();
    const controller = (this.loading = new AbortController());
    this.element.classList.toggle("busy", !quiet);
    try {
      const query = { ...this.parameters(), offset: String((this.page - 1) * this.size), limit: String(this.size) };
      this.receive(await get("workitems", query, controller.signal), quiet);
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error, quiet);
    } finally {
      if (this.loading === controller) this.element.classList.remove("busy");
    }
  }

  receive(answer, quiet) {
    this.total = answer.total;
    const last = Math.max(1, Math.ceil(answer.total / this.size));
    if (this.page > last) {
      this.query.page = String(last);
      rewrite("worklist", [], this.query);
      return this.load({ quiet });
    }
    this.table.show(answer.workitems, { flash: quiet });
    replace(this.body, answer.total ? this.table.element : this.emptyState());
    this.showPager();
    this.showSelection();
    return undefined;
  }

  fail(error, quiet) {
    if (!quiet) replace(this.body, errorBox(error));
  }

  emptyState() {
    const isFiltered = Object.keys(this.parameters()).some((name) => name !== "order");
    if (isFiltered) {
      const all = h("button", { type: "button", onclick: () => this.clear() }, t("Show all"));
      return empty(t("No workitems match this search."), all);
    }
    return empty(t("The worklist is empty."), mayAct(this.system) && h("a.button.primary", { href: "#/new" }, icon("plus"), t("Create the first workitem")));
  }

  clear() {
    this.search.value = "";
    this.changeQuery(Object.fromEntries(Object.keys(this.query).map((name) => [name, ["order", "columns"].includes(name) ? this.query[name] : ""])));
  }

  async count() {
    const query = this.parameters();
    try {
      this.showCounts(await get("counts", query));
    } catch {
      // the next change reloads the counts
    }
  }

  // --- showing ---

  showCounts(counts) {
    this.counts = counts;
    const chosen = this.query.late ? "late" : this.query.ProcedureStepState || "";
    const { matches } = counts;
    const all = Object.values(matches).reduce((sum, number) => sum + number, 0);
    const open = OPEN.reduce((sum, state) => sum + (matches[state] || 0), 0);
    const segment = (value, words, number, sign, changes) =>
      h("button", { type: "button", "aria-pressed": String(chosen === value), class: value === "late" && number ? "alarming" : "", onclick: () => this.changeQuery(changes) }, sign, words, h("span.number", {}, count(number)));
    replace(
      this.states,
      segment(OPEN.join(), t("Open"), open, null, { ProcedureStepState: OPEN.join(), late: "" }),
      segment("late", t("Late"), counts.late, icon("alert"), { ProcedureStepState: "", late: "yes" }),
      this.system.states.map((state) => segment(state, stateWords(state), matches[state] || 0, stateIcon(state), { ProcedureStepState: state, late: "" })),
      segment("", t("All"), all, null, { ProcedureStepState: "", late: "" }),
    );
    this.showWorklists();
  }

  showWorklists() {
    const chosen = this.query.WorklistLabel || "";
    const labels = this.counts.worklists.map((worklist) => worklist.worklist);
    const offered = chosen && !labels.includes(chosen) ? [...labels, chosen] : labels;
    replace(this.worklists, [["", t("All worklists")], ...offered.map((label) => [label, label])].map(([value, words]) => h("option", { value }, words)));
    this.worklists.value = chosen;
    const orders = ORDERS.some(([value]) => value === this.order) ? ORDERS : [...ORDERS, [this.order, t("Custom order")]];
    replace(this.orders, orders.map(([value, words]) => h("option", { value }, words)));
    this.orders.value = this.order;
  }

  showPager() {
    const first = this.total ? (this.page - 1) * this.size + 1 : 0;
    const end = Math.min(this.page * this.size, this.total);
    this.matchCount.textContent = this.total ? n(this.total, "{first}–{end} of {n} workitem|{first}–{end} of {n} workitems", { first: count(first), end: count(end) }) : "";
    const last = Math.max(1, Math.ceil(this.total / this.size));
    const sizes = select(SIZES.map((size) => [String(size), t("{n} per page", { n: size })]), String(this.size), { "aria-label": t("Page size") });
    sizes.addEventListener("change", () => this.resize(Number(sizes.value)));
    const jump = h("input", { type: "number", min: 1, max: last, value: this.page, "aria-label": t("Page, of {last}", { last }) });
    jump.addEventListener("change", () => this.turn(Number(jump.value), last));
    replace(
      this.pager,
      sizes,
      h("button", { type: "button", disabled: this.page <= 1, onclick: () => this.turn(this.page - 1, last), "aria-label": t("Previous page") }, icon("back")),
      h("span", {}, t("Page"), " ", jump, " ", t("of {last}", { last: count(last) })),
      h("button", { type: "button", disabled: this.page >= last, onclick: () => this.turn(this.page + 1, last), "aria-label": t("Next page") }, icon("next")),
    );
  }

  turn(page, last) {
    const target = Math.min(Math.max(1, Math.round(page) || 1), last);
    if (target !== this.page) this.changeQuery({ page: target });
  }

  resize(size) {
    localStorage.setItem(SIZE_KEY, String(size));
    const first = (this.page - 1) * this.size;
    this.size = size;
    this.changeQuery({ page: Math.floor(first / size) + 1 });
  }

  showSelection() {
    this.table.showChosen();
    this.bar.hidden = this.selection.size === 0;
    if (!this.selection.size) return;
    const page = { rows: this.table.rows, query: this.parameters(), total: this.total };
    replace(this.bar, selectionBar(this.selection, this.system, page, (problems) => this.afterBatch(problems)));
  }

  // After a bulk action, only the refused workitems stay selected.
  afterBatch(problems) {
    this.selection.clear();
    this.selection.set(problems.map(([row]) => row).filter((row) => row.uid), true);
    this.load({ quiet: true });
    this.recount();
  }

  async export() {
    const show = (words) => replace(this.csv, icon("download"), words);
    this.csv.disabled = true;
    try {
      await downloadCsv(this.parameters(), "workitems.csv", (share) => show(`${Math.round(share * 100)} %`));
    } catch (error) {
      failed(error);
    } finally {
      show(t("CSV"));
      this.csv.disabled = false;
    }
  }

  // --- calls from the frame ---

  moved(query) {
    this.query = { ...query };
    if (document.activeElement !== this.search) this.search.value = this.query.text || "";
    if (this.selection.all) this.selection.clear();
    this.filters.show(this.query);
    if (this.counts) this.showCounts(this.counts);
    this.load();
    this.count();
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

// Without a query, the user's default view applies. "Workitems of this study" has an identifier of Orthanc (`of`), which is
// replaced by a filter.
async function resolvedQuery(query) {
  if (!Object.keys(query).length) {
    rewrite("worklist", [], firstView());
    return firstView();
  }
  if (!query.of) return query;
  const [level, id] = query.of.split("/");
  const resource = await get("prefill", { level, id });
  const { of, ...rest } = query;
  const filters = level === "patient" ? { PatientID: resource.patient_id } : { study: resource.study };
  rewrite("worklist", [], { ...rest, ...filters });
  return { ...rest, ...filters };
}

export async function worklistView(context) {
  const query = await resolvedQuery(context.query);
  const list = new Worklist({ ...context, query });
  await Promise.all([list.load(), list.count()]);
  list.filters.show(list.query);
  return {
    element: list.element,
    title: t("Worklist"),
    moved: (parts, query) => (query.of || !Object.keys(query).length ? false : list.moved(query)),
    changed: () => {
      list.reload();
      list.recount();
    },
    key: (event) => !isTyping(event) && list.key(event),
    entered: () => list.table.restore(),
    left: () => list.loading && list.loading.abort(),
  };
}
