// SPDX-License-Identifier: AGPL-3.0-or-later
// What an operator may do with one workitem: each with a confirmation, some with a reason or a form.

import { part, post, remove } from "../api.js";
import { h } from "../dom.js";
import { fromDicom, toDicom } from "../format.js";
import { codeEditor } from "../parts/codes.js";
import { dialog, field, notice } from "../parts/dialog.js";
import { dated } from "../parts/fields.js";
import { icon } from "../parts/icons.js";
import { go, link } from "../router.js";
import { reasonFields, whyField } from "../parts/reasons.js";

const path = (item, action) => `workitems/${part(item.uid)}/${action}`;

async function claim(item) {
  const words = "It goes in progress, and its subscribers are told. Claim on behalf only when you know that a performer does the work without telling the worklist: performers that ask for work will no longer find it. You can complete or cancel it here later.";
  const why = whyField();
  return dialog({
    title: "Claim on behalf of a performer?",
    content: [h("p", {}, words), why.element],
    confirm: "Claim",
    action: () => post(path(item, "claim"), why.value()),
  });
}

async function requestCancel(item, system) {
  const reasons = reasonFields(system.reasons);
  const name = h("input", { type: "text", maxlength: 64 });
  const uri = h("input", { type: "text", placeholder: "tel:… or mailto:…" });
  const claimed = item.state === "IN PROGRESS";
  const words = claimed
    ? "The performer is asked to stop; whether it does is its decision, and a State Report will tell."
    : "Nobody has claimed this workitem, so it is canceled at once.";
  const contact = claimed && h("div.pair", {}, field("Your name (optional)", name), field("How to reach you (optional)", uri));
  return dialog({
    title: claimed ? "Ask the performer to cancel?" : "Cancel this workitem?",
    content: [h("p", {}, words), reasons.element, contact],
    confirm: claimed ? "Ask to cancel" : "Cancel the workitem",
    danger: true,
    action: () => post(path(item, "request-cancel"), { ...reasons.value(), contact_name: name.value, contact_uri: uri.value }),
  });
}

async function cancelOnBehalf(item, system) {
  const reasons = reasonFields(system.reasons);
  const words = "Do this only when you know that its performer is gone or has stopped: it is not asked. The workitem is closed for good.";
  return dialog({
    title: "Cancel on behalf of the performer?",
    content: [h("p.caution", {}, words), reasons.element],
    confirm: "Cancel on behalf",
    danger: true,
    action: () => post(path(item, "cancel"), reasons.value()),
  });
}

// The final-state form: what PS3.4 wants to know of a completed step.
async function completeOnBehalf(item) {
  const known = item.closing;
  const start = dated("datetime-local", known.PerformedProcedureStepStartDateTime, fromDicom, toDicom);
  const end = dated("datetime-local", known.PerformedProcedureStepEndDateTime, fromDicom, toDicom);
  const what = h("input", { type: "text", maxlength: 64, value: known.PerformedProcedureStepDescription || "" });
  const code = codeEditor(known.PerformedWorkitemCodeSequence[0]);
  const station = codeEditor(known.PerformedStationNameCodeSequence[0]);
  const outputs = (known.OutputInformationSequence || []).length;
  const why = whyField();
  const words = "Do this only when you know that the work is done. The form says what was performed; the worklist needs all of it.";
  const performed = () => ({
    ...known,
    PerformedProcedureStepStartDateTime: start.value(),
    PerformedProcedureStepEndDateTime: end.value(),
    PerformedProcedureStepDescription: what.value.trim(),
    PerformedWorkitemCodeSequence: code.value(),
    PerformedStationNameCodeSequence: station.value(),
  });
  return dialog({
    title: "Complete on behalf of the performer",
    wide: true,
    content: [
      h("p.caution", {}, words),
      h("div.pair", {}, field("Started", start.element, { required: true }), field("Ended", end.element, { required: true })),
      field("What was done", what),
      h("fieldset", {}, h("legend", {}, "Performed workitem code"), code.element),
      h("fieldset", {}, h("legend", {}, "Performed station"), station.element),
      h("p.faint", {}, outputs ? `${outputs} outputs were reported by the performer.` : "No outputs were reported."),
      why.element,
    ],
    confirm: "Complete on behalf",
    action: () => post(path(item, "complete"), { performed: performed(), ...why.value() }),
  });
}

async function purge(item) {
  const words = "The workitem and its history are deleted; it can not be retrieved any more. A workitem that is held by a Deletion Lock is not deleted.";
  const why = whyField("Who deleted it, when and why is remembered for a while.");
  const made = await dialog({
    title: "Delete this workitem?",
    content: [h("p", {}, words), why.element],
    confirm: "Delete",
    danger: true,
    action: () => remove(`workitems/${part(item.uid)}`, why.value()),
  });
  if (made) go("worklist");
  return undefined;
}

const ACTIONS = {
  edit: { words: "Edit", icon: "edit" },
  claim: { words: "Claim", icon: "play", run: claim, done: "Claimed" },
  complete: { words: "Complete", icon: "check", run: completeOnBehalf, done: "Completed", main: true },
  cancel: { words: "Cancel on behalf", icon: "close", run: cancelOnBehalf, done: "Canceled" },
  "request-cancel": { words: "Request cancellation", icon: "send", run: requestCancel, done: "The request is on its way" },
  purge: { words: "Delete", icon: "trash", run: purge },
};

export function actionButtons(item, system, done) {
  return item.actions.map((name) => {
    const action = ACTIONS[name];
    if (name === "edit") {
      return h("a.button", { href: link("workitem", [item.uid, "edit"]), title: "Edit (e)" }, icon(action.icon), action.words);
    }
    const run = async () => {
      const made = await action.run(item, system);
      if (made === undefined) return;
      notice(made.warning || action.done);
      done();
    };
    return h("button", { type: "button", class: action.main ? "primary" : "", onclick: run }, icon(action.icon), action.words);
  });
}
