// SPDX-License-Identifier: AGPL-3.0-or-later
// Times relative to now, such as "today..today+1d": stored as such in the address, and resolved at each request.

import { localValue, toDicom } from "../format.js";
import { t } from "../languages.js";

const SIDE = "(?:(now|today)(?:([+-]\\d{1,4})([mhd]))?)?";
const SPAN = new RegExp(`^${SIDE}\\.\\.${SIDE}$`);
const MINUTES = { m: 1, h: 60 };

export const isRelative = (value) => value !== ".." && SPAN.test(value);

export const PRESETS = [
  ["today..today+1d", t("Today")],
  ["today+1d..today+2d", t("Tomorrow")],
  ["today-1d..today", t("Yesterday")],
  ["now-1h..now", t("Last hour")],
  ["now..now+2h", t("Next 2 hours")],
  ["today-6d..today+1d", t("Last 7 days")],
  ["today..today+7d", t("Next 7 days")],
  ["..now", t("Until now")],
];

export const relativeWords = (value) => (PRESETS.find(([preset]) => preset === value) || [value, value])[1];

function moment(base, amount, unit, now) {
  if (!base) return null;
  const at = new Date(now);
  if (base === "today") at.setHours(0, 0, 0, 0);
  const number = Number(amount || 0);
  if (unit === "d") at.setDate(at.getDate() + number);
  else at.setMinutes(at.getMinutes() + number * (MINUTES[unit] || 0));
  return at;
}

// Both ends as dates; an open end is null. A day ends a second before the next one begins.
export function momentsOf(value, now = new Date()) {
  const [, from, amount, unit, to, upTo, upToUnit] = SPAN.exec(value);
  const end = moment(to, upTo, upToUnit, now);
  if (end && to === "today") end.setSeconds(-1);
  return [moment(from, amount, unit, now), end];
}

// As a DICOM range.
export function resolved(value) {
  if (!isRelative(value)) return value;
  return momentsOf(value).map((at) => (at ? toDicom(localValue(at, { seconds: true })) : "")).join("-");
}
