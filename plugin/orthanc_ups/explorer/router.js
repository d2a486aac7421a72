// SPDX-License-Identifier: AGPL-3.0-or-later
// The part of the address after "#" selects the view: #/worklist?ProcedureStepState=SCHEDULED&page=2

const VISITED = { visited: true };

// Marks the current history entry as visited; a user who arrives at a visited entry went back or forward.
export function markVisited() {
  if (!history.state) history.replaceState(VISITED, "");
}

export function address() {
  const [path, search = ""] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { view: parts[0] || "worklist", parts: parts.slice(1), query: Object.fromEntries(new URLSearchParams(search)) };
}

export function link(view, parts = [], query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = pairs.length ? `?${new URLSearchParams(pairs)}` : "";
  return `#/${[view, ...parts.map(encodeURIComponent)].join("/")}${search}`;
}

export function go(view, parts, query) {
  location.hash = link(view, parts, query);
}

// Change the address within the same view, as a step that Back undoes.
export function enter(view, parts, query) {
  const target = link(view, parts, query);
  if (target !== location.hash) history.pushState(VISITED, "", target);
}

// Open another view in place of the current history entry, so that Back does not return to a form that was sent.
export function leaveFor(view, parts, query) {
  rewrite(view, parts, query);
  window.dispatchEvent(new Event("hashchange"));
}

// Change the address within the same view, without a new history entry.
export function rewrite(view, parts, query) {
  history.replaceState(VISITED, "", link(view, parts, query));
}
