// SPDX-License-Identifier: AGPL-3.0-or-later
// Small elements used throughout the page: states, priorities, progress, times.

import { h } from "../dom.js";
import { fully, relative, when } from "../format.js";
import { t } from "../languages.js";
import { healthIcon, icon, priorityIcon, stateIcon } from "./icons.js";

const STATE_WORDS = {
  SCHEDULED: t("Scheduled"),
  "IN PROGRESS": t("In progress"),
  COMPLETED: t("Completed"),
  CANCELED: t("Canceled"),
};
export const stateWords = (state) => STATE_WORDS[state] || state;
const stateClass = (state) => `state-${state.toLowerCase().replace(" ", "-")}`;

export function stateBadge(state, { large = false } = {}) {
  return h(large ? "span.state.large" : "span.state", { class: stateClass(state) }, stateIcon(state), stateWords(state));
}

const PRIORITY_WORDS = { HIGH: t("High"), MEDIUM: t("Medium"), LOW: t("Low") };
export const priorityWords = (priority) => PRIORITY_WORDS[priority] || priority;

export function priorityBadge(priority) {
  return h("span.priority", { class: `priority-${priority.toLowerCase()}` }, priorityIcon(priority), priorityWords(priority));
}

const READINESS_WORDS = { READY: t("Inputs ready"), INCOMPLETE: t("Inputs incomplete"), UNAVAILABLE: t("Inputs unavailable") };
export const readinessWords = (readiness) => READINESS_WORDS[readiness] || readiness;

const LATE_WORDS = {
  start: t("start has passed"),
  inputs: t("inputs are incomplete"),
  completion: t("expected completion has passed"),
  expiration: t("expired"),
  silent: t("no update from the performer"),
};
export const lateWords = (kind) => LATE_WORDS[kind] || kind;

export function progressBar(progress, { wide = false } = {}) {
  const percent = progress.percent;
  if (percent === null) return h("span.faint", {}, wide ? t("not reported yet") : "");
  const shown = Math.max(0, Math.min(100, percent));
  const fill = h("span.fill");
  fill.style.width = `${shown}%`;
  const bar = h(
    "span.bar",
    { role: "progressbar", "aria-valuenow": shown, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": t("Progress") },
    fill,
  );
  return h("span.progress", { title: progress.description || null }, bar, h("span.number", {}, `${Math.round(percent)} %`));
}

// A time: short, with date, time and zone as its tooltip, and as ISO 8601 for programs.
export function time(iso, options = {}) {
  if (!iso) return h("span.faint", {}, options.none || "–");
  return h("time", { datetime: iso, title: fully(iso) }, options.relative ? relative(iso) : when(iso, options));
}

const HEALTH_WORDS = { good: t("Good"), idle: t("Idle"), trouble: t("Trouble"), refusing: t("Refuses events"), unreachable: t("No address") };
export function healthBadge(health) {
  return h("span.health", { class: `health-${health}` }, healthIcon(health), HEALTH_WORDS[health] || health);
}

const DELIVERY_STATES = { delivered: ["good", t("delivered")], waiting: ["trouble", t("waiting")], dead: ["unreachable", t("dead letter")] };
export function deliveryBadge(state) {
  const [health, words] = DELIVERY_STATES[state] || ["idle", state];
  return h("span.health", { class: `health-${health}` }, healthIcon(health), words);
}

const CHANNEL_WORDS = { dimse: "DIMSE", websocket: "WebSocket" };
// `channel`: a channel as the server describes it.
export const channelWords = (channel) => CHANNEL_WORDS[channel.channel] || t("webhook {name}", { name: channel.name || channel.channel.replace("webhook:", "") });

export function empty(words, ...more) {
  return h("div.empty", {}, h("p", {}, words), more);
}

export function card(title, content, { tools = [], id = null } = {}) {
  const head = h("header", {}, h("h2", {}, title), h("div.tools", {}, tools));
  return h("section.card", { id, "aria-label": title }, head, content);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false);
  return h("dl.facts", {}, shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function copyButton(text, what = t("Copy")) {
  const button = h("button.quiet.small", { type: "button", title: what, "aria-label": `${what}: ${text}` }, icon("copy"));
  button.addEventListener("click", async () => {
    await copyText(text);
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1200);
  });
  return button;
}

// The Clipboard API needs HTTPS or localhost; elsewhere execCommand is used.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = h("textarea.offscreen", { value: text });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}
