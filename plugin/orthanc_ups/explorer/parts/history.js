// SPDX-License-Identifier: AGPL-3.0-or-later
// The history of a workitem and its events in words: they are stored in English.

import { pattern, recognized, t } from "../languages.js";
import { readinessWords, stateWords } from "./words.js";

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
const VIA = { page: t("the page"), retention: t("retention"), import: t("import") };
const EVENT = [pattern("{state}, inputs {readiness}"), pattern("asked by {ae}")];

export const whatWords = (text) => recognized(text, WHAT);
export const whoWords = (text) => recognized(text, WHO, { via: (via) => VIA[via] || via });
export const eventWords = (text) => recognized(text, EVENT, { state: stateWords, readiness: (one) => readinessWords(one).toLowerCase() });
