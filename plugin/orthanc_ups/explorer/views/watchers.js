// SPDX-License-Identifier: AGPL-3.0-or-later
// The subscribers of a workitem and their Deletion Locks.

import { part, put, remove } from "../api.js";
import { h, newId } from "../dom.js";
import { t } from "../languages.js";
import { dialog, field, notice } from "../parts/dialog.js";
import { filterWords } from "../parts/history.js";
import { icon } from "../parts/icons.js";
import { whyField } from "../parts/reasons.js";
import { remark } from "../parts/refusals.js";
import { card, empty } from "../parts/words.js";
import { mayAct, mayActFor, mayAdminister } from "../rights.js";
import { link } from "../router.js";

const path = (item, ae) => `workitems/${part(item.uid)}/subscribers/${part(ae)}`;

async function release(item, ae, done) {
  const words = t("{ae} asked to keep this workitem until it has retrieved the final state. Without the lock, the workitem may be deleted as soon as it is completed or canceled. {ae} stays subscribed.", { ae });
  const why = whyField();
  const result = await dialog({
    title: t("Release the Deletion Lock of {ae}?", { ae }),
    content: [h("p", {}, words), why.element],
    confirm: t("Release the lock"),
    danger: true,
    action: () => remove(`${path(item, ae)}/lock`, why.value()),
  });
  if (result) notice(t("The Deletion Lock of {ae} has been released", { ae }));
  if (result) done();
}

async function unsubscribe(item, ae, done) {
  const why = whyField();
  const result = await dialog({
    title: t("Unsubscribe {ae} from this workitem?", { ae }),
    content: [h("p", {}, t("{ae} will no longer be notified of this workitem. Its other subscriptions remain.", { ae })), why.element],
    confirm: t("Unsubscribe"),
    danger: true,
    action: () => remove(path(item, ae), why.value()),
  });
  if (result) done();
}

export function aeInput(system) {
  const id = newId("aes");
  const input = h("input", { type: "text", list: id, maxlength: 16, autofocus: true, spellcheck: "false", autocomplete: "off" });
  return { input, list: h("datalist", { id }, system.aes.filter((ae) => mayActFor(system, ae)).map((ae) => h("option", { value: ae }))) };
}

async function subscribe(item, system, done) {
  const { input, list } = aeInput(system);
  const lock = h("input", { type: "checkbox" });
  const why = whyField();
  const result = await dialog({
    title: t("Subscribe an AE to this workitem"),
    content: [
      field(t("AE title"), input, { help: t("The AE must be listed in DicomModalities or use UPS-RS.") }),
      list,
      h("label.check", {}, lock, t("With Deletion Lock: the workitem is kept until the AE releases it")),
      why.element,
    ],
    confirm: t("Subscribe"),
    action: () => put(path(item, input.value.trim()), { lock: lock.checked, ...why.value() }),
  });
  if (result) notice(remark(result) || t("Subscribed; a State Report is on its way"));
  if (result) done();
}

function reason(subscriber) {
  if (subscriber.specific) return t("this workitem");
  return subscriber.filter ? t("by its filter: {filter}", { filter: filterWords(subscriber.filter) }) : t("by a global subscription");
}

export function subscribersCard(item, system, done) {
  const lines = item.subscribers.map((subscriber) =>
    h(
      "li",
      {},
      h("div", {}, h("a", { href: link("subscriber", [subscriber.ae]) }, subscriber.ae), h("span.faint", {}, ` ${reason(subscriber)}`)),
      subscriber.lock && !mayAdminister(system) && h("span.tagged", {}, icon("lock"), t("Lock")),
      subscriber.lock && mayAdminister(system) && h("button.small.lock", { type: "button", title: t("Release the Deletion Lock"), onclick: () => release(item, subscriber.ae, done) }, icon("lock"), t("Lock")),
      mayActFor(system, subscriber.ae) && h("button.quiet.small", { type: "button", "aria-label": t("Unsubscribe {ae}", { ae: subscriber.ae }), title: t("Unsubscribe"), onclick: () => unsubscribe(item, subscriber.ae, done) }, icon("close")),
    ),
  );
  const add = mayAct(system) && h("button.quiet.small", { type: "button", onclick: () => subscribe(item, system, done) }, icon("plus"), t("Subscribe"));
  const content = lines.length ? h("ul.watchers", {}, lines) : empty(t("Nobody is subscribed to this workitem."));
  return card(t("Subscribers"), content, { tools: add });
}
