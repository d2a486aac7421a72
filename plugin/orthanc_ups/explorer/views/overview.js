// SPDX-License-Identifier: AGPL-3.0-or-later
// The overview: warnings, counts, charts and addresses.

import { get } from "../api.js";
import { debounced, h, replace } from "../dom.js";
import { ago, latency, relative, when } from "../format.js";
import { count, sentenceWords, t, translated, tx } from "../languages.js";
import { lineChart, shares } from "../parts/charts.js";
import { failed } from "../parts/dialog.js";
import { icon, stateIcon } from "../parts/icons.js";
import { card, copyButton, lateWords, stateWords, time } from "../parts/words.js";
import { link } from "../router.js";

const PAUSE = 10_000;
const SPAN_KEY = "ups.span";
const GROUPS = 12;

const stateClass = (state) => `state-${state.toLowerCase().replace(" ", "-")}`;

class OverviewPage {
  constructor(system) {
    this.system = system;
    this.element = h("div.page.overview");
    this.span = localStorage.getItem(SPAN_KEY) === "day" ? "day" : "hour";
    this.reload = debounced(1500, () => this.load().catch(() => {}));
    this.timer = setInterval(() => document.hidden || this.load().catch(() => {}), PAUSE);
  }

  async load() {
    this.overview = await get("overview");
    this.show();
  }

  show() {
    const overview = this.overview;
    replace(
      this.element,
      h("header.head", {}, h("h1", {}, t("Overview")), h("p.faint", {}, tx("{name} · version {version} on Orthanc {orthanc} · running since {when}", { name: this.system.name, version: this.system.version, orthanc: this.system.orthanc_version, when: time(overview.started) }))),
      this.warnings(overview.warnings),
      this.tiles(overview),
      overview.late && this.late(overview.late),
      this.charts(overview.charts),
      h("div.columns.even", {}, overview.counts && this.worklists(overview.counts.worklists), this.listeners(overview.listeners)),
    );
  }

  warnings(warnings) {
    if (!warnings.length) return h("p.allgood", {}, icon("check"), t("Nothing needs your attention."));
    const line = ({ level, link: target, sentence }) => h("li", { class: level }, icon("alert"), target ? h("a", { href: target }, sentenceWords(sentence)) : h("span", {}, sentenceWords(sentence)));
    return h("ul.warnings", { "aria-label": t("Warnings") }, warnings.map(line));
  }

  // Without the search index nothing can be counted; a dash stands for an unknown number.
  tiles({ counts, late: lateness, delivery }) {
    const states = this.system.states.map((state) =>
      h("a.figure", { href: link("worklist", [], { ProcedureStepState: state }), class: stateClass(state) }, h("span.name", {}, stateIcon(state), stateWords(state)), h("b", {}, counts ? count(counts.states[state] || 0) : "–")),
    );
    const total = lateness && lateness.late_work.total;
    const late = h(
      "a.figure",
      { href: link("worklist", [], { late: "yes", order: "start" }), class: total ? "alarming" : "" },
      h("span.name", {}, icon("alert"), t("Late or stuck")),
      h("b", {}, lateness ? count(total) : "–"),
    );
    const more = [
      [t("Events waiting"), delivery.pending],
      [t("Dead letters"), delivery.dead_letters],
      [t("Subscribers"), delivery.subscribers],
    ].map(([name, number]) => h("a.figure", { href: "#/subscribers" }, h("span.name", {}, name), h("b", {}, count(number))));
    return h("div.figures", {}, states, late, more);
  }

