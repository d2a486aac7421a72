// SPDX-License-Identifier: AGPL-3.0-or-later
// Administration: export and import, rules, storage, and procedure steps without a workitem.

import { get, part, post, remove } from "../api.js";
import { h, replace } from "../dom.js";
import { span } from "../format.js";
import { count, n, t, translated, tx } from "../languages.js";
import { dialog, errorBox, failed, field, notice } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { card, empty, facts, time } from "../parts/words.js";
import { exportWorklist, importWorklist } from "../transfer.js";

const PAUSE = 2000;
const MPPS_SHOWN = 200;

// One long task with a progress bar and a button to stop.
class Task {
  constructor(words) {
    this.words = words;
    this.bar = h("progress", { "aria-label": words });
    this.status = h("p", { role: "status" });
    this.stop = h("button", { type: "button", onclick: () => this.control.abort() }, t("Stop"));
    this.element = h("div.task", { hidden: true }, this.bar, this.status, this.stop);
  }

  // Runs `work(signal)` and shows the text that it returns.
  async run(work) {
    this.control = new AbortController();
    this.element.hidden = false;
    this.bar.hidden = this.stop.hidden = false;
    this.bar.removeAttribute("value");
    this.status.textContent = "";
    try {
      this.status.textContent = await work(this.control.signal);
    } catch (error) {
      if (error.name === "AbortError") this.status.textContent = t("Stopped.");
      else replace(this.status, errorBox(error));
    }
    this.bar.hidden = this.stop.hidden = true;
  }
}

function exportCard() {
  const task = new Task(t("Export"));
  const run = () => task.run(async (signal) => {
    const lines = await exportWorklist((number) => (task.status.textContent = n(number, "{n} line|{n} lines")), signal);
    return n(lines, "Complete: {n} line|Complete: {n} lines");
  });
  return card(t("Export"), [
    h("p.faint", {}, t("The whole worklist as lines of JSON: workitems, subscriptions and deliveries.")),
    h("button", { type: "button", onclick: run }, icon("download"), t("Export everything")),
    task.element,
  ]);
}

// The state of an import in a sentence.
function importWords(state) {
  const { workitems } = state.counts;
  const done = workitems.imported + workitems.unchanged + workitems.conflicts;
  return [
    n(done, "{n} of {expected} workitem|{n} of {expected} workitems", { expected: count(workitems.expected || done) }),
    n(state.conflicts_in_all, "{n} conflict|{n} conflicts"),
  ].join(", ");
}

function importCard() {
  const task = new Task(t("Import"));
  const conflicts = h("div", {});
  const file = h("input", { type: "file", accept: ".ndjson,application/x-ndjson" });
  const run = async () => {
    const [chosen] = file.files;
    if (!chosen) return file.click();
    const confirmed = await dialog({
      title: t("Import {file}?", { file: chosen.name }),
      content: h("p", {}, t("An empty worklist is restored completely. Otherwise, whatever is missing is added and nothing is overwritten. The import can be repeated safely.")),
      confirm: t("Import file"),
    });
    if (!confirmed) return undefined;
    replace(conflicts);
    return task.run(async (signal) => {
      const state = await importWorklist(chosen, (now) => {
        task.status.textContent = importWords(now);
        const { workitems } = now.counts;
        if (workitems.expected) task.bar.value = (workitems.imported + workitems.unchanged + workitems.conflicts) / workitems.expected;
      }, signal);
      if (!state || state.state !== "complete") throw new Error(t("The file is not complete: its last line is missing."));
      replace(conflicts, state.conflicts.length ? h("ul.plain", {}, state.conflicts.map((conflict) => h("li", {}, h("b", {}, `${conflict.kind} ${conflict.name}`), ` – ${conflict.why}`))) : null);
      return t("Complete: {state}", { state: importWords(state) });
    });
  };
  return card(t("Import"), [field(t("File"), file), h("button", { type: "button", onclick: run }, icon("upload"), t("Import file")), task.element, conflicts]);
}

