// SPDX-License-Identifier: AGPL-3.0-or-later
// Creating several workitems, for each of some studies or each line of a CSV file, after a preview.

import { ORTHANC, get, part, post } from "../api.js";
import { h, replace } from "../dom.js";
import { fromDicom, toDicom } from "../format.js";
import { n, t, translated } from "../languages.js";
import { runBatch } from "../parts/batch.js";
import { parseCsv } from "../parts/csv.js";
import { errorBox, field, select } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { whyField } from "../parts/reasons.js";
import { card } from "../parts/words.js";

const SHOWN = 50;
const CODES = /^(.*Sequence)\.CodeValue$/;

// --- lines of a CSV file ---

// A heading is the label of a field in the form, a keyword, or a heading of the page's own CSV export.
const HEADINGS = {
  "Patient name": "PatientName",
  "Birth date": "PatientBirthDate",
  "Scheduled start": "ScheduledProcedureStepStartDateTime",
  Expiration: "ScheduledProcedureStepExpirationDateTime",
  Stations: "ScheduledStationNameCodeSequence",
  Performers: "ScheduledHumanPerformersSequence",
};
const IGNORED = new Set(["State", "Progress", "Progress description", "Created", "Claimed by", "Claimed at", "Ended", "Duration (s)", "Performed stations", "Late", "Workitem UID", "Workitem code"]);

function fieldOf(heading, fields) {
  const target = (HEADINGS[heading] || heading).toLowerCase();
  return fields.find((field) => [field.keyword, field.label, translated(field.label)].some((name) => name.toLowerCase() === target));
}

function value(definition, text) {
  if (definition.kind === "datetime") return /^\d{8,}/.test(text) ? text : toDicom(text.replace(" ", "T"));
  if (definition.kind === "date") return text.replaceAll("-", "");
  if (definition.kind === "choice") return text.toUpperCase();
  if (definition.kind === "people") return text.split(";").map((name) => ({ HumanPerformerName: name.trim().replace(/, */, "^") }));
  if (definition.kind === "code" || definition.kind === "codes") {
    return text.split(";").map((entry) => {
      const [code, scheme = "99UPS", meaning = code] = entry.split("|").map((part) => part.trim());
      return { CodeValue: code, CodingSchemeDesignator: scheme, CodeMeaning: meaning };
    });
  }
  return definition.kind === "name" ? text.replace(/, */, "^") : text;
}

// {entries, unknown}: the workitems to create, and unknown headings.
function entriesOf(rows, fields) {
  const [headings, ...lines] = rows;
  const columns = headings.map((heading) => fieldOf(heading, fields));
  const unknown = headings.filter((heading, at) => heading && !columns[at] && !IGNORED.has(heading) && !CODES.test(heading));
  const entries = lines.map((line, number) => {
    const attributes = {};
    columns.forEach((definition, at) => {
      if (definition && line[at]) attributes[definition.keyword] = value(definition, line[at]);
    });
    return { uid: `csv-${number}`, label: attributes.ProcedureStepLabel || t("line {n}", { n: number + 2 }), attributes, inputs: [] };
  });
  return { entries, unknown };
}

// --- studies of Orthanc ---

async function entryOfStudy(id) {
  const prefill = await get("prefill", { level: "study", id });
  const inputs = prefill.inputs.filter((input) => input.chosen).map(({ level, id: series }) => ({ level, id: series }));
  return { uid: id, label: prefill.title, attributes: prefill.attributes, inputs };
}

// --- the view ---

class Many {
  constructor(system, templates) {
    this.system = system;
    this.templates = templates;
    this.entries = [];
    this.template = select(templates.map((template) => [template.name, translated(template.name)]), templates[0].name);
    this.label = h("input", { type: "text", maxlength: 64 });
    this.why = whyField();
    this.preview = h("div", {});
    this.create = h("button.primary", { type: "button", disabled: true, onclick: () => this.run() }, t("Create workitems"));
    this.element = h("div.page.form", {},
      h("header.head", {}, h("h1", {}, t("Create several workitems"))),
      this.source(),
      card(t("For all workitems"), h("div.grid", {}, field(t("Template"), this.template), field(t("Label"), this.label, { help: t("Leave empty to use the label of the line or the template.") }), this.why.element)),
      this.preview,
      h("footer.submit", {}, this.create),
    );
  }

