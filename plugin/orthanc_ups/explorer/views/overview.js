// SPDX-License-Identifier: AGPL-3.0-or-later
// The whole at a glance: warnings, counts, charts, addresses.

import { get } from "../api.js";
import { debounced, h, replace } from "../dom.js";
import { count, latency } from "../format.js";
import { lineChart, shares } from "../parts/charts.js";
import { failed } from "../parts/dialog.js";
import { icon, stateIcon } from "../parts/icons.js";
import { card, copyButton, stateWords, time } from "../parts/words.js";
import { link } from "../router.js";

const PAUSE = 10_000;
const SPAN_KEY = "ups.span";

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
    this.found = await get("overview");
    this.show();
  }

  show() {
    const found = this.found;
    replace(
      this.element,
      h("header.head", {}, h("h1", {}, "Overview"), h("p.faint", {}, `${this.system.name} · version ${this.system.version} on Orthanc ${this.system.orthanc_version} · running since `, time(found.started))),
      this.warnings(found.warnings),
      this.tiles(found),
      this.charts(found.charts),
      h("div.columns.even", {}, this.worklists(found), this.listeners(found.listeners)),
    );
  }

  warnings(warnings) {
    if (!warnings.length) return h("p.allgood", {}, icon("check"), "Nothing needs your attention.");
    return h("ul.warnings", { "aria-label": "Warnings" }, warnings.map((words) => h("li", {}, icon("alert"), h("span", {}, words))));
  }

  tiles(found) {
    const states = this.system.states.map((state) =>
      h("a.figure", { href: link("worklist", [], { ProcedureStepState: state }), class: stateClass(state) }, h("span.name", {}, stateIcon(state), stateWords(state)), h("b", {}, count(found.states[state] || 0))),
    );
    const delivery = found.delivery;
    const more = [
      ["Events waiting", delivery.pending],
      ["Dead letters", delivery.dead_letters],
      ["Subscribers", delivery.subscribers],
    ].map(([name, number]) => h("a.figure", { href: "#/subscribers" }, h("span.name", {}, name), h("b", {}, count(number))));
    return h("div.figures", {}, states, more);
  }

  charts(charts) {
    const chart = charts[this.span];
    const buttons = [["hour", "Last hour"], ["day", "Last day"]].map(([name, words]) =>
      h("button", { type: "button", "aria-pressed": String(this.span === name), onclick: () => this.use(name) }, words),
    );
    const per = chart.step === 1 ? "a minute" : `in ${chart.step} minutes`;
    const work = lineChart(`Workitems ${per}`, [
      { name: "created", values: chart.created, kind: "one" },
      { name: "changed state", values: chart.changed, kind: "two" },
      { name: "updated", values: chart.updated, kind: "three" },
    ], chart);
    const events = lineChart(`Events delivered ${per}`, [{ name: "delivered", values: chart.delivered, kind: "one" }], chart);
    const speed = lineChart("Time until delivered", [
      { name: "half within", values: chart.latency.median, kind: "one" },
      { name: "95 % within", values: chart.latency.p95, kind: "two" },
    ], chart, latency);
    return card("Throughput and latency", h("div.charts", {}, work, events, speed), { tools: h("div.segments.small", { role: "group", "aria-label": "Time span" }, buttons) });
  }

  use(span) {
    this.span = span;
    localStorage.setItem(SPAN_KEY, span);
    this.show();
  }

  worklists(found) {
    const lines = found.worklists.map(({ worklist, states }) => {
      const total = Object.values(states).reduce((sum, one) => sum + one, 0);
      const parts = this.system.states.map((state) => [stateClass(state), states[state] || 0]);
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, h("a", { href: link("worklist", [], { WorklistLabel: worklist }) }, worklist || "(none)")),
        this.system.states.map((state) => h("td.number", {}, states[state] ? count(states[state]) : h("span.faint", {}, "–"))),
        h("td", {}, shares(parts, total)),
      );
    });
    const head = h("tr", {}, h("th", { scope: "col" }, "Worklist"), this.system.states.map((state) => h("th.number", { scope: "col" }, stateWords(state))), h("th", {}));
    return card("Worklists", h("div.table-box", {}, h("table.plain-rows.tight", {}, h("caption.offscreen", {}, "Workitems by worklist and state"), h("thead", {}, head), h("tbody", {}, lines))));
  }

  listeners(listeners) {
    const lines = listeners.map((one) => {
      const address = one.address.replaceAll("{host}", location.hostname);
      return h("li", {}, h("div", {}, h("b", {}, one.name), one.note && h("div.faint.small", {}, one.note)), h("span.uid", {}, h("code", {}, address), copyButton(address, "Copy the address")));
    });
    return card("Where to connect", h("ul.listeners", {}, lines));
  }
}

export async function overviewView({ system }) {
  const page = new OverviewPage(system);
  await page.load().catch((error) => {
    failed(error);
    throw error;
  });
  return { element: page.element, title: "Overview", changed: page.reload, left: () => clearInterval(page.timer) };
}