  // The oldest workitems, and the worklists and stations with late ones, each with a link to its list.
  late({ late_work: late, oldest_scheduled: oldest, longest_in_progress: longest }) {
    if (!late.total && !oldest && !longest) return null;
    const first = (words, moment, query, age) => moment && h("a.figure", { href: link("worklist", [], query) }, h("span.name", {}, words), h("b", {}, age(moment.at)), h("span.faint", {}, when(moment.at)));
    const groupLine = (group) => {
      const query = { late: "yes", WorklistLabel: group.worklist, station: group.station, order: "start" };
      return h("li", {}, h("a", { href: link("worklist", [], query) }, group.worklist || t("(none)"), group.station ? ` · ${group.station}` : ""), h("span.spring", {}), h("b.number", {}, count(group.count)));
    };
    const kinds = Object.entries(late.kinds).filter(([, number]) => number);
    return card(t("Late or stuck"), [
      h("div.figures.tight", {}, first(t("Oldest scheduled start"), oldest, { ProcedureStepState: "SCHEDULED", order: "start" }, relative), first(t("Longest in progress"), longest, { ProcedureStepState: "IN PROGRESS", order: "claimed" }, ago)),
      late.total ? h("div.two", {},
        h("div", {}, h("h3", {}, t("By reason")), h("ul.counted", {}, kinds.map(([kind, number]) => h("li", {}, h("a", { href: link("worklist", [], { late: kind, order: "start" }) }, lateWords(kind)), h("span.spring", {}), h("b.number", {}, count(number)))))),
        h("div", {}, h("h3", {}, t("By worklist and station")), h("ul.counted", {}, late.groups.slice(0, GROUPS).map(groupLine))),
      ) : h("p.allgood", {}, icon("check"), t("Nothing is late.")),
    ]);
  }

  charts(charts) {
    const chart = charts[this.span];
    const buttons = [["hour", t("Last hour")], ["day", t("Last 24 hours")]].map(([name, words]) =>
      h("button", { type: "button", "aria-pressed": String(this.span === name), onclick: () => this.use(name) }, words),
    );
    const isPerMinute = chart.step === 1;
    const work = lineChart(isPerMinute ? t("Workitems per minute") : t("Workitems per {step} minutes", chart), [
      { name: t("created"), values: chart.created, kind: "one" },
      { name: t("changed state"), values: chart.changed, kind: "two" },
      { name: t("updated"), values: chart.updated, kind: "three" },
    ], chart);
    const events = lineChart(isPerMinute ? t("Events delivered per minute") : t("Events delivered per {step} minutes", chart), [{ name: t("delivered"), values: chart.delivered, kind: "one" }], chart);
    const speed = lineChart(t("Delivery latency"), [
      { name: t("median"), values: chart.latency.median, kind: "one" },
      { name: t("95th percentile"), values: chart.latency.p95, kind: "two" },
    ], chart, latency);
    return card(t("Throughput and latency"), h("div.charts", {}, work, events, speed), { tools: h("div.segments.small", { role: "group", "aria-label": t("Time span") }, buttons) });
  }

  use(span) {
    this.span = span;
    localStorage.setItem(SPAN_KEY, span);
    this.show();
  }

  worklists(worklists) {
    const lines = worklists.map(({ worklist, states }) => {
      const total = Object.values(states).reduce((sum, number) => sum + number, 0);
      const parts = this.system.states.map((state) => [stateClass(state), states[state] || 0]);
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, h("a", { href: link("worklist", [], { WorklistLabel: worklist }) }, worklist || t("(none)"))),
        this.system.states.map((state) => h("td.number", {}, states[state] ? count(states[state]) : h("span.faint", {}, "–"))),
        h("td", {}, shares(parts, total)),
      );
    });
    const head = h("tr", {}, h("th", { scope: "col" }, t("Worklist")), this.system.states.map((state) => h("th.number", { scope: "col" }, stateWords(state))), h("th", {}));
    return card(t("Worklists"), h("div.table-box", {}, h("table.plain-rows.tight", {}, h("caption.offscreen", {}, t("Workitems by worklist and state")), h("thead", {}, head), h("tbody", {}, lines))));
  }

  listeners(listeners) {
    const lines = listeners.map(({ name, address: pattern, note }) => {
      const address = pattern.replaceAll("{host}", location.hostname);
      return h("li", {}, h("div", {}, h("b", {}, translated(name)), note && h("div.faint.small", {}, translated(note))), h("span.uid", {}, h("code", {}, address), copyButton(address, t("Copy the address"))));
    });
    return card(t("Where to connect"), h("ul.listeners", {}, lines));
  }
}

export async function overviewView({ system }) {
  const page = new OverviewPage(system);
  await page.load().catch((error) => {
    failed(error);
    throw error;
  });
  return { element: page.element, title: t("Overview"), changed: page.reload, left: () => clearInterval(page.timer) };
}
