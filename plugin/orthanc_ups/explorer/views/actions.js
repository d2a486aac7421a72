// SPDX-License-Identifier: AGPL-3.0-or-later
// The actions on one workitem, each with a confirmation, some with a reason or a form.

import { part, post, put, remove } from "../api.js";
import { h } from "../dom.js";
import { fromDicom, toDicom } from "../format.js";
import { n, t } from "../languages.js";
import { codeEditor } from "../parts/codes.js";
import { dialog, field, notice } from "../parts/dialog.js";
import { dated } from "../parts/fields.js";
import { icon } from "../parts/icons.js";
import { mayAct } from "../rights.js";
import { go, link } from "../router.js";
import { reasonFields, whyField } from "../parts/reasons.js";
import { remark } from "../parts/refusals.js";
import { aeInput } from "./watchers.js";

const path = (item, action) => `workitems/${part(item.uid)}/${action}`;

async function claim(item, system) {
  const words = t("The workitem changes to In progress, and its subscribers are notified. Claim on behalf only if you know that a performer is doing the work without reporting it: other performers looking for work will no longer find it. You can complete or cancel it here later.");
  const { input, list } = aeInput(system);
  const why = whyField();
  return dialog({
    title: t("Claim on behalf of a performer?"),
    content: [
      h("p", {}, words),
      field(t("Performer (AE title)"), input, { help: t("The AE that does the work. Leave empty for the worklist itself, {ae}.", { ae: system.ae }) }),
      list,
      why.element,
    ],
    confirm: t("Claim"),
    action: () => post(path(item, "claim"), { ...(input.value.trim() ? { performer: input.value.trim() } : {}), ...why.value() }),
  });
}

async function requestCancel(item, system) {
  const reasons = reasonFields(system.reasons);
  const name = h("input", { type: "text", maxlength: 64 });
  const uri = h("input", { type: "text", placeholder: "tel:… or mailto:…" });
  const claimed = item.state === "IN PROGRESS";
  const words = claimed
    ? t("The performer is asked to stop, but may decline. If it cancels, a State Report is sent.")
    : t("Nobody has claimed this workitem, so it will be canceled immediately.");
  const contact = claimed && h("div.pair", {}, field(t("Your name (optional)"), name), field(t("How to reach you (optional)"), uri));
  return dialog({
    title: claimed ? t("Ask the performer to cancel?") : t("Cancel this workitem?"),
    content: [h("p", {}, words), reasons.element, contact],
    confirm: claimed ? t("Request cancellation") : t("Cancel the workitem"),
    danger: true,
    action: () => post(path(item, "request-cancel"), { ...reasons.value(), contact_name: name.value, contact_uri: uri.value }),
  });
}

async function cancelOnBehalf(item, system) {
  const reasons = reasonFields(system.reasons);
  const words = t("Do this only if you know that the performer is gone or has stopped: it will not be asked. The workitem is closed permanently.");
  return dialog({
    title: t("Cancel on behalf of the performer?"),
    content: [h("p.caution", {}, words), reasons.element],
    confirm: t("Cancel on behalf"),
    danger: true,
    action: () => post(path(item, "cancel"), reasons.value()),
  });
}

