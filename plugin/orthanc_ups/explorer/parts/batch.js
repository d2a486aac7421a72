// SPDX-License-Identifier: AGPL-3.0-or-later
// Runs a command on many workitems, with progress, a button to stop, and a list of failures.

import { get } from "../api.js";
import { h, newId, replace } from "../dom.js";
import { count, n, t } from "../languages.js";
import { icon } from "./icons.js";

const CONCURRENCY = 4;
const PAGE_SIZE = 500;
const SHOWN = 200;

// The workitems of a selection: {uid, label, state}. If it is "all matches", they are requested page by page.
export async function membersOf(selection, onProgress = () => {}) {
  if (!selection.all) return [...selection.rows.values()];
  const { query, total } = selection.all;
  const rows = [];
  while (rows.length < total) {
    const page = await get("workitems", { ...query, offset: String(rows.length), limit: String(PAGE_SIZE) });
    if (!page.workitems.length) break;
    rows.push(...page.workitems);
    onProgress(rows.length / page.total);
  }
  return rows;
}

class Batch {
  constructor({ title, verb, after }) {
    this.after = after;
    this.stopped = false;
    this.outcomes = new Map();
    this.problems = [];
    const id = newId("dialog");
    this.bar = h("progress", { max: 1, "aria-labelledby": id });
    this.words = h("p", { role: "status" }, t("Collecting the workitems …"));
    this.list = h("div.batch-problems", {});
    this.button = h("button", { type: "button", onclick: () => this.press() }, t("Stop"));
    this.box = h("dialog.dialog.broad", { "aria-labelledby": id }, h("h2", { id }, title), h("div.batch", {}, this.bar, this.words, this.list, h("footer", {}, this.button)));
    this.verb = verb;
    this.box.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.press();
    });
    document.body.append(this.box);
    this.box.showModal();
    this.button.focus();
  }

  press() {
    if (!this.ended) {
      this.stopped = true;
      return;
    }
    this.box.close();
    this.box.remove();
    this.after(this.problems);
  }

  async run(selection, action) {
    try {
      const rows = await membersOf(selection, (share) => (this.bar.value = share));
      await this.runAll(rows, action);
    } catch (error) {
      this.problems.push([{ label: "" }, error]);
    }
    this.end();
  }

  async runAll(rows, action) {
    let next = 0;
    let done = 0;
    const work = async () => {
      while (next < rows.length && !this.stopped) {
        const row = rows[next];
        next += 1;
        await this.carryOut(row, action);
        done += 1;
        this.bar.value = done / rows.length;
        this.words.textContent = t("{done} of {all}", { done: count(done), all: count(rows.length) });
      }
    };
    this.total = rows.length;
    await Promise.all(Array.from({ length: CONCURRENCY }, work));
    this.skipped = rows.length - done;
  }

  async carryOut(row, action) {
    try {
      const outcome = (await action(row)) || this.verb;
      this.outcomes.set(outcome, (this.outcomes.get(outcome) || 0) + 1);
    } catch (error) {
      this.problems.push([row, error]);
    }
  }

  // The results in numbers: "30 canceled, 2 asked to cancel, 1 refused".
  end() {
    this.ended = true;
    const parts = [...this.outcomes].map(([outcome, number]) => n(number, outcome));
    if (this.problems.length) parts.push(n(this.problems.length, "{n} refused|{n} refused"));
    if (this.skipped) parts.push(n(this.skipped, "{n} skipped because you stopped|{n} skipped because you stopped"));
    this.words.textContent = parts.join(", ") || t("Nothing to do.");
    this.bar.value = 1;
    this.bar.hidden = true;
    this.button.textContent = t("Close");
    this.button.classList.add("primary");
    this.button.focus();
    const lines = this.problems.slice(0, SHOWN).map(([row, error]) => h("li", {}, h("b", {}, row.label), ` – ${error.message}`));
    const more = this.problems.length > SHOWN ? h("p.faint", {}, n(this.problems.length - SHOWN, "and {n} more|and {n} more")) : null;
    replace(this.list, this.problems.length ? [h("h3", {}, icon("alert"), ` ${t("Refused")}`), h("ul.plain", {}, lines), more] : null);
  }
}

/* `action(row)` runs one command; the text that it returns describes the outcome ("{n} canceled|{n} canceled"), else
   `verb` does. `after` is called when the dialog is closed. */
export function runBatch(selection, { title, verb, action, after }) {
  return new Batch({ title, verb, after }).run(selection, action);
}
