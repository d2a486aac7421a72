// SPDX-License-Identifier: AGPL-3.0-or-later
// Dialogs that confirm and carry out one action, and short notices.

import { h, newId, replace } from "../dom.js";
import { t } from "../languages.js";
import { icon } from "./icons.js";

const NOTICE_SHOWN = 6000;

export function notice(words, kind = "good") {
  const box = h("div.toast", { class: kind }, icon(kind === "bad" ? "alert" : "check"), h("span", {}, words));
  box.append(h("button.quiet.small", { type: "button", "aria-label": t("Dismiss"), onclick: () => box.remove() }, icon("close")));
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), kind === "bad" ? NOTICE_SHOWN * 2 : NOTICE_SHOWN);
}

// The message of an error, with the attribute at fault.
export function errorBox(error) {
  const attribute = error.attribute && !error.message.includes(error.attribute) ? h("code", {}, error.attribute) : null;
  return h("div.error", { role: "alert" }, icon("alert"), h("span", {}, error.message, attribute && [" ", attribute]));
}

export function failed(error) {
  if (error.name !== "AbortError") notice(error.message, "bad");
}

/* A dialog with a form. If `action`, which may be async, fails, the dialog stays open and shows why. Resolves with the
   result of `action`, or undefined if the dialog was dismissed. `back: null` leaves out the button that dismisses it. */
export function dialog({ title, content, confirm = t("OK"), back = t("Back"), danger = false, broad = false, action = () => true }) {
  return new Promise((resolve) => {
    const id = newId("dialog");
    const problem = h("div", {});
    const submit = h("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm);
    const cancel = back && h("button", { type: "button", onclick: () => close(undefined) }, back);
    const form = h("form", { novalidate: true }, h("div.body", {}, content), problem, h("footer", {}, cancel, submit));
    const box = h("dialog.dialog", { "aria-labelledby": id, class: broad ? "broad" : "" }, h("h2", { id }, title), form);

    function close(result) {
      box.close();
      box.remove();
      resolve(result);
    }
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      submit.disabled = true;
      try {
        close(await action());
      } catch (error) {
        replace(problem, errorBox(error));
        problem.scrollIntoView({ block: "nearest" });
        submit.disabled = false;
      }
    });
    box.addEventListener("cancel", (event) => {
      event.preventDefault();
      close(undefined);
    });
    document.body.append(box);
    box.showModal();
    (box.querySelector("[autofocus], input, select, textarea") || submit).focus();
  });
}

// A dialog that only shows something, with one button.
export const infoDialog = (title, content) => dialog({ title, content, confirm: t("Close"), back: null });

export function field(label, input, { help = "", required = false } = {}) {
  const id = input.id || newId("field");
  (input.matches("input, select, textarea") ? input : input.querySelector("input, select, textarea") || input).id = id;
  const mark = required ? h("span.required", { title: t("required") }, " *") : null;
  return h("div.field", {}, h("label", { for: id }, label, mark), input, help && h("p.help", {}, help));
}

export function select(choices, chosen = "", properties = {}) {
  const options = choices.map(([value, words]) => h("option", { value, selected: value === chosen }, words));
  return h("select", { ...properties, value: chosen }, options);
}

const KEYS = [
  ["/", t("Search")],
  ["j  k", t("Next, previous row")],
  ["Enter", t("Open the row")],
  ["x", t("Select the row")],
  ["[  ]", t("Previous, next page")],
  ["n", t("New workitem")],
  ["1  2  3", t("Worklist, Subscribers, Overview")],
  ["Esc", t("Close, or back to the list")],
  ["?", t("This help")],
];

export function keyboardHelp() {
  const rows = KEYS.map(([keys, words]) =>
    h("div", {}, h("dt", {}, keys.split("  ").map((key) => h("kbd", {}, key))), h("dd", {}, words)),
  );
  return infoDialog(t("Keyboard shortcuts"), h("dl.keys", {}, rows));
}
