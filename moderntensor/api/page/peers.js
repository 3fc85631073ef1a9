// Peers as a table that can be sorted; on a narrow screen each is a card.

import { byId, directionMark, figure, h, keyed, say, setFigure } from "./dom.js";
import { bytes, count, digits, roughly, roundTrip, several } from "./format.js";
import { highlight, onHighlight } from "./highlight.js";

const FIRST_SHOWN = { wide: 12, narrow: 6 }; // rows, until all are asked for
const BAN_SCORE = 100;

// field: its name in the API; sorted by `by`, first in the direction `down` or not; `text` of it.
const COLUMNS = [
  { field: "outbound", label: "Direction", by: (peer) => (peer.outbound ? 0 : 1), text: null },
  { field: "address", label: "Address", by: (peer) => peer.address, text: (peer) => peer.address },
  { field: "user_agent", label: "Software", by: (peer) => peer.user_agent,
    text: (peer) => peer.user_agent },
  { field: "best_height", label: "Height", num: true, down: true, by: (peer) => peer.best_height,
    text: (peer) => count(peer.best_height) },
  { field: "latency", label: "Round trip", num: true, by: (peer) => peer.latency ?? Infinity,
    text: (peer) => (peer.latency === null ? "not known" : roundTrip(peer.latency)) },
  { field: "connected_for", label: "Connected", num: true, down: true,
    by: (peer) => peer.connected_for, text: (peer) => roughly(peer.connected_for) },
  { field: "bytes_received", label: "Received", num: true, down: true,
    by: (peer) => peer.bytes_received, text: (peer) => bytes(peer.bytes_received) },
  { field: "bytes_sent", label: "Sent", num: true, down: true, by: (peer) => peer.bytes_sent,
    text: (peer) => bytes(peer.bytes_sent) },
  { field: "requests_in_flight", label: "Requests", num: true, down: true,
    by: (peer) => peer.requests_in_flight, text: asked },
  { field: "score", label: "Offences", num: true, down: true, by: (peer) => peer.score,
    text: (peer) => (peer.score ? `${digits(peer.score)} of ${BAN_SCORE}` : "none") },
];

function asked(peer) {
  const late = peer.requests_timed_out;
  return late ? `${peer.requests_in_flight}, ${late} late` : String(peer.requests_in_flight);
}

/** Peers in the order of a column; equal ones by their addresses, so that rows stay put. */
export function sorted(peers, column, down) {
  const sign = down ? -1 : 1;
  return peers.toSorted((a, b) => {
    const [x, y] = [column.by(a), column.by(b)];
    if (x !== y) return x < y ? -sign : sign;
    return a.address < b.address ? -1 : 1;
  });
}

export function showPeers(store) {
  let chosen = COLUMNS.find(({ field }) => field === "connected_for");
  let down = true; // who has been here longest stays on top: rows do not jump about
  let all = false;
  const table = byId("peers");
  const more = byId("peers-more");
  const narrow = matchMedia("(max-width: 1180px)");
  const heads = COLUMNS.map((column) => {
    const button = h("button", { type: "button" }, column.label);
    const head = h("th", { scope: "col", class: column.num ? "num" : null }, button);
    button.addEventListener("click", () => {
      down = chosen === column ? !down : Boolean(column.down);
      chosen = column;
      draw();
    });
    return { head, column };
  });
  table.tHead.append(h("tr", {}, ...heads.map(({ head }) => head)));

  const draw = () => {
    const peers = store.peers ?? [];
    for (const { head, column } of heads) {
      if (column === chosen) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const first = narrow.matches ? FIRST_SHOWN.narrow : FIRST_SHOWN.wide;
    const shown = all ? peers.length : first;
    const rows = sorted(peers, chosen, down).slice(0, shown);
    keyed(table.tBodies[0], rows, (peer) => peer.address, makeRow);
    table.hidden = !peers.length;
    byId("peers-empty").hidden = store.peers === null || peers.length > 0;
    more.hidden = peers.length <= first;
    say(more, all ? `Show the first ${first}` : `Show all ${count(peers.length)}`);
    const outbound = peers.filter((peer) => peer.outbound).length;
    say(byId("peers-summary"), peers.length
      ? `${several(peers.length, "peer")}, ${outbound} dialled, ${peers.length - outbound} came` : "");
  };

  more.addEventListener("click", () => {
    all = !all;
    draw();
  });
  onHighlight((address) => {
    for (const row of table.tBodies[0].rows) {
      row.classList.toggle("lit", row.dataset.address === address);
    }
  });
  narrow.addEventListener("change", draw);
  store.subscribe((_, changed) => changed.has("peers") && draw());
}

function makeRow(peer) {
  const way = h("span");
  const cells = COLUMNS.map((column) => {
    const value = column.text ? figure(column.field) : way;
    const cell = h("td", { class: column.num ? "num" : null, "data-label": column.label }, value);
    return { value, column, cell };
  });
  const element = h("tr", { "data-address": peer.address }, ...cells.map(({ cell }) => cell));
  element.addEventListener("pointerenter", () => highlight(peer.address));
  element.addEventListener("pointerleave", () => highlight(null));
  let outbound = null;
  return {
    element,
    update: (now) => {
      if (outbound !== now.outbound) {
        outbound = now.outbound;
        way.replaceChildren(directionMark(outbound), outbound ? " out" : " in");
        if (now.purpose !== "full") way.append(` ${now.purpose}`);
      }
      for (const { value, column } of cells) {
        if (column.text) setFigure(value, now[column.field], column.text(now));
      }
      element.classList.toggle("suspect", now.score >= BAN_SCORE / 2);
    },
  };
}
