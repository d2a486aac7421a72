// SPDX-License-Identifier: AGPL-3.0-or-later
// Filters of the worklist by any matching key: chips that say what is asked, and a dialog to make one.

import { h, replace } from "../dom.js";
import { fromDicom, fromDicomDate, localValue, toDicom, toDicomDate, when } from "../format.js";
import { dialog, field, select } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { priorityWords, readinessWords, stateWords } from "../parts/words.js";

const ELSEWHERE = new Set(["text", "order", "page", "of", "ProcedureStepState", "WorklistLabel"]);
const STUDY = { name: "study", label: "Study", kind: "uid", choices: [], wildcards: false, usual: false };

const choiceWords = (value) => readinessWords(priorityWords(stateWords(value)));

// --- values in words and back ---

function instants(value) {
  const dash = value.search(/-(?!\d{4}(-|$))|-(?=\d{8})/);
  return dash < 0 ? [value, value] : [value.slice(0, dash), value.slice(dash + 1)];
}

function dates(value) {
  const [from, to = from] = value.split("-");
  return [from, to];
}

const rangeWords = (from, to) => (from && to ? `${from} to ${to}` : from ? `from ${from}` : `up to ${to}`);

function words(filter, value) {
  if (filter.kind === "choice") return `is ${value.split(",").map(choiceWords).join(" or ")}`;
  if (filter.kind === "datetime") return rangeWords(...instants(value).map((one) => when(isoOf(fromDicom(one)))));
  if (filter.kind === "date") return rangeWords(...dates(value).map((one) => when(fromDicomDate(one))));
  const middle = /^\*([^*?]+)\*$/.exec(value);
  if (middle) return `contains “${middle[1]}”`;
  return /[*?]/.test(value) && filter.wildcards ? `fits ${value}` : `is ${value}`;
}

const isoOf = (local) => (local ? new Date(local).toISOString() : "");

// --- editors: each returns {element, value()} ---

const EDITORS = {
  choice(filter, value) {
    const chosen = new Set(value ? value.split(",") : []);
    const boxes = filter.choices.map((one) => h("input", { type: "checkbox", value: one, checked: chosen.has(one) }));
    const element = h("div.choices", {}, boxes.map((box) => h("label", {}, box, choiceWords(box.value))));
    return { element, value: () => boxes.filter((box) => box.checked).map((box) => box.value).join(",") };
  },

  text(filter, value) {
    const plain = value.replace(/^\*|\*$/g, "");
    const how = value === "" || /^\*.*\*$/.test(value) ? "contains" : /\*$/.test(value) ? "begins" : "is";
    const input = h("input", { type: "text", value: /[*?]/.test(plain) ? value : plain, autofocus: true });
    const manner = select([["contains", "contains"], ["begins", "begins with"], ["is", "is exactly"]], filter.wildcards ? how : "is", { "aria-label": "How" });
    const made = { contains: (text) => `*${text}*`, begins: (text) => `${text}*`, is: (text) => text };
    return {
      element: h("div.pair", {}, filter.wildcards && manner, field(filter.wildcards ? "Text (* and ? are wildcards)" : "Exactly", input)),
      value: () => {
        const text = input.value.trim();
        return !text || /[*?]/.test(text) ? text : made[filter.wildcards ? manner.value : "is"](text);
      },
    };
  },

  uid(filter, value) {
    const input = h("input", { type: "text", value, autofocus: true, spellcheck: "false" });
    return { element: field("UID", input), value: () => input.value.trim() };
  },

  datetime(filter, value) {
    const [from, to] = value ? instants(value).map(fromDicom) : ["", ""];
    return span("datetime-local", from, to, toDicom, (start, days) => [localValue(start), localValue(new Date(start.getTime() + days * 86_400_000))]);
  },

  date(filter, value) {
    const [from, to] = value ? dates(value).map(fromDicomDate) : ["", ""];
    return span("date", from, to, toDicomDate, null);
  },
};

function span(type, from, to, convert, preset) {
  const low = h("input", { type, value: from });
  const high = h("input", { type, value: to });
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const use = (days, length) => () => {
    [low.value, high.value] = preset(new Date(midnight.getTime() + days * 86_400_000), length);
  };
  const presets = preset && [["Today", 0, 1], ["Tomorrow", 1, 1], ["Last 7 days", -6, 7], ["Next 7 days", 0, 7]];
  const buttons = presets && presets.map(([name, days, length]) => h("button.small", { type: "button", onclick: use(days, length) }, name));
  return {
    element: h("div", {}, h("div.pair", {}, field("From", low), field("To", high)), buttons && h("div.presets", {}, buttons)),
    value: () => {
      const [first, last] = [convert(low.value), convert(high.value)];
      return first || last ? `${first}-${last}` : "";
    },
  };
}

// --- the part of the worklist ---

export class Filters {
  constructor(system, asked, ask) {
    this.known = new Map([...system.filters, STUDY].map((one) => [one.name, one]));
    this.ask = ask;
    this.asked = asked;
    this.number = h("span.badge", { hidden: true });
    this.button = h("button", { type: "button", onclick: () => this.add() }, icon("filter"), "Filter", this.number);
    this.chips = h("div.chips", { hidden: true, "aria-label": "Filters" });
  }

  show(asked) {
    this.asked = asked;
    const active = Object.entries(asked).filter(([name]) => !ELSEWHERE.has(name));
    this.chips.hidden = active.length === 0;
    this.number.hidden = active.length === 0;
    this.number.textContent = String(active.length);
    const clear = h("button.quiet.small", { type: "button", onclick: () => this.clear(active) }, "Clear");
    replace(this.chips, active.map(([name, value]) => this.chip(name, value)), clear);
  }

  chip(name, value) {
    const filter = this.known.get(name) || { ...STUDY, name, label: name };
    const text = `${filter.label} ${words(filter, value)}`;
    return h(
      "span.chip",
      {},
      h("button.text", { type: "button", title: text, onclick: () => this.edit(filter, value) }, h("b", {}, filter.label), ` ${words(filter, value)}`),
      h("button.remove", { type: "button", "aria-label": `Remove ${filter.label}`, onclick: () => this.ask({ [name]: "" }) }, icon("close")),
    );
  }

  clear(active) {
    this.ask(Object.fromEntries(active.map(([name]) => [name, ""])));
  }

  options() {
    const all = [...this.known.values()].filter((one) => one.name !== "study");
    const group = (label, filters) => h("optgroup", { label }, filters.map((one) => h("option", { value: one.name }, one.label)));
    return [group("Usual", all.filter((one) => one.usual)), group("All", all.filter((one) => !one.usual))];
  }

  async add() {
    const names = h("select", {}, this.options());
    names.value = "ScheduledProcedureStepStartDateTime";
    const place = h("div", {});
    let editor = null;
    const change = () => {
      const filter = this.known.get(names.value);
      editor = EDITORS[filter.kind](filter, this.asked[filter.name] || "");
      replace(place, editor.element);
    };
    names.addEventListener("change", change);
    change();
    await dialog({
      title: "Filter the worklist",
      content: [field("Attribute", names), place],
      confirm: "Apply",
      action: () => this.ask({ [names.value]: editor.value() }),
    });
  }

  async edit(filter, value) {
    const editor = EDITORS[filter.kind](filter, value);
    await dialog({
      title: filter.label,
      content: editor.element,
      confirm: "Apply",
      action: () => this.ask({ [filter.name]: editor.value() }),
    });
  }
}
