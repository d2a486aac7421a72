// SPDX-License-Identifier: AGPL-3.0-or-later
// Filters of the worklist by any matching key: chips for the active filters, and a dialog to add or change one.

import { get } from "../api.js";
import { h, newId, replace } from "../dom.js";
import { duration, fromDicom, fromDicomDate, toDicom, toDicomDate, localValue, when } from "../format.js";
import { t, translated } from "../languages.js";
import { dialog, field, select } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { PRESETS, isRelative, momentsOf, relativeWords } from "../parts/relative.js";
import { lateWords, priorityWords, readinessWords, stateWords } from "../parts/words.js";

const ELSEWHERE = new Set(["text", "order", "page", "of", "columns", "ProcedureStepState", "WorklistLabel"]);
const PLAIN = { choices: [], wildcards: false, usual: true };
const STUDY = { ...PLAIN, name: "study", label: t("Study"), kind: "uid", usual: false };
const LATE = ["start", "inputs", "completion", "expiration", "silent"];

// Filters beyond the matching keys of the standard. `of`: the kind of names to choose from.
const OWN = [
  { ...PLAIN, name: "ScheduledStationNameCodeSequence.CodeValue", label: t("Station"), kind: "names", of: "station" },
  { ...PLAIN, name: "ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodeValue", label: t("Performer"), kind: "names", of: "performer" },
  { ...PLAIN, name: "ScheduledWorkitemCodeSequence.CodeValue", label: t("Kind of work"), kind: "names", of: "work" },
  { ...PLAIN, name: "claimer", label: t("Claimed by"), kind: "names", of: "claimer" },
  { ...PLAIN, name: "performed", label: t("Performed station"), kind: "names", of: "performed" },
  { ...PLAIN, name: "claimed", label: t("Claimed"), kind: "datetime" },
  { ...PLAIN, name: "ended", label: t("Ended"), kind: "datetime" },
  { ...PLAIN, name: "duration", label: t("Duration"), kind: "duration" },
  { ...PLAIN, name: "late", label: t("Reason for delay"), kind: "late" },
  { ...PLAIN, name: "station", label: t("First station"), kind: "names", of: "station", usual: false },
];

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

function rangeWords(from, to) {
  if (from && to) return t("{from} to {to}", { from, to });
  return from ? t("from {from}", { from }) : t("up to {to}", { to });
}

// `value`: a range of seconds such as "600-3600".
function durationWords(value) {
  const [low, high] = value.split("-").map((part) => (part ? duration(Number(part)) : ""));
  return rangeWords(low, high);
}

function words(filter, value) {
  if (filter.kind === "choice") return t("is {values}", { values: value.split(",").map(choiceWords).join(t(" or ")) });
  if (filter.kind === "late") return value === "yes" ? t("any") : value.split(",").map(lateWords).join(t(" or "));
  if (filter.kind === "duration") return durationWords(value);
  if (isRelative(value)) return relativeWords(value);
  if (filter.kind === "names") return t("is {values}", { values: value });
  if (filter.kind === "datetime") return rangeWords(...instants(value).map((moment) => when(isoOf(fromDicom(moment)))));
  if (filter.kind === "date") return rangeWords(...dates(value).map((moment) => when(fromDicomDate(moment))));
  const middle = /^\*([^*?]+)\*$/.exec(value);
  if (middle) return t("contains “{text}”", { text: middle[1] });
  return /[*?]/.test(value) && filter.wildcards ? t("matches {values}", { values: value }) : t("is {values}", { values: value });
}

const isoOf = (local) => (local ? new Date(local).toISOString() : "");

// --- editors: each returns {element, value()} ---

