// SPDX-License-Identifier: AGPL-3.0-or-later
// Why something is canceled: a coded reason, and words.

import { h } from "../dom.js";
import { field } from "./dialog.js";

export function reasonFields(reasons) {
  const code = h("select", {}, reasons.map((one) => h("option", { value: one.CodeValue }, one.CodeMeaning)));
  const words = h("textarea", { rows: 2, maxlength: 10240 });
  return {
    element: h("div.stack", {}, field("Reason", code), field("In words (optional)", words)),
    value: () => ({ reason: words.value.trim(), code: reasons.find((one) => one.CodeValue === code.value) }),
  };
}
