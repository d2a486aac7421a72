// SPDX-License-Identifier: AGPL-3.0-or-later
// Bulk actions, which run one command per workitem.

import { downloadCsv, get, part, post, put, remove } from "../api.js";
import { h } from "../dom.js";
import { fromDicom, localValue, toDicom } from "../format.js";
import { n, t } from "../languages.js";
import { runBatch } from "../parts/batch.js";
import { codeEditor, listEditor, personEditor } from "../parts/codes.js";
import { dialog, failed, field, select } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { reasonFields, whyField } from "../parts/reasons.js";
import { priorityWords } from "../parts/words.js";
import { mayAct, mayAdminister } from "../rights.js";

const path = (row) => `workitems/${part(row.uid)}`;
const MINUTE = 60_000;

// Opens a dialog, then runs the batch; `prepare` returns the function that acts on one row.
async function carryOut(selection, { title, content, confirm, danger = false, prepare, verb, after }) {
  const prepared = await dialog({ title, content, confirm, danger, broad: true, action: () => ({ run: prepare() }) });
  if (prepared) await runBatch(selection, { title, verb, action: prepared.run, after });
}

function cancel(selection, system, after) {
  const reasons = reasonFields(system.reasons);
  const words = t("Unclaimed workitems are canceled; the performers of the others are asked to cancel.");
  return carryOut(selection, {
    title: n(selection.size, "Request cancellation of {n} workitem?|Request cancellation of {n} workitems?"),
    content: [h("p", {}, words), reasons.element],
    confirm: t("Request cancellation"),
    danger: true,
    prepare: () => {
      const why = reasons.value();
      return async (row) => {
        const outcome = await post(`${path(row)}/request-cancel`, why);
        return outcome.state === "CANCELED" ? "{n} canceled|{n} canceled" : "{n} asked to cancel|{n} asked to cancel";
      };
    },
    after,
  });
}

function purge(selection, after) {
  const why = whyField(t("A record of who deleted them, when and why is kept for a while."));
  const words = t("Only completed and canceled workitems can be deleted, and only if no Deletion Lock holds them. This cannot be undone.");
  return carryOut(selection, {
    title: n(selection.size, "Delete {n} workitem?|Delete {n} workitems?"),
    content: [h("p.caution", {}, words), why.element],
    confirm: t("Delete"),
    danger: true,
    verb: "{n} deleted|{n} deleted",
    prepare: () => {
      const reason = why.value();
      return (row) => remove(path(row), reason).then(() => "");
    },
    after,
  });
}

function prioritize(selection, after) {
  const choice = select(["HIGH", "MEDIUM", "LOW"].map((priority) => [priority, priorityWords(priority)]), "HIGH");
  const why = whyField();
  return carryOut(selection, {
    title: n(selection.size, "Priority of {n} workitem|Priority of {n} workitems"),
    content: [field(t("Priority"), choice), why.element],
    confirm: t("Set priority"),
    verb: "{n} changed|{n} changed",
    prepare: () => {
      const content = { attributes: { ScheduledProcedureStepPriority: choice.value }, ...why.value() };
      return (row) => put(path(row), content).then(() => "");
    },
    after,
  });
}

function reassign(selection, after) {
  const stations = listEditor([], codeEditor, t("Station"));
  const people = listEditor([], personEditor, t("Performer"));
  const withStations = h("input", { type: "checkbox" });
  const withPeople = h("input", { type: "checkbox" });
  const why = whyField();
  return carryOut(selection, {
    title: n(selection.size, "Reassign {n} workitem|Reassign {n} workitems"),
    content: [
      h("p", {}, t("Only scheduled workitems can be reassigned. An empty list removes the assignment.")),
      h("fieldset", {}, h("legend", {}, h("label.check", {}, withStations, t("Change the stations"))), stations.element),
      h("fieldset", {}, h("legend", {}, h("label.check", {}, withPeople, t("Change the performers"))), people.element),
      why.element,
    ],
    confirm: t("Reassign"),
    verb: "{n} reassigned|{n} reassigned",
    prepare: () => {
      const attributes = {};
      if (withStations.checked || stations.value().length) attributes.ScheduledStationNameCodeSequence = stations.value();
      if (withPeople.checked || people.value().length) attributes.ScheduledHumanPerformersSequence = people.value();
      if (!Object.keys(attributes).length) throw new Error(t("Choose what to change."));
      const content = { attributes, ...why.value() };
      return (row) => put(path(row), content).then(() => "");
    },
    after,
  });
}

