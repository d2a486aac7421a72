// SPDX-License-Identifier: AGPL-3.0-or-later
// The dead letters of a subscriber, which can be sent again or deleted.

import { part, post } from "../api.js";
import { h } from "../dom.js";
import { count, n, t, translated } from "../languages.js";
import { dialog, failed, notice } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { card, time } from "../parts/words.js";
import { mayActFor } from "../rights.js";
import { link } from "../router.js";

export function letterCard(ae, { total, letters }, system, refresh) {
  const allowed = mayActFor(system, ae);
  const path = (action) => `subscribers/${part(ae)}/dead-letters/${action}`;

  async function resend(sequences) {
    try {
      const { resent } = await post(path("resend"), { sequences });
      notice(n(resent, "{n} dead letter is being sent again|{n} dead letters are being sent again"));
      refresh();
    } catch (error) {
      failed(error);
    }
  }

  async function drop() {
    const result = await dialog({
      title: n(total, "Delete {n} dead letter for {ae}?|Delete {n} dead letters for {ae}?", { ae }),
      content: h("p.caution", {}, t("{ae} will never receive them. This cannot be undone.", { ae })),
      confirm: t("Delete"),
      danger: true,
      action: () => post(path("drop")),
    });
    if (result) refresh();
  }

  const lines = letters.map((letter) =>
    h(
      "tr",
      {},
      h("td.number", {}, `#${letter.sequence}`),
      h("td", {}, letter.count > 1 ? `${translated(letter.name)} × ${count(letter.count)}` : translated(letter.name)),
      h("td", {}, h("a.clip", { href: link("workitem", [letter.uid]), title: letter.uid }, letter.uid)),
      h("td", {}, time(letter.at)),
      h("td.wraps", {}, letter.reason),
      h("td", {}, allowed && h("button.small", { type: "button", onclick: () => resend([letter.sequence]) }, icon("send"), t("Send again"))),
    ),
  );
  const head = [t("Number"), t("Event"), t("Workitem"), t("Time"), t("Reason"), ""].map((words) => h("th", { scope: "col" }, words));
  const more = total > letters.length ? h("p.faint", {}, n(total, "The oldest {shown} of {n} dead letter.|The oldest {shown} of {n} dead letters.", { shown: letters.length })) : null;
  const tools = allowed && [
    h("button.small", { type: "button", onclick: () => resend(null) }, icon("send"), t("Send all again")),
    h("button.small", { type: "button", onclick: drop }, icon("trash"), t("Delete all …")),
  ];
  const table = h("table.plain-rows", {}, h("caption.offscreen", {}, t("Dead letters")), h("thead", {}, h("tr", {}, head)), h("tbody", {}, lines));
  return card(t("Dead letters"), [h("div.table-box", {}, table), more], { tools });
}