const EDITORS = {
  choice(filter, value) {
    const chosen = new Set(value ? value.split(",") : []);
    const boxes = filter.choices.map((choice) => h("input", { type: "checkbox", value: choice, checked: chosen.has(choice) }));
    const element = h("div.choices", {}, boxes.map((box) => h("label", {}, box, choiceWords(box.value))));
    return { element, value: () => boxes.filter((box) => box.checked).map((box) => box.value).join(",") };
  },

  text(filter, value) {
    const plain = value.replace(/^\*|\*$/g, "");
    const how = value === "" || /^\*.*\*$/.test(value) ? "contains" : /\*$/.test(value) ? "begins" : "is";
    const input = h("input", { type: "text", value: /[*?]/.test(plain) ? value : plain, autofocus: true });
    const operator = select([["contains", t("contains")], ["begins", t("starts with")], ["is", t("is exactly")]], filter.wildcards ? how : "is", { "aria-label": t("Match") });
    const patterns = { contains: (text) => `*${text}*`, begins: (text) => `${text}*`, is: (text) => text };
    return {
      element: h("div.pair", {}, filter.wildcards && operator, field(filter.wildcards ? t("Text (* and ? are wildcards)") : t("Exact value"), input)),
      value: () => {
        const text = input.value.trim();
        return !text || /[*?]/.test(text) ? text : patterns[filter.wildcards ? operator.value : "is"](text);
      },
    };
  },

  uid(filter, value) {
    const input = h("input", { type: "text", value, autofocus: true, spellcheck: "false" });
    return { element: field(t("UID"), input), value: () => input.value.trim() };
  },

  datetime(filter, value) {
    const [from, to] = isRelative(value) ? momentsOf(value).map((at) => (at ? localValue(at) : "")) : value ? instants(value).map(fromDicom) : ["", ""];
    return span("datetime-local", { from, to, relative: isRelative(value) ? value : "" }, toDicom, PRESETS);
  },

  date(filter, value) {
    const [from, to] = value ? dates(value).map(fromDicomDate) : ["", ""];
    return span("date", { from, to, relative: "" }, toDicomDate, []);
  },

  duration(filter, value) {
    const [from, to] = (value || "-").split("-").map((part) => (part ? String(Number(part) / 60) : ""));
    const low = h("input", { type: "number", min: 0, value: from, autofocus: true });
    const high = h("input", { type: "number", min: 0, value: to });
    const seconds = (input) => (input.value === "" ? "" : String(Math.round(input.valueAsNumber * 60)));
    return {
      element: h("div.pair", {}, field(t("At least (minutes)"), low), field(t("At most (minutes)"), high)),
      value: () => (low.value || high.value ? `${seconds(low)}-${seconds(high)}` : ""),
    };
  },

  late(filter, value) {
    const chosen = new Set(value === "yes" || !value ? LATE : value.split(","));
    const boxes = LATE.map((kind) => h("input", { type: "checkbox", value: kind, checked: chosen.has(kind) }));
    const element = h("div.choices", {}, boxes.map((box) => h("label", {}, box, lateWords(box.value))));
    return {
      element,
      value: () => {
        const kinds = boxes.filter((box) => box.checked).map((box) => box.value);
        return kinds.length === LATE.length ? "yes" : kinds.join(",");
      },
    };
  },

  // Existing values by their meaning; a code can be typed too.
  names(filter, value, names) {
    const id = newId("names");
    const shown = names.find((entry) => (entry.code || entry.name) === value);
    const input = h("input", { type: "text", list: id, value: shown ? shown.name : value, autofocus: true, autocomplete: "off" });
    const list = h("datalist", { id }, names.map((entry) => h("option", { value: entry.name }, [entry.code, entry.count].filter(Boolean).join(" · "))));
    return {
      element: h("div", {}, field(filter.label, input, { help: names.length ? t("Choose one from the list, or type a code.") : "" }), list),
      value: () => {
        const text = input.value.trim();
        const named = names.find((entry) => entry.name.toLowerCase() === text.toLowerCase());
        return named && filter.name.includes(".") ? named.code : named ? named.name : text;
      },
    };
  },
};

// A range with two ends; a preset stays relative to the current time until either end is changed.
function span(type, { from, to, relative }, convert, presets) {
  let preset = relative;
  const low = h("input", { type, value: from });
  const high = h("input", { type, value: to });
  const words = h("p.help", { role: "status" }, preset ? t("{preset}, relative to the current time", { preset: relativeWords(preset) }) : "");
  const use = (value) => () => {
    preset = value;
    [low.value, high.value] = momentsOf(value).map((at) => (at ? localValue(at) : ""));
    words.textContent = t("{preset}, relative to the current time", { preset: relativeWords(value) });
  };
  const touched = () => {
    preset = "";
    words.textContent = "";
  };
  low.addEventListener("input", touched);
  high.addEventListener("input", touched);
  const buttons = presets.map(([value, name]) => h("button.small", { type: "button", onclick: use(value) }, name));
  return {
    element: h("div", {}, h("div.pair", {}, field(t("From"), low), field(t("To"), high)), buttons.length ? h("div.presets", {}, buttons) : null, words),
    value: () => {
      if (preset) return preset;
      const [first, last] = [convert(low.value), convert(high.value)];
      return first || last ? `${first}-${last}` : "";
    },
  };
}

