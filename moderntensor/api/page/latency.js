// Peers around this node, each as far away as its round trip: rings are powers of ten. Those that
// we dialled stand on the right, those that came on the left.

import { byId, directionMark, h, keyed, s, say } from "./dom.js";
import { roundTrip, several } from "./format.js";
import { highlight, onHighlight } from "./highlight.js";

const SIZE = 360;
const CENTRE = SIZE / 2;
const INNER = 30;
const OUTER = 150;
const UNKNOWN = 166; // beyond the rings: who has not been measured
const TILT = 14; // degrees kept free above and below, for the rings' labels

/** Whole powers of ten around all round trips, two apart at least. */
export function decades(latencies) {
  const logs = latencies.filter((each) => each > 0).map((each) => Math.log10(each));
  if (!logs.length) return [-3, -1];
  const low = Math.floor(Math.min(...logs));
  const high = Math.max(Math.ceil(Math.max(...logs)), low + 1);
  return high - low < 2 ? [low, low + 2] : [low, high];
}

/** Where each peer stands: evenly around its half, by its id, so that nobody moves without need. */
export function places(peers) {
  const [low, high] = decades(peers.map((peer) => peer.latency));
  const found = [];
  for (const outbound of [true, false]) {
    const half = peers.filter((peer) => peer.outbound === outbound);
    half.sort((a, b) => (a.node_id + a.address < b.node_id + b.address ? -1 : 1));
    for (const [index, peer] of half.entries()) {
      const share = (index + 0.5) / half.length;
      const degrees = TILT + share * (180 - 2 * TILT) - 90;
      const angle = ((outbound ? degrees : 180 - degrees) * Math.PI) / 180;
      const log = peer.latency ? (Math.log10(peer.latency) - low) / (high - low) : 0;
      const known = INNER + Math.max(0, Math.min(1, log)) * (OUTER - INNER);
      const radius = peer.latency === null ? UNKNOWN : known;
      found.push({
        peer,
        x: CENTRE + radius * Math.cos(angle),
        y: CENTRE + radius * Math.sin(angle),
      });
    }
  }
  return { low, high, found };
}

function summary(peers) {
  const known = peers.filter((peer) => peer.latency !== null);
  if (!peers.length) return "nobody to measure";
  if (!known.length) return `${several(peers.length, "peer")}, none measured yet`;
  const sorted = known.map((peer) => peer.latency).sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  if (sorted.length === 1) return roundTrip(median);
  return `${roundTrip(sorted[0])} to ${roundTrip(sorted.at(-1))}, half within ${roundTrip(median)}`;
}

export function showLatency(store) {
  const rings = s("g", { class: "rings" });
  const spokes = s("g", { class: "spokes" });
  const dots = s("g");
  const us = s("g", { class: "us" }, s("circle", { cx: CENTRE, cy: CENTRE, r: 11 }),
    s("circle", { cx: CENTRE, cy: CENTRE, r: 4, class: "core" }));
  const svg = s("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img" }, rings, spokes, us, dots);
  const named = h("p", { class: "soft named" });
  byId("latency").append(svg, named);
  byId("latency-legend").append(
    h("li", {}, directionMark(true), " dialled by us"),
    h("li", {}, directionMark(false), " came to us"),
  );

  const draw = () => {
    const peers = (store.peers ?? []).filter((peer) => peer.purpose !== "feeler");
    const { low, high, found } = places(peers);
    svg.classList.toggle("many", peers.length > 20);
    drawRings(rings, low, high);
    keyed(spokes, found, ({ peer }) => peer.address, makeSpoke);
    keyed(dots, found, ({ peer }) => peer.address, makeDot);
    say(byId("latency-summary"), summary(peers));
    svg.setAttribute("aria-label", `Round trips: ${summary(peers)}. The table of peers has each.`);
  };
  onHighlight((address) => {
    const peer = store.peers?.find((each) => each.address === address);
    for (const dot of dots.children) {
      dot.classList.toggle("lit", dot.dataset.address === address);
    }
    const time = peer?.latency == null ? "not measured yet" : roundTrip(peer.latency);
    say(named, peer ? `${peer.address} · ${time}` : "");
  });
  store.subscribe((_, changed) => changed.has("peers") && draw());
  draw();
}

function drawRings(rings, low, high) {
  const marks = [];
  for (let power = low; power <= high; power += 1) {
    const r = INNER + ((power - low) / (high - low)) * (OUTER - INNER);
    marks.push(s("circle", { cx: CENTRE, cy: CENTRE, r }));
    marks.push(s("text", { x: CENTRE, y: CENTRE - r + 4, "text-anchor": "middle" },
      roundTrip(10 ** power)));
  }
  rings.replaceChildren(...marks);
}

function makeSpoke() {
  const element = s("line", { x1: CENTRE, y1: CENTRE });
  return {
    element,
    update: ({ x, y }) => {
      element.setAttribute("x2", x.toFixed(1));
      element.setAttribute("y2", y.toFixed(1));
    },
  };
}

function makeDot({ peer }) {
  const mark = peer.outbound
    ? s("circle", { r: 6 })
    : s("rect", { x: -5, y: -5, width: 10, height: 10, transform: "rotate(45)" });
  const title = s("title");
  const hit = s("circle", { r: 12, class: "hit" });
  const element = s("g", { class: `dot ${peer.outbound ? "out" : "in"}` }, title, mark, hit);
  element.dataset.address = peer.address;
  element.addEventListener("pointerenter", () => highlight(peer.address));
  element.addEventListener("pointerleave", () => highlight(null));
  return {
    element,
    update: ({ peer: now, x, y }) => {
      element.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
      const time = now.latency === null ? "not measured yet" : roundTrip(now.latency);
      say(title, `${now.address}, ${now.user_agent}: ${time}`);
    },
  };
}
