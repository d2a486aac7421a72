// SPDX-License-Identifier: AGPL-3.0-or-later
// Fields for the reason of an action: text, and for a cancellation also a code.

import { h } from "../dom.js";
import { t, translated } from "../languages.js";
import { field } from "./dialog.js";

const LONGEST = 500;

// `value()` returns the part of the request body: {} if the field is empty.
export function whyField(help = t("Recorded in the history of the workitem, with your name.")) {
  const words = h("input", { type: "text", maxlength: LONGEST, autocomplete: "off" });
  return {
    element: field(t("Reason (optional)"), words, { help }),
    value: () => (words.value.trim() ? { reason: words.value.trim() } : {}),
  };
}

export function reasonFields(reasons) {
  const code = h("select", {}, reasons.map((reason) => h("option", { value: reason.CodeValue }, translated(reason.CodeMeaning))));
  const words = h("textarea", { rows: 2, maxlength: LONGEST });
  return {
    element: h("div.stack", {}, field(t("Reason"), code), field(t("Details (optional)"), words)),
    value: () => ({ reason: words.value.trim(), code: reasons.find((reason) => reason.CodeValue === code.value) }),
  };
}