// --- rules ---

class Rules {
  constructor() {
    this.holder = h("div", {});
    this.element = card(t("Rules"), this.holder);
  }

  async load() {
    const { rules, waiting } = await get("rules");
    if (!rules.length) return void replace(this.holder, empty(t("No rules are configured (Ups.Rules).")));
    const head = [t("Rule"), t("When"), t("Fired"), t("Failed"), t("Last result"), t("Error"), ""].map((words) => h("th", { scope: "col" }, words));
    const note = waiting ? h("p.faint", {}, n(waiting, "{n} series, study or patient is not stable yet.|{n} series, studies and patients are not stable yet.")) : null;
    replace(this.holder, h("div.table-box", {}, h("table.plain-rows.tight", {}, h("caption.offscreen", {}, t("Rules")), h("thead", {}, h("tr", {}, head)), h("tbody", {}, rules.map((rule) => this.row(rule))))), note);
    clearTimeout(this.timer);
    if (rules.some((rule) => rule.backfill && rule.backfill.running)) this.timer = setTimeout(() => this.load().catch(() => {}), PAUSE);
  }

  row(rule) {
    const run = rule.backfill;
    const progress = run && (run.running ? t("{done} of {all}", { done: count(run.done), all: count(run.total) }) : run.error || n(run.fired, "Fired {n} time|Fired {n} times"));
    return h(
      "tr",
      {},
      h("th", { scope: "row", title: rule.conditions.join("\n") }, rule.name, rule.enabled ? null : h("span.tagged", {}, t("disabled"))),
      h("td", {}, `${rule.when} → ${rule.effects.join(", ")}`),
      h("td.number", {}, count(rule.fired)),
      h("td.number", {}, rule.failed || rule.stopped ? h("span.flag", {}, count(rule.failed + rule.stopped)) : count(0)),
      h("td.wraps", {}, rule.last_at ? [time(rule.last_at), " ", rule.last] : h("span.faint", {}, t("never"))),
      h("td.wraps", {}, rule.error ? [rule.error, " ", h("span.faint", {}, time(rule.error_at))] : ""),
      h("td", {}, this.button(rule, run), progress && h("div.faint.small", { role: "status" }, progress)),
    );
  }

  button(rule, run) {
    const path = `rules/${part(rule.name)}/backfill`;
    const act = async (action) => {
      try {
        await action();
        await this.load();
      } catch (error) {
        failed(error);
      }
    };
    if (run && run.running) return h("button.small", { type: "button", onclick: () => act(() => remove(path)) }, t("Stop"));
    const begin = async () => {
      const confirmed = await dialog({
        title: t("Apply the rule {rule} to existing resources?", { rule: rule.name }),
        content: h("p", {}, t("The rule is applied to everything already in Orthanc, as if it had just arrived. Running it again creates no duplicate workitems.")),
        confirm: t("Run"),
        action: () => post(path),
      });
      if (confirmed) notice(t("The rule is running."));
      if (confirmed) this.load().catch(failed);
    };
    return h("button.small", { type: "button", disabled: !rule.enabled, onclick: begin }, icon("play"), t("Apply to existing"));
  }
}

// --- storage ---

const UNITS = ["B", "kB", "MB", "GB"];

function size(bytes) {
  const step = bytes ? Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length - 1) : 0;
  return `${count(Math.round((bytes / 1000 ** step) * 10) / 10)} ${UNITS[step]}`;
}

