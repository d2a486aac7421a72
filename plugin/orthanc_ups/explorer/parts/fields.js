// SPDX-License-Identifier: AGPL-3.0-or-later
// From the server's description of a field to an editor: {element, value(), focus()}.

import { h, newId } from "../dom.js";
import { fromDicom, fromDicomDate, toDicom, toDicomDate } from "../format.js";
import { said, t } from "../languages.js";
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
  text: (about, value) => withSuggestions(about, h("input", { type: "text", maxlength: about.longest || null, value: value || "" })),
  uid: (about, value) => plain(h("input", { type: "text", maxlength: 64, spellcheck: "false", value: value || "" })),
  name: (about, value) => plain(h("input", { type: "text", maxlength: 194, value: value || "" })),
  long: (about, value) => plain(h("textarea", { rows: 3, maxlength: about.longest || null, value: value || "" })),
  choice: (about, value) => {
    const choices = about.choices.includes(value) || !value ? about.choices : [...about.choices, value];
    const none = about.required || value ? [] : [h("option", { value: "" }, "–")];
    return plain(h("select", { value: value || "" }, none, choices.map((choice) => h("option", { value: choice }, choiceWords(choice)))));
  },
  datetime: (about, value) => dated("datetime-local", value, fromDicom, toDicom),
  date: (about, value) => dated("date", value, fromDicomDate, toDicomDate),
  code: (about, value) => codes(about, listed(value), false),
  codes: (about, value) => codes(about, listed(value), true),
  people: (about, value) => (about.fixed ? fixedPeople(listed(value)) : listEditor(listed(value), personEditor, t("Performer"))),
};

// What was not touched keeps its exact value: a field shows minutes, a date-time may hold more.
export function dated(type, value, from, to) {
  const shown = from(value || "");
  const input = h("input", { type, value: shown });
  return { element: input, value: () => (input.value === shown ? value || "" : to(input.value)) };
}

function codes(about, value, several) {
  if (about.fixed) return fixedCodes(value);
  if (about.choices.length) return codeChoice(about.choices, value, several);
  return several ? listEditor(value, codeEditor, t("Code")) : codeEditor(value[0]);
}

function fixedPeople(people) {
  const names = people.map((person) => person.HumanPerformerName);
  return { element: h("div.fixed", {}, names.join("; ")), value: () => people };
}

function withSuggestions(about, input) {
  if (!about.choices.length) return plain(input);
  const id = newId("choices");
  input.setAttribute("list", id);
  return { element: h("span.suggesting", {}, input, h("datalist", { id }, about.choices.map((choice) => h("option", { value: choice })))), value: () => input.value.trim() };
}

/* `about`: as the server describes the field, with what a template says of it (choices, required, fixed).
   A text with choices of a template becomes a list to choose from. */
export function makeField(about, value) {
  const kind = about.kind === "text" && about.fromTemplate && about.choices.length ? "choice" : about.kind;
  const editor = MAKERS[kind](about, value);
  const input = editor.element.matches("input, select, textarea") ? editor.element : editor.element.querySelector("input, select, textarea");
  if (about.fixed && input) input.disabled = true;
  const problem = h("p.problem", { hidden: true, role: "alert" });
  const box = field(said(about.label), editor.element, { help: said(about.help), required: about.required });
  box.append(problem);
  box.classList.add(`kind-${about.kind}`);
  return {
    keyword: about.keyword,
    label: said(about.label),
    element: box,
    value: editor.value,
    complain(words) {
      problem.hidden = !words;
      problem.textContent = words || "";
      box.classList.toggle("wrong", Boolean(words));
      if (words && input) input.focus();
    },
  };
}
