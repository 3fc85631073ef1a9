// What the messages of each type weigh, in and out.

import { byId, figure, h, keyed, s, setFigure } from "./dom.js";
import { bytes, count } from "./format.js";

const WIDTH = 120;

export function showTraffic(store) {
  const table = byId("traffic");
  const swatch = (kind) => s("svg", { class: "swatch", viewBox: "0 0 18 8", "aria-hidden": "true" },
    s("rect", { class: kind, y: 2, width: 18, height: kind === "in" ? 5 : 3, rx: 1.5 }));
  byId("traffic-legend").append(h("li", {}, swatch("in"), " received, above"),
    h("li", {}, swatch("out"), " sent, below"));
  store.subscribe((_, changed) => {
    if (!changed.has("traffic") || store.traffic === null) return;
    const weight = (type) => type.bytes_received + type.bytes_sent;
    const used = store.traffic.filter((type) => type.messages_received + type.messages_sent > 0);
    used.sort((a, b) => weight(b) - weight(a) || (a.type < b.type ? -1 : 1));
    const most = Math.max(1, ...used.flatMap((type) => [type.bytes_received, type.bytes_sent]));
    table.hidden = byId("traffic-legend").hidden = !used.length;
    byId("traffic-empty").hidden = used.length > 0;
    keyed(table.tBodies[0], used.map((type) => ({ type, most })), ({ type }) => type.type, makeRow);
  });
}

function makeRow({ type }) {
  const bars = ["in", "out"].map((kind, index) =>
    s("rect", { class: kind, y: index * 7, height: index ? 3 : 5 }));
  const values = ["bytes_received", "messages_received", "bytes_sent", "messages_sent"].map(
    (field) => [field, figure(field)],
  );
  const cell = (label, name, child) => h("td", { "data-label": label, class: name }, child);
  const [received, messagesIn, sent, messagesOut] = values.map(([, element]) => element);
  const element = h("tr", { "data-type": type.type },
    h("th", { scope: "row", class: "mono" }, type.type),
    h("td", { class: "shares" }, s("svg", { viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none",
      "aria-hidden": "true" },
      ...bars)),
    cell("Received", "num", received), cell("Messages in", "num", messagesIn),
    cell("Sent", "num", sent), cell("Messages out", "num", messagesOut));
  return {
    element,
    update: ({ type: now, most }) => {
      for (const [index, size] of [now.bytes_received, now.bytes_sent].entries()) {
        bars[index].setAttribute("width", size ? Math.max(1, (WIDTH * size) / most) : 0);
      }
      for (const [field, value] of values) {
        setFigure(value, now[field], field.startsWith("bytes") ? bytes(now[field]) : count(now[field]));
      }
    },
  };
}
