// SPDX-License-Identifier: AGPL-3.0-or-later
// One subscriber: its subscriptions, channels and dead letters, and the actions on them.

import { get, part, post } from "../api.js";
import { debounced, h, replace } from "../dom.js";
import { latency } from "../format.js";
import { count, n, t, sentenceWords, tx } from "../languages.js";
import { sparkline } from "../parts/charts.js";
import { dialog, failed, field, notice } from "../parts/dialog.js";
import { filterWords } from "../parts/history.js";
import { icon } from "../parts/icons.js";
import { whyField } from "../parts/reasons.js";
import { card, channelWords, empty, facts, healthBadge, stateWords, time } from "../parts/words.js";
import { mayActFor, why } from "../rights.js";
import { link } from "../router.js";
import { letterCard } from "./letters.js";
import { sum } from "./subscribers.js";
import { newSubscription } from "./subscribing.js";

const PAUSE = 4000;
const PAGE_SIZE = 50;

class SubscriberPage {
  constructor(ae, system) {
    this.ae = ae;
    this.system = system;
    this.allowed = mayActFor(system, ae);
    this.offset = 0;
    this.element = h("div.page.subscriber");
    this.refresh = () => this.load().catch(failed);
    this.reload = debounced(700, () => this.load().catch(() => {}));
    this.timer = setInterval(() => document.hidden || document.querySelector("dialog[open]") || this.load().catch(() => {}), PAUSE);
  }

  path(action) {
    return `subscribers/${part(this.ae)}/${action}`;
  }

  async load() {
    const subscriber = await get(`subscribers/${part(this.ae)}`, { limit: "1" });
    const page = { offset: String(this.offset), limit: String(PAGE_SIZE) };
    this.single = subscriber.specific ? await get(this.path("workitems"), page) : { total: 0, workitems: [] };
    const dead = sum(subscriber.channels, "dead_letters");
    const letters = dead ? await get(this.path("dead-letters"), { limit: "50" }) : { total: 0, letters: [] };
    this.show(subscriber, letters);
  }

  show(subscriber, letters) {
    const pending = sum(subscriber.channels, "pending");
    const head = h(
      "header.head",
      {},
      h("div", {}, h("a.back", { href: "#/subscribers" }, icon("back"), t("Subscribers")), h("h1", {}, this.ae)),
      h("div.actions", {}, this.actions(pending, subscriber)),
    );
    const channels = subscriber.channels.length ? subscriber.channels.map((channel) => this.channelCard(channel)) : card(t("Delivery"), empty(t("There have been no events for this AE.")));
    replace(
      this.element,
      head,
      h("div.columns", {}, h("div.main", {}, channels, letters.total ? letterCard(this.ae, letters, this.system, this.refresh) : null), h("div.side", {}, this.subscriptions(subscriber))),
    );
  }

  // --- actions ---

  actions(pending, subscriber) {
    if (!this.allowed) return h("p.faint", {}, why(false));
    return [
      subscriber.known && h("button", { type: "button", onclick: () => this.echo() }, icon("refresh"), t("C-ECHO")),
      h("button", { type: "button", onclick: () => this.testEvent() }, icon("bell"), t("Test event")),
      h("button", { type: "button", disabled: !pending, onclick: () => this.retry() }, icon("play"), t("Retry now")),
      h("button", { type: "button", onclick: () => this.resend() }, icon("send"), t("Resend …")),
      h("button", { type: "button", disabled: !pending, onclick: () => this.drop(pending) }, icon("trash"), t("Drop pending …")),
    ];
  }

  async echo() {
    try {
      const { seconds } = await post(this.path("echo"));
      notice(t("{ae} answered the C-ECHO in {time}", { ae: this.ae, time: latency(seconds) }));
    } catch (error) {
      failed(error);
    }
  }

