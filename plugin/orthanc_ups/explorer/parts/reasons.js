// SPDX-License-Identifier: AGPL-3.0-or-later
// Why something is done: in words, and for a cancellation with a coded reason.

import { h } from "../dom.js";
import { said, t } from "../languages.js";
import { field } from "./dialog.js";

const LONGEST = 500;

// `value` gives what a request carries: nothing if nothing was typed.
export function whyField(help = t("Recorded in the history of the workitem, with your name.")) {
  const words = h("input", { type: "text", maxlength: LONGEST, autocomplete: "off" });
  return {
    element: field(t("Reason (optional)"), words, { help }),
    value: () => (words.value.trim() ? { reason: words.value.trim() } : {}),
  };
}

export function reasonFields(reasons) {
  const code = h("select", {}, reasons.map((reason) => h("option", { value: reason.CodeValue }, said(reason.CodeMeaning))));
  const words = h("textarea", { rows: 2, maxlength: LONGEST });
  return {
    element: h("div.stack", {}, field(t("Reason"), code), field(t("Details (optional)"), words)),
    value: () => ({ reason: words.value.trim(), code: reasons.find((reason) => reason.CodeValue === code.value) }),
  };
}
