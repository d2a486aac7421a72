// SPDX-License-Identifier: AGPL-3.0-or-later
// Times, spans and numbers for people, in the browser's language and time zone.

import { count, locale, t } from "./languages.js";

export { count };

const DATE_ONLY = /^\d{4}-\d{2}-\d{2}$/;
const clock = new Intl.DateTimeFormat(locale(), { hour: "2-digit", minute: "2-digit" });
const clockWithSeconds = new Intl.DateTimeFormat(locale(), { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayInYear = new Intl.DateTimeFormat(locale(), { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat(locale(), { day: "numeric", month: "short", year: "numeric" });
const everything = new Intl.DateTimeFormat(locale(), { dateStyle: "full", timeStyle: "long" });

const SPANS = [[t("d"), 86_400], [t("h"), 3_600], [t("min"), 60], [t("s"), 1]];


function dayOf(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}

function calendarDay(date, now) {
  const days = Math.round((dayOf(date) - dayOf(now)) / 86_400_000);
  if (days === 0) return "";
  if (days === -1) return t("yesterday");
  if (days === 1) return t("tomorrow");
  return (date.getFullYear() === now.getFullYear() ? dayInYear : dayOfYear).format(date);
}

// "14:05", "yesterday 14:05", "3 Mar 14:05"
export function when(iso, { seconds = false, now = new Date() } = {}) {
  if (!iso) return "";
  if (DATE_ONLY.test(iso)) return dayOfYear.format(new Date(`${iso}T00:00`));
  const date = new Date(iso);
  const time = (seconds ? clockWithSeconds : clock).format(date);
  return [calendarDay(date, now), time].filter(Boolean).join(" ");
}

export function fully(iso) {
  if (!iso) return "";
  return DATE_ONLY.test(iso) ? dayOfYear.format(new Date(`${iso}T00:00`)) : everything.format(new Date(iso));
}

// A duration in its largest unit: "3 min"
export function span(seconds) {
  const size = Math.abs(seconds);
  const [unit, length] = SPANS.find(([, span]) => size >= span) || [t("s"), 1];
  return `${count(Math.floor(size / length))} ${unit}`;
}

// A duration in its two largest units: "2 h 5 min"
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const at = SPANS.findIndex(([, span]) => seconds >= span);
  if (at < 0) return `0 ${t("s")}`;
  const rest = seconds % SPANS[at][1];
  const lower = SPANS[at + 1] && rest >= SPANS[at + 1][1] ? ` ${span(rest)}` : "";
  return `${span(seconds)}${lower}`;
}

export function ago(iso, now = Date.now()) {
  return iso ? span(Math.max(0, now - new Date(iso).getTime()) / 1000) : "";
}

// "in 40 s" or "3 min ago"
export function relative(iso, now = Date.now()) {
  if (!iso) return "";
  const seconds = (new Date(iso).getTime() - now) / 1000;
  return seconds > 0 ? t("in {span}", { span: span(seconds) }) : t("{span} ago", { span: span(seconds) });
}

export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  return seconds < 90 ? `${Math.round(seconds)} s` : span(seconds);
}

export function birthDate(text) {
  return /^\d{8}$/.test(text) ? when(`${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}`) : text;
}

const SEXES = { F: t("female"), M: t("male"), O: t("sex: other") };
export const sex = (code) => SEXES[code] || code;

// --- DICOM date-times and the values of date fields ---

const two = (number) => String(number).padStart(2, "0");

// The value of a datetime-local field (user's zone) as DT in UTC; an offset "+0000" cannot be mistaken for a range.
export function toDicom(local) {
  if (!local) return "";
  const at = new Date(local);
  if (Number.isNaN(at.getTime())) return "";
  const day = `${at.getUTCFullYear()}${two(at.getUTCMonth() + 1)}${two(at.getUTCDate())}`;
  return `${day}${two(at.getUTCHours())}${two(at.getUTCMinutes())}${two(at.getUTCSeconds())}+0000`;
}

const DT = /^(\d{4})(\d{2})(\d{2})(\d{2})?(\d{2})?(\d{2})?(?:\.\d+)?([+-]\d{4})?$/;

// DT as a datetime-local value in the user's zone; without an offset, it is taken to be in that zone.
export function fromDicom(text) {
  const match = DT.exec((text || "").trim());
  if (!match) return "";
  const [, year, month, day, hour = "00", minute = "00", second = "00", offset] = match;
  const zone = offset ? `${offset.slice(0, 3)}:${offset.slice(3)}` : "";
  return localValue(new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}${zone}`));
}

export function localValue(date, { seconds = false } = {}) {
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}${seconds ? `:${two(date.getSeconds())}` : ""}`;
}

export const toDicomDate = (value) => value.replaceAll("-", "");
export const fromDicomDate = (text) => (/^\d{8}$/.test(text) ? `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}` : "");