function storageCard() {
  const holder = h("div", {});
  const load = async () => {
    try {
      const storage = await get("storage");
      const lines = storage.kinds.map((kind) => h("tr", {}, h("th", { scope: "row" }, kind.kind), h("td.wraps", {}, kind.meaning), h("td.number", {}, count(kind.entries)), h("td.number", {}, size(kind.bytes))));
      const head = [t("Kind"), t("Description"), t("Entries"), t("Size")].map((words) => h("th", { scope: "col" }, words));
      replace(
        holder,
        facts([[t("Store"), storage.store], [t("Location"), storage.location], [t("Counted at"), time(storage.counted_at, { seconds: true })]]),
        h("div.table-box", {}, h("table.plain-rows.tight", {}, h("caption.offscreen", {}, t("Storage")), h("thead", {}, h("tr", {}, head)), h("tbody", {}, lines))),
      );
    } catch (error) {
      failed(error);
    }
  };
  const button = h("button.small", { type: "button", title: t("Reads every stored entry"), onclick: load }, icon("refresh"), t("Count"));
  replace(holder, h("p.faint", {}, t("Counting reads every stored entry.")));
  return card(t("Storage"), holder, { tools: button });
}

// --- nodes ---

const ROLES = { alone: t("standalone"), leader: t("leader"), standby: t("standby") };

async function nodesCard() {
  const { nodes } = await get("nodes");
  if (nodes.length < 2) return null;
  const lines = nodes.map((node) => h("tr", {}, h("th", { scope: "row" }, node.name), h("td", {}, ROLES[node.role] || node.role), h("td", {}, node.host), h("td.number", {}, String(node.process)), h("td", {}, node.version), h("td", {}, time(node.since)), h("td", {}, t("{span} ago", { span: span(node.seen_before) })), h("td", {}, node.role === "standby" ? span(node.lag) : "")));
  const head = [t("Name"), t("Role"), t("Host"), t("Process"), t("Version"), t("Since"), t("Last seen"), t("Lag")].map((words) => h("th", { scope: "col" }, words));
  return card(t("Orthanc nodes"), h("div.table-box", {}, h("table.plain-rows.tight", {}, h("caption.offscreen", {}, t("Orthanc nodes")), h("thead", {}, h("tr", {}, head)), h("tbody", {}, lines))));
}

// --- performed procedure steps (MPPS) ---

async function stepsCard() {
  const { steps, total } = await get("mpps", { limit: String(MPPS_SHOWN) });
  if (!total) return null;
  const alone = steps.filter((step) => !step.workitems.length);
  const lines = alone.map((step) =>
    h("tr", {}, h("td", {}, translated(step.status)), h("td", {}, step.modality), h("td.wraps", {}, step.description), h("td.wraps", {}, `${step.patient.name} ${step.patient.id}`), h("td", {}, step.accession), h("td", {}, step.ae), h("td", {}, time(step.changed)), h("td.wraps", {}, step.note)),
  );
  const head = [t("State"), t("Modality"), t("What was done"), t("Patient"), t("Accession number"), t("AE title"), t("Last change"), t("Reason")].map((words) => h("th", { scope: "col" }, words));
  const content = alone.length ? h("div.table-box", {}, h("table.plain-rows.tight", {}, h("caption.offscreen", {}, t("Procedure steps without a workitem")), h("thead", {}, h("tr", {}, head)), h("tbody", {}, lines))) : empty(t("Every procedure step reported by a modality belongs to a workitem."));
  return card(t("Procedure steps without a workitem"), content);
}

export async function administrationView() {
  const rules = new Rules();
  const more = h("div.overview", {});
  const element = h(
    "div.page.overview",
    {},
    h("header.head", {}, h("h1", {}, t("Administration")), h("p.faint", {}, tx("For administrators, as set by {right} in orthanc.json.", { right: h("code", {}, "Ups.Users") }))),
    h("div.columns.even", {}, exportCard(), importCard()),
    rules.element,
    more,
    storageCard(),
  );
  await Promise.all([rules.load().catch(failed), Promise.all([nodesCard(), stepsCard()]).then((cards) => replace(more, cards), failed)]);
  return { element, title: t("Administration"), left: () => clearTimeout(rules.timer) };
}
