// SPDX-License-Identifier: AGPL-3.0-or-later
// Creating a workitem from a template, a study or another workitem; and editing a scheduled one.

import { get, part, post, put } from "../api.js";
import { h, replace } from "../dom.js";
import { n, t, translated } from "../languages.js";
import { errorBox, notice } from "../parts/dialog.js";
import { makeField } from "../parts/fields.js";
import { icon } from "../parts/icons.js";
import { whyField } from "../parts/reasons.js";
import { card } from "../parts/words.js";
import { go, leaveFor, link } from "../router.js";

const TEMPLATE_KEY = "ups.template";
// How a refusal names an attribute: "ProcedureStepLabel (0074,1204) ". The form shows the label of the field instead.
const TECHNICAL_NAME = /^[\w.]+ \([0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\) /;
const isEmpty = (value) => value === "" || value === null || value === undefined || (Array.isArray(value) && value.length === 0);
const same = (first, second) => JSON.stringify(isEmpty(first) ? null : first) === JSON.stringify(isEmpty(second) ? null : second);

// Fields in groups, with their values.
class Form {
  constructor(fields, values) {
    this.editors = fields.map((definition) => makeField(definition, values[definition.keyword]));
    this.groups = new Map();
    fields.forEach((definition, at) => {
      if (!this.groups.has(definition.group)) this.groups.set(definition.group, []);
      this.groups.get(definition.group).push(this.editors[at]);
    });
  }

  cards() {
    return [...this.groups].map(([name, editors]) => card(translated(name), h("div.grid", {}, editors.map((editor) => editor.element))));
  }

  values() {
    return Object.fromEntries(this.editors.map((editor) => [editor.keyword, editor.value()]));
  }

  // Shows a refusal beside the field that it names; false if it names none of these.
  showProblem(error) {
    this.editors.forEach((editor) => editor.showProblem(""));
    const named = (error.attribute || "").split(".");
    const faulty = this.editors.find((editor) => editor.keyword.split(".").some((keyword) => named.includes(keyword)));
    if (faulty) faulty.showProblem(error.message.replace(TECHNICAL_NAME, `${faulty.label} `));
    return Boolean(faulty);
  }
}

function page(title, back, body, { submit, words }) {
  const problem = h("div", {});
  const button = h("button.primary", { type: "submit" }, words);
  const form = h("form.page.form", { novalidate: true }, h("header.head", {}, h("a.back", { href: back }, icon("back"), t("Back")), h("h1", {}, title)), body, problem, h("footer.submit", {}, h("a.button", { href: back }, t("Cancel")), button));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    replace(problem);
    try {
      await submit();
    } catch (error) {
      replace(problem, errorBox(error));
      problem.scrollIntoView({ block: "nearest" });
    } finally {
      button.disabled = false;
    }
  });
  return form;
}

// --- new ---

class NewWorkitem {
  constructor(system, templates, prefill) {
    this.system = system;
    this.templates = templates;
    this.prefill = prefill;
    this.holder = h("div", {});
    this.why = whyField();
    this.inputs = prefill && prefill.inputs ? inputChoice(prefill.inputs) : null;
    const names = templates.map((template) => template.name);
    const last = localStorage.getItem(TEMPLATE_KEY);
    this.useTemplate(names.includes(last) ? last : names[0]);
  }

  // Switching to another template keeps what the user typed, but not the values of the previous template.
  useTemplate(name) {
    const typed = this.form ? changed(this.initialValues, this.form.values()) : {};
    this.template = this.templates.find((template) => template.name === name);
    const initial = this.template.fields;
    const fields = this.system.fields.map((definition) => withTemplate(definition, initial[definition.keyword]));
    const defaults = Object.fromEntries(Object.entries(initial).map(([keyword, field]) => [keyword, field.default]));
    const values = { ...defaults, ...(this.prefill ? this.prefill.attributes : {}) };
    this.defaults = defaults;
    this.initialValues = new Form(fields, values).values();
    this.form = new Form(fields, { ...values, ...typed });
    this.hidden = Object.fromEntries(Object.entries({ ...defaults, ...(this.prefill ? this.prefill.attributes : {}) }).filter(([keyword]) => !this.system.fields.some((field) => field.keyword === keyword)));
    this.show();
  }

  show() {
    const tiles = this.templates.map((template) =>
      h("button.tile", { type: "button", "aria-pressed": String(template === this.template), onclick: () => this.useTemplate(template.name) }, h("b", {}, translated(template.name)), h("span", {}, translated(template.description))),
    );
    const from = h("div.tiles", { role: "group", "aria-label": t("Template") }, tiles);
    replace(this.holder, from, this.inputs && card(t("Inputs"), this.inputs.element), this.form.cards(), card(t("History"), this.why.element));
  }

  isChanged() {
    return Object.keys(changed(this.initialValues, this.form.values())).length > 0;
  }

