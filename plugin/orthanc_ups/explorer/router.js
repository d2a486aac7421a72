// SPDX-License-Identifier: AGPL-3.0-or-later
// The address behind "#" says what is shown: #/worklist?ProcedureStepState=SCHEDULED&page=2

const SEEN = { seen: true };

// The present entry of the browser's history was shown: whoever comes to it again went back or forward.
export function markSeen() {
  if (!history.state) history.replaceState(SEEN, "");
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

// Change what stands in the address by a step that Back undoes, without a new view.
export function enter(view, parts, query) {
  const target = link(view, parts, query);
  if (target !== location.hash) history.pushState(SEEN, "", target);
}

// Open another view in place of the present entry of the history, so that Back does not return to a form that was sent.
export function leaveFor(view, parts, query) {
  rewrite(view, parts, query);
  window.dispatchEvent(new Event("hashchange"));
}

// Change what stands in the address without another entry in the browser's history, and without a new view.
export function rewrite(view, parts, query) {
  history.replaceState(SEEN, "", link(view, parts, query));
}