  async testEvent() {
    const words = t("Sends an SCP Status Change event that reports a restart in which no workitems or subscriptions were lost. It concerns no workitem; the subscriber may query the worklist again.");
    const answer = await dialog({ title: t("Send a test event to {ae}?", { ae: this.ae }), content: h("p", {}, words), confirm: t("Send"), action: () => post(this.path("test-event")) });
    if (answer) notice(n(answer.channels, "Test event queued on {n} channel. Watch “Last success” below.|Test event queued on {n} channels. Watch “Last success” below."));
  }

  async retry() {
    try {
      await post(this.path("retry"));
      notice(t("Retrying now"));
      this.refresh();
    } catch (error) {
      failed(error);
    }
  }

  async resend() {
    const first = h("input", { type: "number", min: 1, autofocus: true });
    const last = h("input", { type: "number", min: 1 });
    const answer = await dialog({
      title: t("Send events to {ae} again", { ae: this.ae }),
      content: [
        h("p", {}, t("Each event has a number, shown on the page of its workitem. The events in this range that are still stored are sent again, in order.")),
        h("div.pair", {}, field(t("First number"), first), field(t("Last number"), last)),
      ],
      confirm: t("Send again"),
      action: () => post(this.path("resend"), { first: first.valueAsNumber || 0, last: last.valueAsNumber || 0 }),
    });
    if (answer) notice(t("The events are on their way"));
  }

  async drop(pending) {
    const answer = await dialog({
      title: n(pending, "Drop {n} pending event for {ae}?|Drop {n} pending events for {ae}?", { ae: this.ae }),
      content: h("p.caution", {}, t("{ae} will never receive them. This cannot be undone.", { ae: this.ae })),
      confirm: t("Drop them"),
      danger: true,
      action: () => post(this.path("drop")),
    });
    if (answer) notice(n(answer.dropped, "{n} event dropped|{n} events dropped"));
    if (answer) this.refresh();
  }

  // --- parts ---

  channelCard(channel) {
    const error = channel.last_error ? [channel.last_error, " ", h("span.faint", {}, time(channel.last_error_at, { relative: true }))] : null;
    return card(t("Delivery by {channel}", { channel: channelWords(channel) }), [
      h("p.verdict", {}, healthBadge(channel.health), h("span", {}, sentenceWords(channel.sentence))),
      h(
        "div.two",
        {},
        facts([
          [t("Pending"), count(channel.pending)],
          [t("Oldest"), channel.oldest && time(channel.oldest, { relative: true })],
          [t("Next attempt"), channel.retry && time(channel.retry, { relative: true })],
          [t("Last success"), time(channel.last_success, { relative: true, none: t("never") })],
          [t("Last error"), error],
        ]),
        facts([
          [t("Delivered"), count(channel.delivered)],
          [t("Failed attempts"), count(channel.failed)],
          [t("Dead letters"), count(channel.dead_letters)],
          [t("Latency"), `${latency(channel.latency.median)} (95 %: ${latency(channel.latency.p95)})`],
          [t("Last hour"), sparkline(channel.per_minute, t("Deliveries per minute, last 60 minutes"), { wide: true })],
        ]),
      ),
    ]);
  }

  subscriptions(subscriber) {
    const lines = [];
    if (subscriber.everything) lines.push(this.line(t("Everything"), subscriber.everything.lock, "global", null));
    for (const filter of subscriber.filters) lines.push(this.line(filterWords(filter.words), filter.lock, "filtered", filter));
    for (const subscription of subscriber.suspended) lines.push(this.suspended(subscription));
    const add = this.allowed && h("button.quiet.small", { type: "button", onclick: () => newSubscription(this.system, this.ae).then((answer) => answer && this.refresh()) }, icon("plus"), t("Subscribe"));
    const end = subscriber.everything || subscriber.filters.length || subscriber.specific || subscriber.suspended.length;
    const all = Boolean(end) && this.allowed && h("button.small", { type: "button", onclick: () => this.end("global", t("everything, including all locks")) }, t("Unsubscribe from everything"));
    return [
      card(t("Subscriptions"), [lines.length ? h("ul.watchers", {}, lines) : empty(t("No global or filtered subscriptions.")), all], { tools: add }),
      subscriber.specific ? card(t("Individual workitems"), this.workitems()) : null,
    ];
  }