  async submit() {
    // An empty value is sent only to override a value of the template.
    const entered = Object.entries(this.form.values()).filter(([keyword, value]) => !isEmpty(value) || !isEmpty(this.defaults[keyword]));
    const attributes = { ...this.hidden, ...Object.fromEntries(entered) };
    const content = { template: this.template.name, attributes, inputs: this.inputs ? this.inputs.value() : [], ...this.why.value() };
    try {
      const answer = await post("workitems", content);
      localStorage.setItem(TEMPLATE_KEY, this.template.name);
      notice([t("Created."), ...answer.details].join(" "));
      this.sent = true;
      leaveFor("workitem", [answer.uid]);
    } catch (error) {
      if (!this.form.showProblem(error)) throw error;
    }
  }
}

function changed(before, after) {
  return Object.fromEntries(Object.entries(after).filter(([keyword, value]) => !same(before[keyword], value)));
}

function withTemplate(definition, field) {
  if (!field) return definition;
  const choices = field.choices.length ? field.choices : definition.choices;
  return { ...definition, choices, fromTemplate: field.choices.length > 0, required: definition.required || field.required, fixed: field.fixed };
}

// The series of a study, of which the selected ones become inputs.
function inputChoice(inputs) {
  const boxes = inputs.map((input) => [input, h("input", { type: "checkbox", checked: input.chosen })]);
  const lines = boxes.map(([input, box]) => h("label", {}, box, h("span.clip", {}, input.label), h("span.faint", {}, n(input.instances, "{n} instance|{n} instances"))));
  const element = inputs.length ? h("div.choices.inputs", {}, lines) : h("p.faint", {}, t("Nothing to choose from."));
  const value = () => boxes.filter(([, box]) => box.checked).map(([{ level, id }]) => ({ level, id }));
  return { element, value };
}

async function prefilled(query) {
  if (query.copy || query.repeat) {
    const copy = await get(`workitems/${part(query.copy || query.repeat)}/copy`, query.repeat ? { repeats: "true" } : {});
    const title = query.repeat ? t("Repeat of {label}", { label: copy.title }) : t("Copy of {label}", { label: copy.title });
    return { ...copy, title, inputs: null, attributes: flattened(copy.attributes) };
  }
  if (!query.for) return null;
  const [level, id] = query.for.split("/");
  return get("prefill", { level, id });
}

// Moves the attributes of a single request to fields of their own, such as "ReferencedRequestSequence.AccessionNumber".
function flattened(attributes) {
  const { ReferencedRequestSequence: requests = [], ...rest } = attributes;
  if (requests.length !== 1) return attributes;
  const [request] = requests;
  const inner = Object.entries(request).map(([keyword, value]) => [`ReferencedRequestSequence.${keyword}`, value]);
  return { ...rest, ...Object.fromEntries(inner.filter(([, value]) => !isEmpty(value))) };
}

export async function newView({ system, query, lastList }) {
  const [{ templates }, prefill, counts] = await Promise.all([get("templates"), prefilled(query), get("counts")]);
  const labels = counts.worklists.map((worklist) => worklist.worklist);
  const fields = system.fields.map((field) => (field.keyword === "WorklistLabel" ? { ...field, choices: labels } : field));
  const draft = new NewWorkitem({ ...system, fields }, templates, prefill);
  const title = !prefill ? t("New workitem") : prefill.inputs ? t("New workitem for {what}", { what: prefill.title }) : prefill.title;
  const form = page(title, lastList(), draft.holder, { submit: () => draft.submit(), words: t("Create workitem") });
  return {
    element: form,
    title,
    entered: () => (form.querySelector(".field input") || form).focus(),
    unsaved: () => !draft.sent && draft.isChanged(),
  };
}

// --- edit ---

export async function editView({ system, parts }) {
  const uid = parts[0];
  const back = link("workitem", [uid]);
  const item = await get(`workitems/${part(uid)}`);
  const form = new Form(system.fields.filter((definition) => definition.editable), item.form);
  const initialValues = form.values();
  let sent = false;
  const why = whyField();
  const submit = async () => {
    const values = changed(initialValues, form.values());
    if (!Object.keys(values).length) return leaveFor("workitem", [uid]);
    try {
      const answer = await put(`workitems/${part(uid)}`, { attributes: values, ...why.value() });
      sent = true;
      notice([t("Saved."), ...answer.details].join(" "));
      return leaveFor("workitem", [uid]);
    } catch (error) {
      if (!form.showProblem(error)) throw error;
      return undefined;
    }
  };
  const element = page(t("Edit {label}", { label: item.label }), back, h("div", {}, form.cards(), card(t("History"), why.element)), { submit, words: t("Save") });
  return { element, title: t("Edit {label}", { label: item.label }), unsaved: () => !sent && Object.keys(changed(initialValues, form.values())).length > 0, key: (event) => event.key === "Escape" && go("workitem", [uid]) !== null };
}
