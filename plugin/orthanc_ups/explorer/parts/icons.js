// SPDX-License-Identifier: AGPL-3.0-or-later
// Icons on a grid of 16, in the colour of the surrounding text.

import { svg } from "../dom.js";

const STROKES = {
  search: ["M7 12a5 5 0 1 0 0-10 5 5 0 0 0 0 10z", "M11 11l3.5 3.5"],
  plus: ["M8 3v10", "M3 8h10"],
  filter: ["M2 4h12", "M4.5 8h7", "M6.5 12h3"],
  download: ["M8 2v8", "M4.5 7L8 10.5 11.5 7", "M3 13.5h10"],
  upload: ["M8 10.5V3", "M4.5 6.5L8 3l3.5 3.5", "M3 13.5h10"],
  close: ["M4 4l8 8", "M12 4l-8 8"],
  back: ["M9.5 3L4.5 8l5 5"],
  next: ["M6.5 3l5 5-5 5"],
  down: ["M3.5 6l4.5 4.5L12.5 6"],
  up: ["M3.5 10L8 5.5l4.5 4.5"],
  check: ["M3 8.5l3.2 3.2L13 5"],
  copy: ["M6 6h7v7H6z", "M10 3.5V3H3v7h.5"],
  refresh: ["M13 8a5 5 0 1 1-1.6-3.7", "M13.2 2v3h-3"],
  outside: ["M6 3H3v10h10v-3", "M9 3h4v4", "M13 3L7.5 8.5"],
  alert: ["M8 2l6.5 11.5h-13z", "M8 6.5v3.2", "M8 11.6v.2"],
  lock: ["M3.5 7.5h9v6h-9z", "M5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5"],
  clock: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "M8 5v3.2l2 1.3"],
  edit: ["M3 13l.6-2.8L10.4 3.4l2.2 2.2-6.8 6.8z"],
  bell: ["M4 11.5V7.5a4 4 0 0 1 8 0v4l1 1H3z", "M7 14.2h2"],
  help: ["M6 6a2 2 0 1 1 2.7 1.9c-.5.2-.7.6-.7 1.1v.5", "M8 11.8v.2"],
  pause: ["M5.5 3.5v9", "M10.5 3.5v9"],
  play: ["M5 3.5l7 4.5-7 4.5z"],
  send: ["M2 8l12-5-5 11-2-4.5z"],
  columns: ["M2.5 3h11v10h-11z", "M6.2 3v10", "M9.9 3v10"],
  star: ["M8 2l1.8 3.9 4.2.5-3.1 2.9.8 4.2L8 11.4l-3.7 2.1.8-4.2L2 6.4l4.2-.5z"],
  user: ["M8 8a2.8 2.8 0 1 0 0-5.6A2.8 2.8 0 0 0 8 8z", "M2.8 14c.4-3 2.4-4.5 5.2-4.5s4.8 1.5 5.2 4.5"],
  trash: ["M3 4.5h10", "M6 4.5v-2h4v2", "M4.5 4.5l.6 9h5.8l.6-9"],
};

export function icon(name, title) {
  const paths = STROKES[name].map((line) => svg("path", { d: line }));
  return drawing(title, svg("g", { class: "stroke" }, paths));
}

function drawing(title, ...content) {
  const hidden = title ? { role: "img" } : { "aria-hidden": "true" };
  const named = title ? [svg("title", {}, title)] : [];
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", ...hidden }, ...named, ...content);
}

const circle = { cx: 8, cy: 8, r: 5.5 };
const STATES = {
  SCHEDULED: () => [svg("circle", { ...circle, class: "stroke" })],
  "IN PROGRESS": () => [svg("circle", { ...circle, class: "stroke" }), svg("path", { d: "M8 2.5a5.5 5.5 0 0 1 0 11z", class: "fill" })],
  COMPLETED: () => [svg("circle", { ...circle, class: "fill" }), svg("path", { d: "M5.4 8.2l1.8 1.8 3.4-3.6", class: "cut" })],
  CANCELED: () => [svg("circle", { ...circle, class: "stroke" }), svg("path", { d: "M4.4 11.6l7.2-7.2", class: "stroke" })],
};
export const stateIcon = (state) => drawing(null, (STATES[state] || STATES.SCHEDULED)());

const HEALTH = {
  good: () => [svg("circle", { ...circle, class: "fill" }), svg("path", { d: "M5.4 8.2l1.8 1.8 3.4-3.6", class: "cut" })],
  idle: () => [svg("circle", { ...circle, class: "stroke" })],
  trouble: () => [svg("path", { d: "M8 2l6.5 11.5h-13z", class: "fill" }), svg("path", { d: "M8 6.5v3.2M8 11.6v.2", class: "cut" })],
  refusing: () => [svg("circle", { ...circle, class: "fill" }), svg("path", { d: "M5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4", class: "cut" })],
  unreachable: () => [svg("circle", { ...circle, class: "fill" }), svg("path", { d: "M5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4", class: "cut" })],
};
export const healthIcon = (health) => drawing(null, (HEALTH[health] || HEALTH.idle)());

const PRIORITIES = {
  HIGH: () => [svg("path", { d: "M8 2.8l5 5.4H3z", class: "fill" }), svg("path", { d: "M8 8.2v5", class: "stroke" })],
  MEDIUM: () => [svg("path", { d: "M3.5 8h9", class: "stroke" })],
  LOW: () => [svg("path", { d: "M8 3v9M4.2 8.6L8 12.6l3.8-4", class: "stroke" })],
};
export const priorityIcon = (priority) => drawing(null, (PRIORITIES[priority] || PRIORITIES.MEDIUM)());

export function mark() {
  const lines = ["M3.2 4.8l1 1L6 4", "M8.2 5h4.6", "M3.2 8.4l1 1L6 7.6", "M8.2 8.6h4.6", "M8.2 12.2h3"];
  return svg(
    "svg",
    { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("rect", { width: 16, height: 16, rx: 3.6 }),
    svg("g", {}, lines.map((line) => svg("path", { d: line })), svg("circle", { cx: 4.5, cy: 12.1, r: 0.9 })),
  );
}
