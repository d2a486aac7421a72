// SPDX-License-Identifier: AGPL-3.0-or-later
// All subscribers, with their subscriptions and the state of delivery.

import { get } from "../api.js";
import { debounced, h, replace } from "../dom.js";
import { latency } from "../format.js";
import { count, n, t, sentenceWords } from "../languages.js";
import { sparkline } from "../parts/charts.js";
import { failed } from "../parts/dialog.js";
import { filterWords } from "../parts/history.js";
import { icon } from "../parts/icons.js";
import { channelWords, empty, healthBadge, time } from "../parts/words.js";
import { mayAct } from "../rights.js";
import { link } from "../router.js";
import { newSubscription } from "./subscribing.js";

const PAUSE = 5000;
const BAD = ["refusing", "unreachable", "trouble"];
const WORST = ["refusing", "unreachable", "trouble", "good", "idle"];

// What an AE is subscribed to, one line each.
export function subscriptionLines(subscriber) {
  const lock = (locked) => (locked ? h("span.tagged", {}, icon("lock"), t("lock")) : null);
  const lines = [];
  if (subscriber.everything) lines.push(h("li", {}, t("Everything"), lock(subscriber.everything.lock)));
  for (const filter of subscriber.filters) lines.push(h("li", { title: filterWords(filter.words) }, filterWords(filter.words), lock(filter.lock)));
  if (subscriber.specific) {
    const locks = subscriber.locks ? h("span.tagged", {}, icon("lock"), n(subscriber.locks, "{n} lock|{n} locks")) : null;
    lines.push(h("li", {}, n(subscriber.specific, "{n} workitem|{n} workitems"), locks));
  }
  for (const paused of subscriber.suspended) {
    const words = paused.scope === "global" ? t("Everything") : filterWords(paused.words);
    lines.push(h("li.faint", {}, icon("pause"), ` ${t("Suspended: {what}", { what: words })}`));
  }
  return h("ul.plain", {}, lines.length ? lines : h("li.faint", {}, t("Not subscribed")));
}

export function sum(channels, name) {
  return channels.reduce((total, channel) => total + channel[name], 0);
}

const earliest = (channels) => channels.map((channel) => channel.oldest).filter(Boolean).sort()[0];
const latest = (channels) => channels.map((channel) => channel.last_success).filter(Boolean).sort().pop();
const perMinute = (channels) => (channels[0] ? channels[0].per_minute.map((_, at) => channels.reduce((total, channel) => total + channel.per_minute[at], 0)) : []);

function worst(channels) {
  const health = channels.map((channel) => channel.health);
  return WORST.find((word) => health.includes(word)) || "idle";
}

function row(subscriber) {
  const channels = subscriber.channels;
  const troubled = channels.find((channel) => BAD.includes(channel.health));
  const dead = sum(channels, "dead_letters");
  return h(
    "tr",
    { dataset: { ae: subscriber.ae } },
    h("th", { scope: "row" }, h("a", { href: link("subscriber", [subscriber.ae]) }, subscriber.ae), h("div.faint.small", {}, channels.map((channel) => channelWords(channel)).join(", "))),
    h("td.wraps", {}, subscriptionLines(subscriber)),
    h("td.wraps", {}, healthBadge(worst(channels)), troubled && h("div.why", { title: sentenceWords(troubled.sentence) }, sentenceWords(troubled.sentence))),
    h("td.number", {}, count(sum(channels, "pending")), dead ? h("div", {}, h("span.flag", {}, n(dead, "{n} dead letter|{n} dead letters"))) : null),
    h("td", {}, time(earliest(channels), { relative: true })),
    h("td", {}, time(latest(channels), { relative: true, none: t("never") })),
    h("td.number", {}, latency(channels[0] ? channels[0].latency.median : null)),
    h("td.extra", {}, sparkline(perMinute(channels), t("Deliveries per minute, last 60 minutes"))),
  );
}

const HEADINGS = [t("AE title"), t("Subscribed to"), t("Health"), t("Pending"), t("Oldest"), t("Last success"), t("Latency"), t("Last hour")];

class SubscribersPage {
  constructor(system) {
    this.system = system;
    this.holder = h("div.table-box", {});
    const add = mayAct(system) && h("button.primary", { type: "button", onclick: () => newSubscription(system, null).then((answer) => answer && this.load()) }, icon("plus"), t("New subscription"));
    this.element = h("div.page.subscribers", {}, h("header.head", {}, h("h1", {}, t("Subscribers")), h("div.actions", {}, add)), this.holder);
    this.reload = debounced(700, () => this.load().catch(() => {}));
    this.timer = setInterval(() => document.hidden || this.load().catch(() => {}), PAUSE);
  }

  async load() {
    const { subscribers } = await get("subscribers");
    if (!subscribers.length) {
      return replace(this.holder, empty(t("There are no subscribers yet. Subscribers are notified of every change by DIMSE, WebSocket or webhook.")));
    }
    const head = h("thead", {}, h("tr", {}, HEADINGS.map((words, at) => h("th", { scope: "col", class: at === HEADINGS.length - 1 ? "extra" : "" }, words))));
    return replace(this.holder, h("table.plain-rows", {}, h("caption.offscreen", {}, t("Subscribers")), head, h("tbody", {}, subscribers.map(row))));
  }
}

export async function subscribersView({ system }) {
  const page = new SubscribersPage(system);
  try {
    await page.load();
  } catch (error) {
    failed(error);
  }
  return { element: page.element, title: t("Subscribers"), changed: page.reload, left: () => clearInterval(page.timer) };
}
