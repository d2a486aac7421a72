// SPDX-License-Identifier: AGPL-3.0-or-later
// Parses CSV (RFC 4180) as spreadsheets write it, with comma, semicolon or tab.

const SEPARATORS = [",", ";", "\t"];

// An export puts an apostrophe before values that a spreadsheet would take for formulas (management/csv_export.py).
const PROTECTED = /^'(?=[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212\u207a\u207b\u207c\u208a\u208b\u208c])/;

export function parseCsv(text) {
  const plain = text.replace(/^\ufeff/, "");
  const first = plain.split(/\r?\n/, 1)[0];
  const separator = SEPARATORS.reduce((best, candidate) => (first.split(candidate).length > first.split(best).length ? candidate : best));
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  const endCell = () => {
    row.push(cell.trim().replace(PROTECTED, ""));
    cell = "";
  };
  const endRow = () => {
    endCell();
    if (row.some(Boolean)) rows.push(row);
    row = [];
  };
  for (let at = 0; at < plain.length; at += 1) {
    const sign = plain[at];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (plain[at + 1] === '"') {
        cell += '"';
        at += 1;
      } else quoted = false;
    } else if (sign === '"' && !cell.trim()) {
      cell = "";
      quoted = true;
    } else if (sign === separator) endCell();
    else if (sign === "\n") endRow();
    else if (sign !== "\r") cell += sign;
  }
  endRow();
  return rows;
}
