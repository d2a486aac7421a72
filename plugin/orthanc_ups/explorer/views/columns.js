// SPDX-License-Identifier: AGPL-3.0-or-later
// The columns of the worklist: what each shows, how it sorts, and which ones the user has chosen.

import { h } from "../dom.js";
import { ago, birthDate, duration, fully } from "../format.js";
import { t } from "../languages.js";
import { dialog } from "../parts/dialog.js";
import { whoWords } from "../parts/history.js";
import { icon } from "../parts/icons.js";
import { lateWords, priorityBadge, progressBar, readinessWords, stateBadge, time } from "../parts/words.js";
import { link } from "../router.js";

const CHOSEN_KEY = "ups.columns";

const clipped = (text, extra = null) => h("span.clip", { title: text || null }, text, extra);
const moment = (iso) => time(iso, { none: "" });

// `hidden`: the width ("narrow" or "narrower") below which a column is hidden unless the user chose it.
const ALL = [
  { name: "state", words: t("State"), order: "state", width: 132, usual: true, cell: (row) => stateBadge(row.state) },
  { name: "priority", words: t("Priority"), order: "priority", width: 94, usual: true, cell: (row) => priorityBadge(row.priority) },
  { name: "label", words: t("Label"), order: "label", width: 200, share: "16%", usual: true, cell: (row) => [inputsFlag(row), cancelFlag(row), h("a.clip", { href: link("workitem", [row.uid]), tabindex: -1, title: row.label }, row.label || t("(no label)"))] },
  { name: "worklist", words: t("Worklist"), order: "worklist", width: 96, share: "8%", usual: true, hidden: "narrow", cell: (row) => clipped(row.worklist) },
  { name: "patient", words: t("Patient"), order: "patient", width: 200, share: "17%", usual: true, cell: patient },
  { name: "start", words: t("Scheduled start"), order: "start", width: 150, usual: true, cell: (row) => [late(row), time(row.start)] },
  { name: "station", words: t("Station"), order: "station", width: 110, share: "9%", usual: true, hidden: "narrower", cell: (row) => clipped(row.stations.join(", ")) },
  { name: "performer", words: t("Performer"), order: "performer", width: 110, share: "9%", usual: true, hidden: "narrow", cell: (row) => clipped(row.performers.join(", ")) },
  { name: "claimer", words: t("Claimed by"), order: "claimer", width: 116, share: "9%", usual: true, hidden: "narrow", cell: claimer },
  { name: "progress", words: t("Progress"), order: "-progress", width: 98, usual: true, cell: (row) => progressBar(row.progress) },
  { name: "age", words: t("Age"), order: "-created", turned: true, width: 66, cell: (row) => h("time.number", { datetime: row.created, title: t("Created {when}", { when: fully(row.created) }) }, ago(row.created)) },
  { name: "accession", words: t("Accession number"), width: 130, cell: (row) => clipped(row.accession) },
  { name: "work", words: t("Kind of work"), order: "work", width: 140, cell: (row) => clipped(row.code) },
  { name: "readiness", words: t("Inputs"), width: 120, cell: (row) => clipped(readinessWords(row.readiness)) },
  { name: "late", words: t("Reason for delay"), width: 170, cell: (row) => clipped(row.late.map(lateWords).join(", ")) },
  { name: "expected", words: t("Expected completion"), order: "expected", width: 150, cell: (row) => moment(row.expected) },
  { name: "expires", words: t("Expires"), order: "expires", width: 150, cell: (row) => moment(row.expires) },
  { name: "claimed", words: t("Claimed at"), order: "claimed", width: 150, cell: (row) => moment(row.claimed && row.claimed.at) },
  { name: "ended", words: t("Ended at"), order: "ended", width: 150, cell: (row) => moment(row.ended) },
  { name: "duration", words: t("Duration"), order: "-duration", width: 104, cell: (row) => h("span.number", {}, duration(workSeconds(row))) },
  { name: "performed", words: t("Performed station"), order: "performed", width: 130, cell: (row) => clipped(row.performed_stations.join(", ")) },
  { name: "modified", words: t("Last change"), order: "modified", width: 150, cell: (row) => moment(row.modified) },
  { name: "uid", words: t("Workitem UID"), width: 220, cell: (row) => clipped(row.uid) },
];
const BY_NAME = new Map(ALL.map((column) => [column.name, column]));
const USUAL = ALL.filter((column) => column.usual).map((column) => column.name);

