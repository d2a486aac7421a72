// SPDX-License-Identifier: AGPL-3.0-or-later
// The event reports of a workitem and their delivery to each receiver.

import { h } from "../dom.js";
import { t, translated, tx } from "../languages.js";
import { eventWords } from "../parts/history.js";
import { card, deliveryBadge, empty, time } from "../parts/words.js";
import { link } from "../router.js";

const named = (receiver) => h("a", { href: link("subscriber", [receiver.ae]) }, receiver.ae);

// The receivers that have the event in one line, and each of the others in a line of its own with the reason.
function receivers(event) {
  const delivered = event.receivers.filter((receiver) => receiver.state === "delivered");
  const undelivered = event.receivers.filter((receiver) => receiver.state !== "delivered");
  const names = delivered.flatMap((receiver, at) => (at ? [", ", named(receiver)] : [named(receiver)]));
  return h("ul.receivers", {}, delivered.length ? h("li", {}, deliveryBadge("delivered"), h("span", {}, tx("to {names}", { names }))) : null, undelivered.map(undeliveredLine));
}

function undeliveredLine(receiver) {
  const retry = receiver.retry ? tx(" · next attempt {when}", { when: time(receiver.retry, { relative: true }) }) : null;
  return h("li", {}, deliveryBadge(receiver.state), h("span", {}, tx("for {ae}", { ae: named(receiver) })), h("span.why", {}, receiver.why, retry));
}

function line(event) {
  return h(
    "li",
    {},
    h("div.what", {}, h("b", {}, translated(event.name)), event.summary && h("span", {}, eventWords(event.summary)), h("span.spring", {}), h("span.stamp", {}, h("span.faint.number", { title: t("Sequence number") }, `#${event.sequence}`), time(event.at, { seconds: true }))),
    receivers(event),
  );
}

export function eventsCard(events) {
  if (!events.length) {
    return card(t("Events and deliveries"), empty(t("No events: nobody is subscribed to this workitem, or its events are no longer stored.")));
  }
  return card(t("Events and deliveries"), h("ol.events", {}, events.map(line)));
}
