// The three charts, drawn anew when their samples change.

import { Chart } from "./chart.js";
import { byId } from "./dom.js";
import { compact, digits, flow } from "./format.js";
import { Recorder } from "./history.js";

const AT_LEAST_EVERY = 5000; // milliseconds
const SPACE = "\u00a0";
const perSecond = (n) => `${digits(n)}/s`;
const axis = (n) => `${compact(n).replace(SPACE, "")}/s`;

export function showCharts(store) {
  const recorder = new Recorder(store); // first: it must have noted what is then drawn
  const parent = byId("charts");
  const charts = [
    new Chart(parent, {
      title: "Blocks",
      history: recorder.blocks,
      lines: [{ name: "blocks", kind: "first" }],
      unit: perSecond,
      axis,
      least: 0.4,
    }),
    new Chart(parent, {
      title: "Transactions",
      history: recorder.transactions,
      lines: [{ name: "transactions", kind: "second" }],
      unit: perSecond,
      axis,
      least: 4,
    }),
    new Chart(parent, {
      title: "Network",
      history: recorder.bytes,
      lines: [
        { name: "in", kind: "first" },
        { name: "out", kind: "second dashed" },
      ],
      unit: flow,
      least: 4000,
    }),
  ];
  const draw = () => {
    for (const chart of charts) chart.draw(performance.now() / 1000);
  };
  const names = ["reset", "sync", "traffic"];
  store.subscribe((_, changed) => names.some((name) => changed.has(name)) && draw());
  draw();
  setInterval(draw, AT_LEAST_EVERY); // where nothing is answered, time goes on
}