  line(words, lock, scope, filter) {
    const suspend = this.allowed && h("button.quiet.small", { type: "button", title: t("Suspend: no subscriptions to new workitems; existing ones remain"), onclick: () => this.suspend(scope) }, icon("pause"));
    const end = this.allowed && scope === "filtered" ? h("button.quiet.small", { type: "button", title: t("Unsubscribe from all filters"), "aria-label": t("Unsubscribe from all filters"), onclick: () => this.end("filtered", t("all filters")) }, icon("close")) : null;
    const since = filter && filter.since ? h("div.faint.small", {}, tx("since {when}", { when: time(filter.since) })) : null;
    return h("li", {}, h("div", {}, words, since), lock && h("span.tagged", {}, icon("lock"), t("lock")), suspend, end);
  }

  suspended(subscription) {
    const words = subscription.scope === "global" ? t("Everything") : filterWords(subscription.words);
    return h("li", {}, h("div.faint", {}, t("Suspended: {what}", { what: words })), this.allowed && h("button.small", { type: "button", onclick: () => this.resume(subscription) }, icon("play"), t("Resume")));
  }

  workitems() {
    const { total, workitems } = this.single;
    const lines = workitems.map((workitem) =>
      h(
        "li",
        {},
        h("div", {}, h("a.clip", { href: link("workitem", [workitem.uid]), title: workitem.uid }, workitem.label || workitem.uid), workitem.state && h("div.faint.small", {}, stateWords(workitem.state))),
        workitem.lock && h("span.tagged", {}, icon("lock"), t("lock")),
      ),
    );
    return [h("ul.watchers", {}, lines), total > PAGE_SIZE ? this.pager(total) : null];
  }

  pager(total) {
    const turn = (by) => () => ((this.offset += by), this.refresh());
    const last = Math.min(this.offset + PAGE_SIZE, total);
    return h(
      "nav.pager",
      { "aria-label": t("Pages of workitems") },
      h("button.small", { type: "button", disabled: this.offset === 0, onclick: turn(-PAGE_SIZE), "aria-label": t("Previous page") }, icon("back")),
      h("span.faint", {}, t("{first}–{last} of {total}", { first: count(this.offset + 1), last: count(last), total: count(total) })),
      h("button.small", { type: "button", disabled: last >= total, onclick: turn(PAGE_SIZE), "aria-label": t("Next page") }, icon("next")),
    );
  }

  async act(action, content, words) {
    try {
      await post(this.path(action), content);
      notice(words);
      this.refresh();
    } catch (error) {
      failed(error);
    }
  }

  suspend(scope) {
    return this.act("suspend", { scope }, t("Suspended"));
  }

  resume(subscription) {
    return this.act("subscribe", { scope: subscription.scope, lock: subscription.lock, ...(subscription.scope === "filtered" ? { filter: subscription.filter, mechanisms: subscription.mechanisms } : {}) }, t("Resumed"));
  }

  async end(scope, words) {
    const why = whyField(t("Recorded in the log, with your name."));
    const answer = await dialog({
      title: t("Unsubscribe {ae}?", { ae: this.ae }),
      content: [h("p", {}, t("This ends its subscription to {what}. Pending events are still delivered.", { what: words })), why.element],
      confirm: t("Unsubscribe"),
      danger: true,
      action: () => post(this.path("unsubscribe"), { scope, ...why.value() }),
    });
    if (answer) this.refresh();
  }
}

export async function subscriberView({ parts, system }) {
  const page = new SubscriberPage(parts[0], system);
  await page.load();
  return { element: page.element, title: page.ae, changed: page.reload, left: () => clearInterval(page.timer) };
}
