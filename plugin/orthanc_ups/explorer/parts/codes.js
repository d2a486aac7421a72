// SPDX-License-Identifier: AGPL-3.0-or-later
// Editors of coded terms and of people, in the keyword form of the management API.

import { h, replace } from "../dom.js";
import { t } from "../languages.js";
import { icon } from "./icons.js";

const PARTS = [
  ["CodeMeaning", t("Meaning"), 64],
  ["CodeValue", t("Code"), 16],
  ["CodingSchemeDesignator", t("Scheme"), 16],
];

// One coded term: {element, value()}; value() is a list of one item, or empty.
export function codeEditor(item = {}) {
  const inputs = PARTS.map(([keyword, words, longest]) => {
    const input = h("input", { type: "text", maxlength: longest, value: item[keyword] || "", "aria-label": words, placeholder: words });
    return [keyword, input];
  });
  const element = h("div.code", {}, inputs.map(([, input]) => input));
  return {
    element,
    value: () => {
      const entered = Object.fromEntries(inputs.map(([keyword, input]) => [keyword, input.value.trim()]).filter(([, text]) => text));
      return Object.keys(entered).length ? [{ ...rest(item), ...entered }] : [];
    },
  };
}

const rest = (item) => Object.fromEntries(Object.entries(item).filter(([name]) => !PARTS.some(([keyword]) => keyword === name)));

// A list of editors with buttons to add and remove one.
export function listEditor(items, make, words) {
  let editors = [];
  const list = h("div.list");
  const add = h("button.small", { type: "button", onclick: () => insert(undefined, true) }, icon("plus"), words);

  function insert(item, focus = false) {
    const editor = make(item);
    const remove = h("button.quiet.small", { type: "button", "aria-label": t("Remove"), onclick: () => drop(editor) }, icon("close"));
    editor.line = h("div.line", {}, editor.element, remove);
    editors.push(editor);
    list.append(editor.line);
    if (focus) editor.element.querySelector("input").focus();
  }
  function drop(editor) {
    editors = editors.filter((entry) => entry !== editor);
    editor.line.remove();
  }
  items.forEach((item) => insert(item));
  return { element: h("div", {}, list, add), value: () => editors.flatMap((editor) => editor.value()) };
}

// A human performer by name and organization; the server creates a code for a performer who has none.
export function personEditor(item = {}) {
  const name = h("input", { type: "text", maxlength: 64, value: item.HumanPerformerName || "", placeholder: t("Family^Given"), "aria-label": t("Name") });
  const organization = h("input", { type: "text", maxlength: 64, value: item.HumanPerformerOrganization || "", placeholder: t("Organization"), "aria-label": t("Organization") });
  return {
    element: h("div.code.person", {}, name, organization),
    value: () => {
      if (!name.value.trim() && !organization.value.trim()) return [];
      const same = name.value.trim() === (item.HumanPerformerName || "");
      const unchanged = same ? item : {};
      return [{ ...unchanged, HumanPerformerName: name.value.trim(), HumanPerformerOrganization: organization.value.trim() }];
    },
  };
}

const codeWords = (item) => item.CodeMeaning || item.CodeValue || "?";
const key = (item) => [item.CodeValue, item.CodingSchemeDesignator].join("\u0000");

// A choice of coded terms: one (select) or several (checkboxes).
export function codeChoice(choices, chosen, several) {
  const on = new Set(chosen.map(key));
  if (!several) {
    const options = choices.map((choice, at) => h("option", { value: at, selected: on.has(key(choice)) }, codeWords(choice)));
    const input = h("select", {}, h("option", { value: "" }, "–"), options);
    return { element: input, value: () => (input.value === "" ? [] : [choices[Number(input.value)]]) };
  }
  const boxes = choices.map((choice) => [choice, h("input", { type: "checkbox", checked: on.has(key(choice)) })]);
  const element = h("div.choices", {}, boxes.map(([choice, box]) => h("label", {}, box, codeWords(choice))));
  return { element, value: () => boxes.filter(([, box]) => box.checked).map(([choice]) => choice) };
}

export function fixedCodes(items) {
  const element = replace(h("div.fixed"), items.map((item) => h("span.value", {}, codeWords(item))));
  return { element, value: () => items };
}
