// Elements from words alone: text goes in as text nodes, so nothing that a peer says is markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An HTML element; children are elements or strings. */
export const h = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Set text only where it has changed: selections survive, and nothing is announced twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A figure: what is read, and beside it, for machines, the value that the node gave. */
export function figure(field, attributes = {}) {
  return h("data", { "data-field": field, ...attributes });
}

export function setFigure(element, value, text) {
  const raw = String(value ?? "");
  if (element.getAttribute("value") !== raw) element.setAttribute("value", raw);
  say(element, text);
}

const ROLES = { TH: "columnheader", TD: "cell", TR: "row", THEAD: "rowgroup", TBODY: "rowgroup" };

/** Say what is a row and what a cell: browsers forget it where a table is laid out otherwise. */
export function tableRoles(root) {
  for (const element of root.querySelectorAll("thead, tbody, tr, td, th")) {
    const role = element.scope === "row" ? "rowheader" : ROLES[element.tagName];
    if (!element.hasAttribute("role")) element.setAttribute("role", role);
  }
}

const rows = new WeakMap();

/**
 * Make the children of `parent` those of `items`, in order, one per key: `make(item)` gives
 * `{element, update}` once, `update(item)` is called each time. What stays is not touched, so it
 * keeps its focus.
 */
export function keyed(parent, items, key, make) {
  const known = rows.get(parent) ?? new Map();
  const wanted = new Map(items.map((item) => [key(item), item]));
  for (const [name, row] of known) {
    if (wanted.has(name)) continue;
    row.element.remove();
    known.delete(name);
  }
  let next = parent.firstElementChild;
  for (const [name, item] of wanted) {
    let row = known.get(name);
    if (row === undefined) {
      row = make(item);
      known.set(name, row);
      if (row.element.tagName === "TR") {
        row.element.setAttribute("role", "row");
        tableRoles(row.element);
      }
    }
    row.update(item);
    if (row.element === next) next = next.nextElementSibling;
    else parent.insertBefore(row.element, next);
  }
  rows.set(parent, known);
}

/** A small mark: a filled disc for what we dialled, a ring for who dialled us. */
export function directionMark(outbound) {
  return s(
    "svg",
    { class: `mark ${outbound ? "out" : "in"}`, viewBox: "0 0 12 12", "aria-hidden": "true" },
    outbound
      ? s("circle", { cx: 6, cy: 6, r: 4.5 })
      : s("rect", { x: 2, y: 2, width: 8, height: 8, transform: "rotate(45 6 6)" }),
  );
}
