// What its operator should know, in the node's own words.

import { byId, h, keyed, s, say } from "./dom.js";

const NAMES = { notice: "Notice", warning: "Warning", critical: "Critical" };
// Told apart by shape as well: a circle, a triangle, an octagon.
const SHAPES = {
  notice: "M10 2a8 8 0 1 0 0 16a8 8 0 1 0 0-16Z",
  warning: "M10 2 19 18H1Z",
  critical: "M6.5 2h7L18 6.5v7L13.5 18h-7L2 13.5v-7Z",
};

export function showWarnings(store) {
  let said = new Set();
  store.subscribe((_, changed) => {
    if (!changed.has("status") || store.status === null) return;
    const { warnings } = store.status;
    byId("warnings").hidden = !warnings.length;
    keyed(byId("warning-list"), warnings, (each) => each.code, makeWarning);
    const fresh = warnings.filter(({ code }) => !said.has(code));
    if (fresh.length) say(byId("announce"), fresh.map((each) => each.text).join(" "));
    said = new Set(warnings.map(({ code }) => code));
  });
}

function makeWarning() {
  const name = h("b");
  const text = h("span");
  const hint = h("p", { class: "hint" });
  const path = s("path");
  const mark = s("svg", { viewBox: "0 0 20 20", class: "mark", "aria-hidden": "true" }, path,
    s("path", { d: "M10 7v5M10 14.4v.2", class: "bang" }));
  const element = h("li", {}, mark, h("div", {}, h("p", {}, name, " ", text), hint));
  return {
    element,
    update: (warning) => {
      element.className = Object.hasOwn(NAMES, warning.severity) ? warning.severity : "notice";
      element.dataset.code = warning.code;
      path.setAttribute("d", SHAPES[element.className]);
      say(name, NAMES[element.className]);
      say(text, warning.text);
      say(hint, warning.hint);
    },
  };
}
