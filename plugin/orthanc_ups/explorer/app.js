// SPDX-License-Identifier: AGPL-3.0-or-later
// The frame of the page: navigation, the current view, live updates and global keys.

import { ORTHANC } from "./api.js";
import { h, isTyping, replace } from "./dom.js";
import { t } from "./languages.js";
import { Live } from "./live.js";
import { errorBox, keyboardHelp } from "./parts/dialog.js";
import { icon, mark } from "./parts/icons.js";
import { empty } from "./parts/words.js";
import { mayAct, mayAdminister, why } from "./rights.js";
import { address, go, link, markVisited } from "./router.js";
import { leavingIsPrevented } from "./unsaved.js";
import { administrationView } from "./views/administration.js";
import { manyView } from "./views/many.js";
import { editView, newView } from "./views/new.js";
import { overviewView } from "./views/overview.js";
import { subscriberView } from "./views/subscriber.js";
import { subscribersView } from "./views/subscribers.js";
import { showUser } from "./views/user.js";
import { workitemView } from "./views/workitem.js";
import { worklistView } from "./views/worklist.js";

const TABS = [
  ["worklist", t("Worklist")],
  ["subscribers", t("Subscribers")],
  ["overview", t("Overview")],
];
const ADMINISTRATION = ["administration", t("Administration")];
const VIEWS = {
  worklist: worklistView,
  workitem: (context) => (context.parts[1] === "edit" ? editView(context) : workitemView(context)),
  new: newView,
  many: manyView,
  subscribers: subscribersView,
  subscriber: subscriberView,
  overview: overviewView,
  administration: administrationView,
};
const PARENT = { workitem: "worklist", new: "worklist", many: "worklist", subscriber: "subscribers" };

const main = document.getElementById("main");
let system = null;
let currentView = null;
let serial = 0;
let lastList = "#/worklist";

// --- the frame ---

const liveWords = h("span", {}, t("Connecting"));
const liveSign = h("span.live", { role: "status" }, h("span.dot", {}), liveWords);

function frame() {
  const tabs = mayAdminister(system) ? [...TABS, ADMINISTRATION] : TABS;
  const links = tabs.map(([view, words]) => h("a", { href: link(view), dataset: { view } }, words));
  replace(
    document.getElementById("top"),
    h("a.brand", { href: "#/worklist", title: t("{name}, AE title {ae}", { name: system.name, ae: system.ae }) }, mark(), h("b", {}, t("UPS worklist")), h("span.faint", {}, system.ae)),
    h("nav", { "aria-label": t("Main") }, links),
    h("span.spring", {}),
    liveSign,
    mayAct(system) && h("a.button.primary", { href: "#/new", title: t("New workitem (n)"), "aria-label": t("New workitem") }, icon("plus"), h("span.roomy-phone", {}, t("New workitem"))),
    h("button.quiet", { type: "button", title: t("Keyboard shortcuts (?)"), "aria-label": t("Keyboard shortcuts"), onclick: keyboardHelp }, icon("help")),
    h("button.quiet.user", { type: "button", title: t("User and language"), onclick: () => showUser(system) }, icon("user"), h("span.roomy", {}, system.user || t("anonymous"))),
    h("a.quiet.button", { href: new URL("app/explorer.html", ORTHANC).href, title: t("Orthanc Explorer") }, icon("outside"), h("span.roomy", {}, t("Orthanc"))),
  );
}

function markTab(view) {
  const current = PARENT[view] || view;
  for (const tab of document.querySelectorAll("#top nav a")) {
    if (tab.dataset.view === current) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

function showState(reachable) {
  liveSign.classList.toggle("off", !reachable);
  liveWords.textContent = reachable ? t("Live") : t("No connection");
}

// --- views ---

/* A view is a function of its context that returns {element, title, changed(news)?, left()?} or a promise of it. */
async function show(event) {
  const { view, parts, query } = address();
  if (event && event.oldURL && (await leavingIsPrevented(currentView, event))) return;
  markVisited();
  const current = (serial += 1);
  if (view === "worklist") lastList = location.hash || "#/worklist";
  if (currentView && currentView.view === view && currentView.moved && currentView.moved(parts, query)) return;
  leave();
  markTab(view);
  try {
    const build = VIEWS[view];
    if (["new", "many"].includes(view) && !mayAct(system)) throw new Error(why(false));
    const opened = build ? await build({ view, parts, query, system, lastList: () => lastList }) : missing();
    if (current !== serial) return opened.left && opened.left();
    currentView = { ...opened, view };
    enter(opened);
  } catch (error) {
    if (current === serial) fail(error);
  }
}

function leave() {
  for (const box of document.querySelectorAll("dialog[open]")) box.dispatchEvent(new Event("cancel", { cancelable: true }));
  if (currentView && currentView.left) currentView.left();
  currentView = null;
}

function enter(opened) {
  replace(main, opened.element);
  main.scrollTop = 0;
  document.title = `${opened.title} – ${t("UPS worklist")}`;
  if (opened.entered) opened.entered();
}

function missing() {
  return { element: empty(t("This page does not exist."), h("a", { href: "#/worklist" }, t("Go to the worklist"))), title: t("Page not found") };
}

function fail(error) {
  replace(main, h("div.page", {}, errorBox(error), system && h("p", {}, h("a", { href: lastList }, t("Back to the worklist")))));
  document.title = t("UPS worklist");
}

// --- keys ---

const KEYS = {
  n: () => mayAct(system) && go("new"),
  "?": () => keyboardHelp(),
  1: () => (location.hash = lastList),
  2: () => go("subscribers"),
  3: () => go("overview"),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (isTyping(event)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (currentView && currentView.key && currentView.key(event)) return event.preventDefault();
  if (event.key === "Escape" && currentView && PARENT[currentView.view]) {
    location.hash = PARENT[currentView.view] === "worklist" ? lastList : link(PARENT[currentView.view]);
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
}

export async function begin(answer) {
  if (answer.error) return fail(answer.error);
  system = answer.system;
  frame();
  window.addEventListener("hashchange", show);
  window.addEventListener("beforeunload", (event) => currentView && currentView.unsaved && currentView.unsaved() && event.preventDefault());
  document.addEventListener("keydown", onKey);
  new Live((news) => currentView && currentView.changed && currentView.changed(news), showState).start();
  return show();
}