function reschedule(selection, after) {
  const mode = select([["to", t("to the same start time")], ["by", t("by a number of minutes")]], "to");
  const start = h("input", { type: "datetime-local", value: localValue(new Date()) });
  const minutes = h("input", { type: "number", value: 60, step: 5 });
  const to = field(t("Start"), start);
  const by = field(t("Minutes (negative for earlier)"), minutes);
  by.hidden = true;
  mode.addEventListener("change", () => {
    to.hidden = mode.value !== "to";
    by.hidden = mode.value !== "by";
  });
  const why = whyField();
  return carryOut(selection, {
    title: n(selection.size, "Reschedule {n} workitem|Reschedule {n} workitems"),
    content: [h("p", {}, t("Only scheduled workitems can be rescheduled.")), field(t("Move"), mode), to, by, why.element],
    confirm: t("Reschedule"),
    verb: "{n} rescheduled|{n} rescheduled",
    prepare: () => {
      const fixed = toDicom(start.value);
      const shift = minutes.valueAsNumber * MINUTE;
      if (mode.value === "to" ? !fixed : Number.isNaN(shift)) throw new Error(t("Enter a start or a number of minutes."));
      return async (row) => {
        const moved = mode.value === "to" ? fixed : shifted((await get(path(row))).form.ScheduledProcedureStepStartDateTime, shift);
        await put(path(row), { attributes: { ScheduledProcedureStepStartDateTime: moved }, ...why.value() });
        return "";
      };
    },
    after,
  });
}

const shifted = (start, by) => toDicom(localValue(new Date(new Date(fromDicom(start)).getTime() + by), { seconds: true }));

async function exportAll(selection) {
  const query = selection.all ? selection.all.query : { SOPInstanceUID: [...selection.rows.keys()].join("\\") };
  try {
    await downloadCsv(query, "workitems.csv");
  } catch (error) {
    failed(error);
  }
}

/* The bar with the actions on a selection. `page`: {rows, query, total} of the current page. */
export function selectionBar(selection, system, page, after) {
  const offersAll = page.total > page.rows.length && !selection.all && page.rows.every((row) => selection.has(row.uid));
  const button = (sign, words, action) => h("button", { type: "button", onclick: action }, icon(sign), words);
  const acting = mayAct(system) && [
    button("close", t("Request cancellation"), () => cancel(selection, system, after)),
    button("edit", t("Priority"), () => prioritize(selection, after)),
    button("bell", t("Reassign"), () => reassign(selection, after)),
    button("clock", t("Reschedule"), () => reschedule(selection, after)),
  ];
  return [
    h("b", { role: "status" }, selection.all ? n(selection.size, "The {n} matching workitem is selected|All {n} matching workitems are selected") : n(selection.size, "{n} workitem selected|{n} workitems selected")),
    offersAll && h("button.quiet", { type: "button", onclick: () => selection.setAll(page.query, page.total) }, n(page.total, "Select the {n} matching workitem|Select all {n} matching workitems")),
    acting,
    mayAdminister(system) && button("trash", t("Delete"), () => purge(selection, after)),
    button("download", t("CSV"), () => exportAll(selection)),
    h("span.spring", {}),
    h("button.quiet", { type: "button", onclick: () => selection.clear() }, t("Clear selection")),
  ];
}
