// SPDX-License-Identifier: AGPL-3.0-or-later
// One workitem: summary, progress, subscribers, history and actions.

import { ORTHANC, get, part } from "../api.js";
import { debounced, h, replace } from "../dom.js";
import { birthDate, duration, sex } from "../format.js";
import { t } from "../languages.js";
import { failed } from "../parts/dialog.js";
import { whatWords, whoWords } from "../parts/history.js";
import { icon } from "../parts/icons.js";
import { card, copyButton, facts, lateWords, priorityBadge, progressBar, readinessWords, stateBadge, time } from "../parts/words.js";
import { link } from "../router.js";
import { actionButtons } from "./actions.js";
import { attributesCard } from "./attributes.js";
import { workSeconds } from "./columns.js";
import { eventsCard } from "./events.js";
import { referencesCard } from "./references.js";
import { subscribersCard } from "./watchers.js";

const QUIET = 400;
const SHOWN = 10;
const WAITING = 2500;

class WorkitemPage {
  constructor(uid, system) {
    this.uid = uid;
    this.system = system;
    this.element = h("div.page.workitem");
    this.events = h("div");
    this.attributes = h("div");
    this.reload = debounced(QUIET, () => this.load().catch(failed));
  }

  async load() {
    const path = `workitems/${part(this.uid)}`;
    const [workitem, log] = await Promise.all([get(path), get(`${path}/events`)]);
    this.workitem = workitem;
    this.show(log.events);
  }

  // A delivery does not change the workitem, so its state is requested repeatedly while an event waits.
  showEvents(events) {
    replace(this.events, eventsCard(events));
    clearTimeout(this.timer);
    const waits = events.some((event) => event.receivers.some((receiver) => receiver.state === "waiting"));
    if (waits && !this.gone) this.timer = setTimeout(() => this.loadEvents(), WAITING);
  }

  async loadEvents() {
    if (document.hidden) return void (this.timer = setTimeout(() => this.loadEvents(), WAITING));
    try {
      this.showEvents((await get(`workitems/${part(this.uid)}/events`)).events);
    } catch {
      if (!this.gone) this.timer = setTimeout(() => this.loadEvents(), WAITING);
    }
  }

  left() {
    this.gone = true;
    clearTimeout(this.timer);
  }

  show(events) {
    const item = this.workitem;
    const refresh = () => this.load().catch(failed);
    this.showEvents(events);
    replace(this.attributes, attributesCard(item.groups, this.attributes));
    replace(
      this.element,
      this.head(item, refresh),
      h(
        "div.columns",
        {},
        h("div.main", {}, this.summary(item), referencesCard(item), this.events, this.attributes),
        h("div.side", {}, this.progress(item), subscribersCard(item, this.system, refresh), this.timeline(item)),
      ),
    );
  }

  head(item, refresh) {
    return h(
      "header.head",
      {},
      h("div", {}, h("a.back", { href: sessionStorage.getItem("ups.list") || "#/worklist" }, icon("back"), t("Worklist")), h("h1", {}, item.label || t("(no label)"))),
      h("div.signs", {}, stateBadge(item.state, { large: true }), priorityBadge(item.priority), h("span.faint", {}, item.worklist), item.cancel_requested && h("span.flag", {}, t("cancellation requested")), item.readiness !== "READY" && h("span.flag", {}, readinessWords(item.readiness))),
      h("div.actions", {}, actionButtons(item, this.system, refresh)),
    );
  }

  summary(item) {
    const patient = item.patient;
    const uid = h("span.uid", {}, h("code", {}, item.uid), copyButton(item.uid, t("Copy the UID")));
    return card(
      t("Summary"),
      h(
        "div.two",
        {},
        facts([
          [t("Patient"), patient.name || h("span.faint", {}, t("no name"))],
          [t("Patient ID"), patient.id],
          [t("Born"), birthDate(patient.birth_date)],
          [t("Sex"), sex(patient.sex)],
          [t("Kind of work"), item.code],
          [t("Accession number"), item.accession],
          [t("Inputs"), readinessWords(item.readiness)],
        ]),
        facts([
          [t("Scheduled start"), time(item.start)],
          [t("Expected completion"), item.expected && time(item.expected)],
          [t("Expires"), item.expires && time(item.expires)],
          [t("Station"), item.stations.join(", ")],
          [t("Performer"), item.performers.join("; ")],
          [t("Claimed by"), item.claimed && (item.claimed.ae || whoWords(item.claimed.who))],
          [t("Claimed at"), item.claimed && time(item.claimed.at)],
          [t("Last update"), item.state === "IN PROGRESS" && item.heard && time(item.heard, { relative: true })],
          [t("Ended at"), item.ended && time(item.ended)],
          [t("Duration"), duration(workSeconds(item))],
          [t("Performed station"), item.performed_stations.join(", ")],
          [t("Reason for delay"), item.late.map(lateWords).join(", ")],
        ]),
      ),
      { tools: uid },
    );
  }

  progress(item) {
    const progress = item.progress;
    if (progress.percent === null && !progress.description) return null;
    const words = progress.description ? h("p", {}, progress.description) : null;
    return card(t("Progress"), [progressBar(progress, { wide: true }), words]);
  }

  timeline(item) {
    const entries = [...item.history].reverse().map((entry) =>
      h("li", {}, h("div", {}, h("b", {}, whatWords(entry.what))), entry.why && h("div.why", {}, entry.why), h("div.faint", {}, whoWords(entry.who)), time(entry.at, { seconds: true })),
    );
    const raw = new URL(rawPath(this.system, item.uid), ORTHANC).href;
    const rest = entries.splice(SHOWN);
    const list = h("ol.timeline", {}, entries);
    const more = h("button.small", { type: "button", onclick: () => (list.append(...rest), more.remove()) }, t("Show {n} more", { n: rest.length }));
    return card(t("History"), [list, rest.length ? more : null], {
      tools: h("a.quiet.button.small", { href: raw, target: "_blank", rel: "noopener", title: t("As DICOM JSON (UPS-RS)") }, "DICOM JSON", icon("outside")),
    });
  }
}

const rawPath = (system, uid) => `${system.workitems_url.replace(/^\//, "")}/${part(uid)}`;

export async function workitemView(context) {
  const page = new WorkitemPage(context.parts[0], context.system);
  sessionStorage.setItem("ups.list", context.lastList());
  await page.load();
  return {
    element: page.element,
    title: page.workitem.label || t("Workitem"),
    left: () => page.left(),
    changed: (news) => {
      if (!news.complete || news.uids.includes(page.uid)) page.reload();
    },
    key: (event) => {
      const edit = page.workitem.actions.includes("edit");
      if (event.key !== "e" || !edit) return false;
      location.hash = link("workitem", [page.uid, "edit"]);
      return true;
    },
  };
}
