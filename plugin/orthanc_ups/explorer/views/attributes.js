// SPDX-License-Identifier: AGPL-3.0-or-later
// All attributes in readable form, optionally with tags and VRs.

import { h } from "../dom.js";
import { fully, when } from "../format.js";
import { t, translated } from "../languages.js";
import { card } from "../parts/words.js";

const TAGS_KEY = "ups.tags";

const tagText = (tag) => `(${tag.slice(0, 4)},${tag.slice(4)})`;

function valueOf(node) {
  if (node.items) return itemsOf(node.items);
  if (!node.values.length) return h("span.faint", {}, t("empty"));
  const times = node.times || [];
  return node.values.map((value, at) => h("span.value", { title: times[at] ? fully(times[at]) : null }, times[at] ? when(times[at], { seconds: true }) : value));
}

function itemsOf(items) {
  if (!items.length) return h("span.faint", {}, t("none"));
  if (items.every((item) => item.code)) return items.map((item) => codeOf(item.code));
  return h("ol.items", {}, items.map((item) => h("li", {}, item.code ? codeOf(item.code) : nodesOf(item.nodes))));
}

function codeOf(code) {
  return h("span.value", {}, code.meaning, h("span.faint", {}, ` ${[code.value, code.scheme].filter(Boolean).join(", ")}`));
}

export function nodesOf(nodes) {
  return h(
    "dl.nodes",
    {},
    nodes.map((node) =>
      h(
        "div",
        { class: node.items && !node.items.every((item) => item.code) ? "nested" : "" },
        h("dt", {}, node.name, h("span.tag", {}, ` ${tagText(node.tag)} ${node.vr} ${node.keyword}`)),
        h("dd", {}, valueOf(node)),
      ),
    ),
  );
}

function isEmpty(node) {
  return node.items ? node.items.length === 0 : node.values.length === 0;
}

export function attributesCard(groups, holder) {
  const opened = new Set([...holder.querySelectorAll("details[open]")].map((details) => details.dataset.group));
  const content = h("div.attributes", { class: localStorage.getItem(TAGS_KEY) ? "with-tags" : "" });
  for (const group of groups) {
    const filled = group.attributes.filter((node) => !isEmpty(node));
    const empty = group.attributes.filter(isEmpty).map((node) => node.name);
    const rest = empty.length ? h("p.faint.small", {}, t("Empty: {names}", { names: empty.join(", ") })) : null;
    const summary = h("summary", {}, translated(group.name), h("span.number", {}, String(filled.length)));
    content.append(h("details", { open: opened.has(group.name), dataset: { group: group.name } }, summary, nodesOf(filled), rest));
  }
  const box = h("input", { type: "checkbox", checked: Boolean(localStorage.getItem(TAGS_KEY)) });
  box.addEventListener("change", () => {
    if (box.checked) localStorage.setItem(TAGS_KEY, "yes");
    else localStorage.removeItem(TAGS_KEY);
    content.classList.toggle("with-tags", box.checked);
  });
  const all = h("button.quiet.small", { type: "button" }, t("Expand all"));
  all.addEventListener("click", () => content.querySelectorAll("details").forEach((details) => (details.open = true)));
  return card(t("All attributes"), content, { tools: [h("label.check", {}, box, t("Tags")), all] });
}
