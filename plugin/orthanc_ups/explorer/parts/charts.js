// SPDX-License-Identifier: AGPL-3.0-or-later
// Small charts as SVG, each with a text alternative.

import { h, svg } from "../dom.js";
import { when } from "../format.js";
import { count, t } from "../languages.js";

const SPARK = { width: 120, height: 22 };

// Bars without axes, the latest on the right.
export function sparkline(values, title, { wide = false } = {}) {
  if (!values.length) return h("span.faint", {}, "–");
  const width = wide ? 240 : SPARK.width;
  const highest = Math.max(...values, 1);
  const step = width / values.length;
  const total = values.reduce((sum, value) => sum + value, 0);
  const bars = values.map((value, at) => {
    const height = value ? Math.max(1.5, (value / highest) * SPARK.height) : 0.8;
    return svg("rect", { class: value ? "some" : "none", x: at * step, y: SPARK.height - height, width: Math.max(0.8, step - 0.6), height });
  });
  const words = t("{title}: {total} in total, peak {peak}", { title, total: count(total), peak: count(highest) });
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${SPARK.height}`, width, height: SPARK.height, role: "img", "aria-label": words }, svg("title", {}, words), bars);
}

const BOX = { width: 520, height: 132, left: 50, right: 6, top: 8, bottom: 20 };
const inner = { width: BOX.width - BOX.left - BOX.right, height: BOX.height - BOX.top - BOX.bottom };

// The next 2, 4, 6, 8 or 10 times a power of ten, so that its half is a round number too.
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [2, 4, 6, 8, 10].map((factor) => factor * power).find((factor) => factor >= value * 0.999);
}

function axes(top, show, { minutes, step }, points) {
  const lines = [0, 0.5, 1].map((share) => {
    const y = BOX.top + inner.height * (1 - share);
    return [
      svg("line", { class: share ? "grid" : "axis", x1: BOX.left, x2: BOX.width - BOX.right, y1: y, y2: y }),
      svg("text", { class: "scale", x: BOX.left - 6, y: y + 3.5, "text-anchor": "end" }, show(top * share)),
    ];
  });
  const labels = [0, 1 / 3, 2 / 3, 1].map((share) => {
    const back = (1 - share) * minutes;
    const words = share === 1 ? t("now") : when(new Date(Date.now() - back * 60_000).toISOString()).replace(`${t("yesterday")} `, "");
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    return svg("text", { class: "scale", x: BOX.left + inner.width * share, y: BOX.height - 5, "text-anchor": anchor }, words);
  });
  return [lines, labels, tooltips(points, minutes, step)];
}

// Invisible columns whose tooltips show the numbers.
function tooltips(points, minutes, step) {
  const wide = inner.width / points.length;
  return points.map((words, at) => {
    const from = new Date(Date.now() - (points.length - at) * step * 60_000).toISOString();
    return svg("rect", { class: "hit", x: BOX.left + at * wide, y: BOX.top, width: wide, height: inner.height }, svg("title", {}, `${when(from)}: ${words}`));
  });
}

/* `series`: [{name, values, kind: "one" | "two" | "three"}], lines over the same period.
   `span`: {minutes, step}. `show` writes a number of the scale. A value of null is a gap. */
export function lineChart(title, series, span, show = count) {
  const top = roundedUp(Math.max(...series.flatMap((line) => line.values.map((value) => value || 0)), 0) || 1);
  const points = series[0].values.map((_, at) => series.map((line) => `${line.name} ${line.values[at] === null ? "–" : show(line.values[at])}`).join(", "));
  const lines = series.map((line) => curves(line, top));
  const words = `${title}: ${series.map((line) => t("{name}, latest {value}", { name: line.name, value: show(latest(line.values)) })).join("; ")}`;
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": words }, lines, axes(top, show, span, points));
  const legend = h("ul.legend", {}, series.map((line) => h("li", { class: line.kind }, h("i", {}), line.name)));
  return h("figure", {}, h("figcaption", {}, h("b", {}, title), legend), picture);
}

const latest = (values) => [...values].reverse().find((value) => value !== null) || 0;

function curves(line, top) {
  const step = inner.width / line.values.length;
  const pointOf = (value, at) => [BOX.left + (at + 0.5) * step, BOX.top + inner.height * (1 - Math.min(value / top, 1))];
  const runs = [[]];
  line.values.forEach((value, at) => {
    if (value === null) runs.push([]);
    else runs[runs.length - 1].push(pointOf(value, at));
  });
  return runs.filter((run) => run.length).map((run) => {
    if (run.length === 1) return svg("circle", { class: `dot ${line.kind}`, cx: run[0][0], cy: run[0][1], r: 1.8 });
    return svg("path", { class: `line ${line.kind}`, d: `M${run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}` });
  });
}

// A bar divided into the parts of a whole.
export function shares(parts, total) {
  const bar = h("span.shares", { "aria-hidden": "true" });
  for (const [kind, number] of parts) {
    if (!number) continue;
    const piece = h("span", { class: kind });
    piece.style.flexGrow = String(number / total);
    bar.append(piece);
  }
  return bar;
}
