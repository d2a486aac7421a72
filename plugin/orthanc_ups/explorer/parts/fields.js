// SPDX-License-Identifier: AGPL-3.0-or-later
// Creates editors from the server's descriptions of fields.

import { h, newId } from "../dom.js";
import { fromDicom, fromDicomDate, toDicom, toDicomDate } from "../format.js";
import { t, translated } from "../languages.js";
import { codeChoice, codeEditor, fixedCodes, listEditor, personEditor } from "./codes.js";
import { field } from "./dialog.js";
import { priorityWords } from "./words.js";

const listed = (value) => (Array.isArray(value) ? value : value ? [value] : []);
const WORDS = { F: t("Female"), M: t("Male"), O: t("Other"), READY: t("Ready"), INCOMPLETE: t("Incomplete"), UNAVAILABLE: t("Unavailable") };
const choiceWords = (value) => WORDS[value] || priorityWords(value);

function plain(input) {
  return { element: input, value: () => input.value.trim() };
}

const MAKERS = {
  text: (definition, value) => withSuggestions(definition, h("input", { type: "text", maxlength: definition.longest || null, value: value || "" })),
  uid: (definition, value) => plain(h("input", { type: "text", maxlength: 64, spellcheck: "false", value: value || "" })),
  name: (definition, value) => plain(h("input", { type: "text", maxlength: 194, value: value || "" })),
  long: (definition, value) => plain(h("textarea", { rows: 3, maxlength: definition.longest || null, value: value || "" })),
  choice: (definition, value) => {
    const choices = definition.choices.includes(value) || !value ? definition.choices : [...definition.choices, value];
    const none = definition.required || value ? [] : [h("option", { value: "" }, "–")];
    return plain(h("select", { value: value || "" }, none, choices.map((choice) => h("option", { value: choice }, choiceWords(choice)))));
  },
  datetime: (definition, value) => dated("datetime-local", value, fromDicom, toDicom),
  date: (definition, value) => dated("date", value, fromDicomDate, toDicomDate),
  code: (definition, value) => codes(definition, listed(value), false),
  codes: (definition, value) => codes(definition, listed(value), true),
  people: (definition, value) => (definition.fixed ? fixedPeople(listed(value)) : listEditor(listed(value), personEditor, t("Performer"))),
};

// An unchanged field keeps its exact value, which may have seconds and fractions that the field does not show.
export function dated(type, value, from, to) {
  const shown = from(value || "");
  const input = h("input", { type, value: shown });
  return { element: input, value: () => (input.value === shown ? value || "" : to(input.value)) };
}

function codes(definition, value, several) {
  if (definition.fixed) return fixedCodes(value);
  if (definition.choices.length) return codeChoice(definition.choices, value, several);
  return several ? listEditor(value, codeEditor, t("Code")) : codeEditor(value[0]);
}

function fixedPeople(people) {
  const names = people.map((person) => person.HumanPerformerName);
  return { element: h("div.fixed", {}, names.join("; ")), value: () => people };
}

function withSuggestions(definition, input) {
  if (!definition.choices.length) return plain(input);
  const id = newId("choices");
  input.setAttribute("list", id);
  return { element: h("span.suggesting", {}, input, h("datalist", { id }, definition.choices.map((choice) => h("option", { value: choice })))), value: () => input.value.trim() };
}

/* `definition`: the server's description of the field, with what a template adds (choices, required, fixed). A text field
   with choices from a template becomes a list. */
export function makeField(definition, value) {
  const kind = definition.kind === "text" && definition.fromTemplate && definition.choices.length ? "choice" : definition.kind;
  const editor = MAKERS[kind](definition, value);
  const input = editor.element.matches("input, select, textarea") ? editor.element : editor.element.querySelector("input, select, textarea");
  if (definition.fixed && input) input.disabled = true;
  const problem = h("p.problem", { hidden: true, role: "alert" });
  const box = field(translated(definition.label), editor.element, { help: translated(definition.help), required: definition.required });
  box.append(problem);
  box.classList.add(`kind-${definition.kind}`);
  return {
    keyword: definition.keyword,
    label: translated(definition.label),
    element: box,
    value: editor.value,
    showProblem(words) {
      problem.hidden = !words;
      problem.textContent = words || "";
      box.classList.toggle("wrong", Boolean(words));
      if (words && input) input.focus();
    },
  };
}
