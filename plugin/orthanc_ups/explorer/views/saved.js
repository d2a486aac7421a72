// SPDX-License-Identifier: AGPL-3.0-or-later
// Named views of the worklist: the built-in ones, and those that the user saved in this browser.

import { h, replace } from "../dom.js";
import { t } from "../languages.js";
import { field, infoDialog } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { copyButton } from "../parts/words.js";
import { link } from "../router.js";

const KEY = "ups.views";
const FIRST_KEY = "ups.first-view";
const OPEN = "SCHEDULED,IN PROGRESS";

const BUILT_IN = [
  [t("Open workitems, most urgent first"), { ProcedureStepState: OPEN, order: "urgency" }],
  [t("Late or stuck"), { late: "yes", order: "start" }],
  [t("In progress, longest first"), { ProcedureStepState: "IN PROGRESS", order: "claimed" }],
  [t("Ended today"), { ended: "today..today+1d", order: "-ended" }],
  [t("All workitems, newest first"), { order: "-created" }],
];

const saved = () => JSON.parse(localStorage.getItem(KEY) || "[]");

// The query of a user who opens the worklist without one.
export function firstView() {
  const name = localStorage.getItem(FIRST_KEY);
  const chosen = saved().find((view) => view.name === name);
  return chosen ? chosen.query : BUILT_IN[0][1];
}

function store(views) {
  localStorage.setItem(KEY, JSON.stringify(views));
}

export function showViews(query) {
  const list = h("ul.views", {});
  const savedList = h("ul.views", {});
  const entry = (name, query, ...more) => h("li", {}, h("a", { href: link("worklist", [], query), onclick: (event) => event.target.closest("dialog").dispatchEvent(new Event("cancel", { cancelable: true })) }, name), h("span.spring", {}), more);
  replace(list, BUILT_IN.map(([name, query]) => entry(name, query)));
  function show() {
    const first = localStorage.getItem(FIRST_KEY);
    const lines = saved().map(({ name, query }) =>
      entry(
        name,
        query,
        h("button.quiet.small", { type: "button", "aria-pressed": String(name === first), title: t("Use as default view"), "aria-label": t("Use {view} as default view", { view: name }), onclick: () => begin(name) }, icon(name === first ? "check" : "play")),
        copyButton(new URL(link("worklist", [], query), document.baseURI).href, t("Copy the link")),
        h("button.quiet.small", { type: "button", "aria-label": t("Delete {view}", { view: name }), onclick: () => drop(name) }, icon("trash")),
      ),
    );
    replace(savedList, lines.length ? lines : h("li.faint", {}, t("None yet.")));
  }
  function begin(name) {
    if (localStorage.getItem(FIRST_KEY) === name) localStorage.removeItem(FIRST_KEY);
    else localStorage.setItem(FIRST_KEY, name);
    show();
  }
  function drop(name) {
    store(saved().filter((view) => view.name !== name));
    show();
  }
  const name = h("input", { type: "text", maxlength: 60, placeholder: t("My station") });
  const save = h("button", { type: "button", onclick: () => {
    if (!name.value.trim()) return name.focus();
    const { page, ...shownQuery } = query;
    store([...saved().filter((view) => view.name !== name.value.trim()), { name: name.value.trim(), query: shownQuery }]);
    name.value = "";
    return show();
  } }, t("Save"));
  show();
  return infoDialog(t("Views"), [
    list,
    h("h3", {}, t("Saved in this browser")),
    savedList,
    field(t("Save the current view as"), h("div.line", {}, name, save)),
  ]);
}