  source() {
    this.file = h("input", { type: "file", accept: ".csv,text/csv", onchange: () => this.read() });
    const names = this.system.fields.map((field) => translated(field.label)).join(", ");
    this.sourceCard = card(t("From a CSV file"), [
      field(t("File"), this.file, { help: t("The first line contains the names of the fields: {names}. Write codes as CODE|SCHEME|Meaning.", { names }) }),
    ]);
    return this.sourceCard;
  }

  async read() {
    const [file] = this.file.files;
    if (!file) return;
    const rows = parseCsv(await file.text());
    if (rows.length < 2) return void replace(this.preview, errorBox(new Error(t("This file has no lines below its header."))));
    const { entries, unknown } = entriesOf(rows, this.system.fields);
    this.show(entries, unknown);
  }

  show(entries, unknown = []) {
    this.entries = entries;
    this.create.disabled = entries.length === 0;
    this.create.textContent = n(entries.length, "Create {n} workitem|Create {n} workitems");
    const columns = this.system.fields.filter((definition) => entries.some((entry) => definition.keyword in entry.attributes));
    const head = h("tr", {}, h("th", { scope: "col" }, ""), columns.map((definition) => h("th", { scope: "col" }, translated(definition.label))));
    const lines = entries.slice(0, SHOWN).map((entry, at) => h("tr", {}, h("td.number.faint", {}, String(at + 1)), columns.map((definition) => h("td", {}, cellContent(definition, entry.attributes[definition.keyword])))));
    const more = entries.length > SHOWN ? h("p.faint", {}, n(entries.length - SHOWN, "and {n} more|and {n} more")) : null;
    const warning = unknown.length ? h("p.caution", {}, t("These columns are unknown and are ignored: {names}", { names: unknown.join(", ") })) : null;
    replace(this.preview, card(t("Preview"), [warning, h("div.table-box", {}, h("table.plain-rows.tight", {}, h("caption.offscreen", {}, t("Preview")), h("thead", {}, head), h("tbody", {}, lines))), more]));
  }

  run() {
    const selection = { all: null, rows: new Map(this.entries.map((entry) => [entry.uid, entry])) };
    const common = this.label.value.trim() ? { ProcedureStepLabel: this.label.value.trim() } : {};
    const createdUids = new Set();
    return runBatch(selection, {
      title: n(this.entries.length, "Create {n} workitem|Create {n} workitems"),
      verb: "{n} created|{n} created",
      action: async (entry) => {
        await post("workitems", { template: this.template.value, attributes: { ...entry.attributes, ...common }, inputs: entry.inputs, ...this.why.value() });
        createdUids.add(entry.uid);
      },
      after: () => this.show(this.entries.filter((entry) => !createdUids.has(entry.uid))),
    });
  }
}

function cellContent(definition, content) {
  if (content === undefined) return "";
  if (definition.kind === "datetime") return fromDicom(content).replace("T", " ") || h("span.problem", {}, t("no date"));
  if (Array.isArray(content)) return content.map((item) => item.CodeMeaning || item.CodeValue || item.HumanPerformerName).join("; ");
  return String(content);
}

// Orthanc's identifiers of the studies that were selected in Orthanc Explorer 2, or of all studies of a patient.
async function chosenStudies(query) {
  if (query.studies) return query.studies.split(",");
  if (!query.patient) return [];
  const answer = await fetch(new URL(`patients/${part(query.patient)}`, ORTHANC), { credentials: "same-origin" });
  if (!answer.ok) throw new Error(t("Orthanc has no such patient, or does not let you see them."));
  return (await answer.json()).Studies;
}

export async function manyView({ system, query }) {
  const { templates } = await get("templates");
  const view = new Many(system, templates);
  const studies = await chosenStudies(query);
  if (studies.length) {
    view.sourceCard.replaceWith(card(t("From studies"), h("p", {}, icon("copy"), ` ${n(studies.length, "{n} study was chosen in Orthanc Explorer.|{n} studies were chosen in Orthanc Explorer.")}`)));
    view.show(await Promise.all(studies.map(entryOfStudy)));
  }
  return { element: view.element, title: t("Create several workitems") };
}