// The final-state form: what PS3.4 requires of a completed step.
async function completeOnBehalf(item) {
  const proposal = item.closing;
  const start = dated("datetime-local", proposal.PerformedProcedureStepStartDateTime, fromDicom, toDicom);
  const end = dated("datetime-local", proposal.PerformedProcedureStepEndDateTime, fromDicom, toDicom);
  const what = h("input", { type: "text", maxlength: 64, value: proposal.PerformedProcedureStepDescription || "" });
  const code = codeEditor(proposal.PerformedWorkitemCodeSequence[0]);
  const station = codeEditor(proposal.PerformedStationNameCodeSequence[0]);
  const outputs = (proposal.OutputInformationSequence || []).length;
  const why = whyField();
  const words = t("Do this only if you know that the work is done. The worklist needs these details to close the workitem.");
  const performed = () => ({
    ...proposal,
    PerformedProcedureStepStartDateTime: start.value(),
    PerformedProcedureStepEndDateTime: end.value(),
    PerformedProcedureStepDescription: what.value.trim(),
    PerformedWorkitemCodeSequence: code.value(),
    PerformedStationNameCodeSequence: station.value(),
  });
  return dialog({
    title: t("Complete on behalf of the performer"),
    broad: true,
    content: [
      h("p.caution", {}, words),
      h("div.pair", {}, field(t("Started"), start.element, { required: true }), field(t("Ended"), end.element, { required: true })),
      field(t("What was done"), what),
      h("fieldset", {}, h("legend", {}, t("Performed workitem code")), code.element),
      h("fieldset", {}, h("legend", {}, t("Performed station")), station.element),
      h("p.faint", {}, outputs ? n(outputs, "{n} output was reported by the performer.|{n} outputs were reported by the performer.") : t("No outputs were reported.")),
      why.element,
    ],
    confirm: t("Complete on behalf"),
    action: () => post(path(item, "complete"), { performed: performed(), ...why.value() }),
  });
}

async function purge(item) {
  const words = t("The workitem and its history are permanently deleted. A workitem with a Deletion Lock cannot be deleted.");
  const why = whyField(t("A record of who deleted it, when and why is kept for a while."));
  const result = await dialog({
    title: t("Delete this workitem?"),
    content: [h("p", {}, words), why.element],
    confirm: t("Delete"),
    danger: true,
    action: () => remove(`workitems/${part(item.uid)}`, why.value()),
  });
  if (result) go("worklist");
  return undefined;
}

async function reschedule(item) {
  const start = dated("datetime-local", item.form.ScheduledProcedureStepStartDateTime, fromDicom, toDicom);
  const why = whyField();
  return dialog({
    title: t("Reschedule"),
    content: [field(t("Start"), start.element, { required: true }), why.element],
    confirm: t("Reschedule"),
    action: () => put(`workitems/${part(item.uid)}`, { attributes: { ScheduledProcedureStepStartDateTime: start.value() }, ...why.value() }),
  });
}

const ACTIONS = {
  edit: { words: t("Edit"), icon: "edit" },
  reschedule: { words: t("Reschedule"), icon: "clock", run: reschedule, done: t("Rescheduled") },
  claim: { words: t("Claim"), icon: "play", run: claim, done: t("Claimed") },
  complete: { words: t("Complete"), icon: "check", run: completeOnBehalf, done: t("Completed"), main: true },
  cancel: { words: t("Cancel on behalf"), icon: "close", run: cancelOnBehalf, done: t("Canceled") },
  "request-cancel": { words: t("Request cancellation"), icon: "send", run: requestCancel, done: t("Cancellation requested") },
  purge: { words: t("Delete"), icon: "trash", run: purge },
};

const FINAL = ["COMPLETED", "CANCELED"];

// Links that create another workitem: a copy, or a repeat that replaces this one.
function copyButtons(item, system) {
  if (!mayAct(system)) return null;
  const repeat = FINAL.includes(item.state) && h("a.button", { href: link("new", [], { repeat: item.uid }), title: t("A new workitem that replaces this one") }, icon("refresh"), t("Repeat"));
  return [repeat, h("a.button", { href: link("new", [], { copy: item.uid }), title: t("A new workitem with the same content") }, icon("copy"), t("Duplicate"))];
}

export function actionButtons(item, system, done) {
  const names = item.actions.flatMap((name) => (name === "edit" ? ["edit", "reschedule"] : [name]));
  return [names.map((name) => {
    const action = ACTIONS[name];
    if (name === "edit") {
      return h("a.button", { href: link("workitem", [item.uid, "edit"]), title: t("Edit (e)") }, icon(action.icon), action.words);
    }
    const run = async () => {
      const result = await action.run(item, system);
      if (result === undefined) return;
      notice(remark(result) || action.done);
      done();
    };
    return h("button", { type: "button", class: action.main ? "primary" : "", onclick: run }, icon(action.icon), action.words);
  }), copyButtons(item, system)];
}
