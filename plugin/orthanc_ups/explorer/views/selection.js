// SPDX-License-Identifier: AGPL-3.0-or-later
// The selected workitems: rows from any pages, or all matches. Survives opening a row and coming back.

const KEY = "ups.chosen";
const essentials = ({ uid, label, state, priority }) => ({ uid, label, state, priority });

export class Selection {
  constructor(onChange) {
    this.onChange = onChange;
    this.rows = new Map(JSON.parse(sessionStorage.getItem(KEY) || "[]").map((row) => [row.uid, row]));
    this.all = null;
  }

  get size() {
    return this.all ? this.all.total : this.rows.size;
  }

  has(uid) {
    return Boolean(this.all) || this.rows.has(uid);
  }

  set(rows, on) {
    this.all = null;
    for (const row of rows) {
      if (on) this.rows.set(row.uid, essentials(row));
      else this.rows.delete(row.uid);
    }
    this.changed();
  }

  // Selects all `total` matches of a query.
  setAll(query, total) {
    this.all = { query, total };
    this.changed();
  }

  // Updates selected rows that have changed since they were selected.
  refresh(rows) {
    for (const row of rows) if (this.rows.has(row.uid)) this.rows.set(row.uid, essentials(row));
  }

  clear() {
    this.rows.clear();
    this.all = null;
    this.changed();
  }

  changed() {
    sessionStorage.setItem(KEY, JSON.stringify([...this.rows.values()]));
    this.onChange();
  }
}
