// SPDX-License-Identifier: AGPL-3.0-or-later
// Creates elements. Text is inserted only as text nodes, so data can never become markup.

const SVG = "http://www.w3.org/2000/svg";

function append(parent, child) {
  if (Array.isArray(child)) child.forEach((part) => append(parent, part));
  else if (child instanceof Node) parent.append(child);
  else if (child !== null && child !== undefined && child !== false) parent.append(String(child));
}

function assign(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "dataset") Object.assign(element.dataset, value);
  else if (name === "value" || name === "checked" || name === "indeterminate") element[name] = value;
  else element.setAttribute(name, value === true ? "" : String(value));
}

// h("button.primary", {type: "button", onclick}, "Save"): `spec` is a tag with classes.
export function h(spec, properties = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") element.className = [element.className, value].filter(Boolean).join(" ");
    else if (name === "value") continue;
    else assign(element, name, value);
  }
  append(element, children);
  if (properties && properties.value !== undefined) assign(element, "value", properties.value);
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

export function replace(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
  return parent;
}

// Whether a key press is typed into a field.
export function isTyping(event) {
  const where = event.target;
  return where instanceof HTMLElement && (where.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(where.tagName));
}

export function debounced(wait, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), wait);
  };
}

let serial = 0;
export const newId = (stem) => `${stem}-${(serial += 1)}`;
