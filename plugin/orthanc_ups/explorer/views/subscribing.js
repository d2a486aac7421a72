// SPDX-License-Identifier: AGPL-3.0-or-later
// The dialog that subscribes an AE to all workitems, or to those that match a filter.

import { part, post } from "../api.js";
import { h, replace } from "../dom.js";
import { t, translated } from "../languages.js";
import { dialog, field, notice, select } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { remark } from "../parts/refusals.js";
import { aeInput } from "./watchers.js";

const SCOPES = [
  ["global", t("All workitems, present and future")],
  ["filtered", t("Only workitems that match a filter")],
];

// Lines of attribute and value; a workitem must match all of them.
function filterEditor(system) {
  const lines = [];
  const container = h("div.list");
  function add() {
    const names = h("select", { "aria-label": t("Attribute") }, system.filters.map((filterKey) => h("option", { value: filterKey.name }, translated(filterKey.label))));
    const value = h("input", { type: "text", "aria-label": t("Value"), placeholder: t("Value") });
    const line = { names, value };
    const drop = () => {
      lines.splice(lines.indexOf(line), 1);
      line.element.remove();
    };
    line.element = h("div.line", {}, names, value, h("button.quiet.small", { type: "button", "aria-label": t("Remove"), onclick: drop }, icon("close")));
    names.value = lines.length ? "ScheduledWorkitemCodeSequence.CodeValue" : "ScheduledStationNameCodeSequence.CodeValue";
    lines.push(line);
    container.append(line.element);
  }
  add();
  return {
    element: h("div", {}, container, h("button.small", { type: "button", onclick: add }, icon("plus"), t("Condition")), h("p.help", {}, t("Text may contain the wildcards * and ?; dates may be ranges such as 20260101-20260131."))),
    value: () => Object.fromEntries(lines.map((line) => [line.names.value, line.value.value.trim()]).filter(([, value]) => value)),
  };
}

export function newSubscription(system, ae) {
  const chosen = aeInput(system);
  if (ae) {
    chosen.input.value = ae;
    chosen.input.readOnly = true;
  }
  const scope = select(SCOPES, "global");
  const lock = h("input", { type: "checkbox" });
  const filter = filterEditor(system);
  const container = h("div", {});
  scope.addEventListener("change", () => replace(container, scope.value === "filtered" ? filter.element : null));
  return dialog({
    title: ae ? t("Subscribe {ae}", { ae }) : t("New subscription"),
    broad: true,
    content: [
      field(t("AE title"), chosen.input, { help: t("The AE must be listed in DicomModalities or use UPS-RS.") }),
      chosen.list,
      field(t("Subscribe to"), scope),
      container,
      h("label.check", {}, lock, t("With Deletion Lock: final workitems are kept until the AE releases them")),
    ],
    confirm: t("Subscribe"),
    action: async () => {
      const content = { scope: scope.value, lock: lock.checked, ...(scope.value === "filtered" ? { filter: filter.value() } : {}) };
      const result = await post(`subscribers/${part(chosen.input.value.trim())}/subscribe`, content);
      notice(remark(result) || t("Subscribed"));
      return result;
    },
  });
}
