// SPDX-License-Identifier: AGPL-3.0-or-later
// What can be done with several workitems at once: one command after the other, each by its own rules.

import { downloadCsv, part, post, put, remove } from "../api.js";
import { h } from "../dom.js";
import { plural } from "../format.js";
import { dialog, failed, field, notice } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { reasonFields, whyField } from "../parts/reasons.js";
import { mayAct, mayAdminister, why as notAllowed } from "../rights.js";

const FINAL = new Set(["COMPLETED", "CANCELED"]);
const SHOWN = 5;

async function each(rows, action) {
  const problems = [];
  for (const row of rows) {
    try {
      await action(row);
    } catch (error) {
      problems.push([row, error]);
    }
  }
  return problems;
}

// What was done and what was refused, with the rule in words.
async function carryOut(rows, verb, action, done) {
  const problems = await each(rows, action);
  const good = rows.length - problems.length;
  if (good) notice(`${plural(good, "workitem")} ${verb}`);
  done();
  if (!problems.length) return;
  const lines = problems.slice(0, SHOWN).map(([row, error]) => h("li", {}, h("b", {}, row.label), ` – ${error.message}`));
  const more = problems.length > SHOWN ? h("p.faint", {}, `and ${problems.length - SHOWN} more`) : null;
  await dialog({
    title: `${plural(problems.length, "workitem")} could not be ${verb}`,
    content: [h("ul.plain", {}, lines), more],
    confirm: "Close",
  });
}

async function cancelAll(rows, system, done) {
  const reasons = reasonFields(system.reasons);
  const words = "Those that nobody claimed are canceled; the performers of the others are asked.";
  await dialog({
    title: `Request cancellation of ${plural(rows.length, "workitem")}?`,
    content: [h("p", {}, words), reasons.element],
    confirm: "Request cancellation",
    danger: true,
    action: () => {
      const told = reasons.value();
      carryOut(rows, "asked to be canceled", (row) => post(`workitems/${part(row.uid)}/request-cancel`, told), done);
    },
  });
}

async function purgeAll(rows, done) {
  const why = whyField("Who deleted them, when and why is remembered for a while.");
  const words = "Only completed and canceled workitems can be deleted, and only if no Deletion Lock holds them. This cannot be undone.";
  await dialog({
    title: `Delete ${plural(rows.length, "workitem")}?`,
    content: [h("p", {}, words), why.element],
    confirm: "Delete",
    danger: true,
    action: () => {
      const told = why.value();
      carryOut(rows, "deleted", (row) => remove(`workitems/${part(row.uid)}`, told), done);
    },
  });
}

async function prioritize(rows, done) {
  const choice = h("select", {}, ["HIGH", "MEDIUM", "LOW"].map((one) => h("option", { value: one }, one)));
  const why = whyField();
  await dialog({
    title: `Priority of ${plural(rows.length, "workitem")}`,
    content: [field("Scheduled Procedure Step Priority", choice), why.element],
    confirm: "Set",
    action: () => {
      const content = { attributes: { ScheduledProcedureStepPriority: choice.value }, ...why.value() };
      carryOut(rows, "changed", (row) => put(`workitems/${part(row.uid)}`, content), done);
    },
  });
}

async function exportAll(rows) {
  try {
    await downloadCsv({ SOPInstanceUID: rows.map((row) => row.uid).join("\\") }, "workitems.csv");
  } catch (error) {
    failed(error);
  }
}

export function selectionBar(rows, system, unselect, done) {
  const final = rows.every((row) => FINAL.has(row.state));
  const open = rows.some((row) => !FINAL.has(row.state));
  const scheduled = rows.every((row) => row.state === "SCHEDULED");
  const acting = mayAct(system);
  const deleting = mayAdminister(system);
  const why = (allowed, possible, words) => notAllowed(allowed) || (possible ? null : words);
  return [
    h("b", {}, `${plural(rows.length, "workitem")} selected`),
    h("button", { type: "button", disabled: !acting || !open, title: why(acting, open, "All are completed or canceled"), onclick: () => cancelAll(rows, system, done) }, icon("close"), "Request cancellation"),
    h("button", { type: "button", disabled: !acting || !scheduled, title: why(acting, scheduled, "Only scheduled workitems can be changed"), onclick: () => prioritize(rows, done) }, icon("edit"), "Priority"),
    h("button", { type: "button", disabled: !deleting || !final, title: why(deleting, final, "Only completed or canceled workitems can be deleted"), onclick: () => purgeAll(rows, done) }, icon("trash"), "Delete"),
    h("button", { type: "button", onclick: () => exportAll(rows) }, icon("download"), "CSV"),
    h("span.spring", {}),
    h("button.quiet", { type: "button", onclick: unselect }, "Clear selection"),
  ];
}