// --- chips and dialogs ---

export class Filters {
  constructor(system, query, onChange) {
    this.filters = new Map([...system.filters.map((filter) => ({ ...filter, label: translated(filter.label) })), STUDY, ...OWN].map((filter) => [filter.name, filter]));
    this.names = new Map();
    this.onChange = onChange;
    this.query = query;
    this.number = h("span.badge", { hidden: true });
    this.button = h("button", { type: "button", onclick: () => this.add() }, icon("filter"), t("Filter"), this.number);
    this.chips = h("div.chips", { hidden: true, "aria-label": t("Filters") });
  }

  show(query) {
    this.query = query;
    const active = Object.entries(query).filter(([name]) => !ELSEWHERE.has(name));
    this.chips.hidden = active.length === 0;
    this.number.hidden = active.length === 0;
    this.number.textContent = String(active.length);
    const clear = h("button.quiet.small", { type: "button", onclick: () => this.clear(active) }, t("Clear"));
    replace(this.chips, active.map(([name, value]) => this.chip(name, value)), clear);
  }

  chip(name, value) {
    const filter = this.filters.get(name) || { ...STUDY, name, label: name };
    const text = h("span", {}, words(filter, value));
    const button = h("button.text", { type: "button", title: `${filter.label} ${text.textContent}`, onclick: () => this.edit(filter, value) }, h("b", {}, filter.label), " ", text);
    if (filter.kind === "names") {
      this.namesOf(filter.of).then((names) => {
        const named = names.find((entry) => entry.code === value || entry.name.toLowerCase() === value.toLowerCase());
        if (named) text.textContent = t("is {values}", { values: named.name });
      });
    }
    return h(
      "span.chip",
      {},
      button,
      h("button.remove", { type: "button", "aria-label": t("Remove {filter}", { filter: filter.label }), onclick: () => this.onChange({ [name]: "" }) }, icon("close")),
    );
  }

  // Requested once; if the request fails there are no suggestions, but a code can still be typed.
  namesOf(kind) {
    if (!this.names.has(kind)) this.names.set(kind, get("names", { of: kind }).then((answer) => answer.names, () => []));
    return this.names.get(kind);
  }

  clear(active) {
    this.onChange(Object.fromEntries(active.map(([name]) => [name, ""])));
  }

  options() {
    const all = [...this.filters.values()].filter((filter) => filter.name !== "study" && filter.name !== "station");
    const group = (label, filters) => h("optgroup", { label }, filters.map((filter) => h("option", { value: filter.name }, filter.label)));
    return [group(t("Common"), all.filter((filter) => filter.usual)), group(t("All"), all.filter((filter) => !filter.usual))];
  }

  async editor(filter, value) {
    const names = filter.kind === "names" ? await this.namesOf(filter.of) : [];
    return EDITORS[filter.kind](filter, value, names);
  }

  async add() {
    const names = h("select", {}, this.options());
    names.value = "ScheduledProcedureStepStartDateTime";
    const holder = h("div", {});
    let editor = null;
    const change = async () => {
      const filter = this.filters.get(names.value);
      editor = await this.editor(filter, this.query[filter.name] || "");
      replace(holder, editor.element);
    };
    names.addEventListener("change", change);
    await change();
    const chosen = await dialog({
      title: t("Filter the worklist"),
      content: [field(t("Attribute"), names), holder],
      confirm: t("Apply"),
      action: () => ({ [names.value]: editor.value() }),
    });
    if (chosen) this.onChange(chosen);
  }

  async edit(filter, value) {
    const editor = await this.editor(filter, value);
    const chosen = await dialog({
      title: filter.label,
      content: editor.element,
      confirm: t("Apply"),
      action: () => ({ [filter.name]: editor.value() }),
    });
    if (chosen) this.onChange(chosen);
  }
}