// Sort orders for narrow screens, which have no column headings.
export const ORDERS = [["urgency", t("Priority and start")], ["-created", t("Newest first")], ["start", t("Scheduled start")], ["patient", t("Patient")], ["state", t("State")], ["label", t("Label")], ["claimed", t("Claimed at")], ["-ended", t("Ended at")]];

// --- cells ---

function patient(row) {
  const about = [row.patient.name, row.patient.id, birthDate(row.patient.birth_date)].filter(Boolean).join(" · ");
  return h("span.clip", { title: about }, row.patient.name || h("span.faint", {}, t("no name")), h("span.faint.number", {}, ` ${row.patient.id}`));
}

function claimer(row) {
  if (!row.claimed) return "";
  const who = row.claimed.ae || whoWords(row.claimed.who);
  const since = row.state === "IN PROGRESS" ? h("span.faint.number", {}, ` ${ago(row.claimed.at)}`) : null;
  return h("span.clip", { title: `${whoWords(row.claimed.who)}, ${fully(row.claimed.at)}` }, who, since);
}

// Seconds that the work took, or has taken so far.
export function workSeconds(row) {
  if (row.duration !== null || row.state !== "IN PROGRESS" || !row.claimed) return row.duration;
  return Math.max(0, (Date.now() - new Date(row.claimed.at).getTime()) / 1000);
}

function inputsFlag(row) {
  const open = row.state === "SCHEDULED" && row.readiness !== "READY";
  return open && h("span.flag.waits", { title: readinessWords(row.readiness) }, t("inputs?"));
}

function cancelFlag(row) {
  return row.cancel_requested && h("span.flag.waits", { title: t("The performer was asked to cancel") }, t("cancel?"));
}

// Placed before the time, because a column may be too narrow for both.
function late(row) {
  if (!row.late.length) return false;
  const words = t("Late: {why}", { why: row.late.map(lateWords).join(", ") });
  return h("span.late", { title: words, role: "img", "aria-label": words }, icon("alert"));
}

// --- choice of columns ---

export function isUsual(names) {
  return names.join() === USUAL.join();
}

// `text`: names of columns from the address, separated by commas; without it, the columns that the user chose.
export function shownColumns(text) {
  const names = (text || localStorage.getItem(CHOSEN_KEY) || "").split(",").filter((name) => BY_NAME.has(name));
  return (names.length ? names : USUAL).map((name) => BY_NAME.get(name));
}

export const forgetColumns = () => localStorage.removeItem(CHOSEN_KEY);

/* Lets the user choose and arrange columns. Resolves with their names, or undefined; stored in this browser. */
export function chooseColumns(shown) {
  let names = [...shown.map((column) => column.name), ...ALL.map((column) => column.name).filter((name) => !shown.some((column) => column.name === name))];
  const on = new Set(shown.map((column) => column.name));
  const list = h("ol.columns-list", { "aria-label": t("Columns") });
  const move = (name, by) => {
    const at = names.indexOf(name);
    const to = Math.min(Math.max(at + by, 0), names.length - 1);
    names = names.filter((entry) => entry !== name);
    names.splice(to, 0, name);
    show();
    list.querySelector(`[data-name="${name}"] .${by < 0 ? "up" : "down"}`).focus();
  };
  function line(name) {
    const { words } = BY_NAME.get(name);
    const box = h("input", { type: "checkbox", checked: on.has(name), onchange: () => (box.checked ? on.add(name) : on.delete(name)) });
    return h(
      "li",
      { dataset: { name } },
      h("label.check", {}, box, words),
      h("button.quiet.small.up", { type: "button", "aria-label": t("Move {column} up", { column: words }), onclick: () => move(name, -1) }, icon("up")),
      h("button.quiet.small.down", { type: "button", "aria-label": t("Move {column} down", { column: words }), onclick: () => move(name, 1) }, icon("down")),
    );
  }
  function show() {
    list.replaceChildren(...names.map(line));
  }
  show();
  const usual = h("button.small", { type: "button", onclick: () => {
    names = [...USUAL, ...names.filter((name) => !USUAL.includes(name))];
    on.clear();
    USUAL.forEach((name) => on.add(name));
    show();
  } }, t("Restore defaults"));
  return dialog({
    title: t("Columns"),
    content: [list, h("div", {}, usual)],
    confirm: t("Apply"),
    action: () => {
      const chosen = names.filter((name) => on.has(name));
      if (!chosen.length) throw new Error(t("Choose at least one column."));
      if (isUsual(chosen)) forgetColumns();
      else localStorage.setItem(CHOSEN_KEY, chosen.join());
      return chosen;
    },
  });
}
