// SPDX-License-Identifier: AGPL-3.0-or-later
// Translates the entries of a history and the summaries of events, which are stored in English.

import { pattern, recognized, t, translated } from "../languages.js";
import { priorityWords, readinessWords, stateWords } from "./words.js";

const WHAT = [
  pattern("created"),
  pattern("claimed"),
  pattern("completed"),
  pattern("canceled"),
  pattern("completed on behalf"),
  pattern("canceled on behalf"),
  pattern("canceled before it was claimed"),
  pattern("asked the performer to cancel"),
  pattern("updated nothing"),
  pattern("updated {what}"),
  pattern("subscribed {ae} with a Deletion Lock"),
  pattern("subscribed {ae} with no Deletion Lock"),
  pattern("unsubscribed {ae}"),
  pattern("released the Deletion Lock of {ae}"),
];
const WHO = [pattern("somebody by {via}"), pattern("{user} as {ae} by {via}"), pattern("{ae} by {via}")];
const VIA = { page: t("the page"), retention: t("retention"), import: t("import"), rules: t("a rule"), settings: t("the settings") };
const EVENT = [pattern("{state}, inputs {readiness}"), pattern("asked by {ae}")];

export const whatWords = (text) => recognized(text, WHAT);
export const whoWords = (text) => recognized(text, WHO, { via: (via) => VIA[via] || via });
export const eventWords = (text) => recognized(text, EVENT, { state: stateWords, readiness: readinessWords });

// A filter of a subscription, such as "Station is R7, and State is SCHEDULED or IN PROGRESS".
const CONDITION = [
  pattern("{key} is from {low} to {high}"),
  pattern("{key} is from {low} on"),
  pattern("{key} is up to {high}"),
  pattern("{key} is {values}"),
  pattern("{key} matches {values}"),
];
const valueWords = (text) => text.split(" or ").map((part) => readinessWords(priorityWords(stateWords(part)))).join(t(" or "));

export function filterWords(text) {
  const several = text.split("; ").map((clause) => clause.split(", and ").map((part) => recognized(part, CONDITION, { key: translated, values: valueWords })));
  return several.map((parts) => parts.join(t(", and "))).join("; ");
}

