// SPDX-License-Identifier: AGPL-3.0-or-later
// Subscribing an AE to everything, or to what fits a filter.

import { part, post } from "../api.js";
import { h, replace } from "../dom.js";
import { dialog, field, notice, select } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { aeInput } from "./watchers.js";

const SCOPES = [
  ["global", "Everything: all workitems, now and to come"],
  ["filtered", "Filtered: only workitems that fit"],
];

// Lines of attribute and value; all of them must hold.
function filterEditor(system) {
  const lines = [];
  const place = h("div.list");
  function add() {
    const names = h("select", { "aria-label": "Attribute" }, system.filters.map((one) => h("option", { value: one.name }, one.label)));
    const value = h("input", { type: "text", "aria-label": "Value", placeholder: "Value" });
    const line = { names, value };
    const drop = () => {
      lines.splice(lines.indexOf(line), 1);
      line.element.remove();
    };
    line.element = h("div.line", {}, names, value, h("button.quiet.small", { type: "button", "aria-label": "Remove", onclick: drop }, icon("close")));
    names.value = lines.length ? "ScheduledWorkitemCodeSequence.CodeValue" : "ScheduledStationNameCodeSequence.CodeValue";
    lines.push(line);
    place.append(line.element);
  }
  add();
  return {
    element: h("div", {}, place, h("button.small", { type: "button", onclick: add }, icon("plus"), "Condition"), h("p.help", {}, "* and ? are wildcards in texts; dates may be ranges such as 20260101-20260131.")),
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
  const place = h("div", {});
  scope.addEventListener("change", () => replace(place, scope.value === "filtered" ? filter.element : null));
  return dialog({
    title: ae ? `Subscribe ${ae}` : "New subscription",
    wide: true,
    content: [
      field("AE title", chosen.input, { help: "It must be in DicomModalities, or use UPS-RS." }),
      chosen.list,
      field("To what", scope),
      place,
      h("label.check", {}, lock, "With Deletion Lock: final workitems are kept until the AE lets them go"),
    ],
    confirm: "Subscribe",
    action: async () => {
      const content = { scope: scope.value, lock: lock.checked, ...(scope.value === "filtered" ? { filter: filter.value() } : {}) };
      const made = await post(`subscribers/${part(chosen.input.value.trim())}/subscribe`, content);
      notice(made.warning || "Subscribed");
      return made;
    },
  });
}
