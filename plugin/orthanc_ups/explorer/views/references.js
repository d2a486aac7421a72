// SPDX-License-Identifier: AGPL-3.0-or-later
// Inputs and outputs, with links into the viewers of Orthanc.

import { ORTHANC, get } from "../api.js";
import { h, replace } from "../dom.js";
import { n, t } from "../languages.js";
import { icon } from "../parts/icons.js";
import { card, copyButton } from "../parts/words.js";

const SHOWN = 12;

function linksOf(reference) {
  const container = h("span.links", {});
  get("links", { study: reference.study, series: reference.series }).then(
    (answer) => {
      const links = answer.links.map((viewer) =>
        h("a.quiet.button.small", { href: new URL(viewer.url, ORTHANC).href, target: "_blank", rel: "noopener" }, viewer.name, icon("outside")),
      );
      replace(container, links.length ? links : h("span.faint", {}, t("not in this Orthanc")));
    },
    () => replace(container, h("span.faint", {}, t("cannot be looked up"))),
  );
  return container;
}

function line(reference) {
  const what = reference.series ? t("Series") : reference.study ? t("Study") : reference.type || t("Object");
  const uid = reference.series || reference.study || reference.instance;
  const summary = [n(reference.instances, "{n} instance|{n} instances"), reference.sources.length && t("from {sources}", { sources: reference.sources.join(", ") })];
  return h(
    "li",
    {},
    h("div", {}, h("b", {}, what), h("span.faint", {}, ` ${summary.filter(Boolean).join(" ")}`), h("div.uid", {}, h("code", {}, uid), uid && copyButton(uid, t("Copy the UID")))),
    reference.study ? linksOf(reference) : null,
  );
}

function list(title, references) {
  const more = references.length > SHOWN ? h("p.faint", {}, n(references.length - SHOWN, "and {n} more, see all attributes|and {n} more, see all attributes")) : null;
  return h("div", {}, h("h3", {}, title), h("ul.references", {}, references.slice(0, SHOWN).map(line)), more);
}

export function referencesCard(item) {
  if (!item.inputs.length && !item.outputs.length) return null;
  return card(t("Inputs and outputs"), [
    item.inputs.length ? list(t("Inputs"), item.inputs) : null,
    item.outputs.length ? list(t("Outputs"), item.outputs) : null,
  ]);
}
