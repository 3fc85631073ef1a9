// The sentence, the sync's bar and the tiles.

import { byId, figure, h, say, setFigure } from "./dom.js";
import { ago, bytes, count, digits, duration, percent, roundTrip, short } from "./format.js";
import { detail, sentence, syncFigures } from "./words.js";

// While it follows, the head is behind for a moment with every new block: that is no sync.
const SYNCING = new Set(["waiting", "headers", "state", "blocks"]);

// [field, label, how it is written, a line below it]
const TILES = [
  ["head.height", "Head", ({ head }) => [head.height, count(head.height)],
    ({ head }) => short(head.hash)],
  ["head.age", "Last block", ({ store, head }) => [null, ago(store.age(head.timestamp))],
    ({ status }) => `one every ${duration(status.block_time)}`],
  ["places.peers", "Peers",
    ({ status: { places } }) => [places.inbound + places.outbound,
      count(places.inbound + places.outbound)],
    ({ status: { places } }) =>
      `${places.outbound} of ${places.target_outbound} out, ${places.inbound} in`],
  ["mempool.transactions", "Mempool",
    ({ status: { mempool } }) => [mempool.transactions, count(mempool.transactions)],
    ({ status: { mempool } }) => `${bytes(mempool.bytes)} of ${bytes(mempool.max_bytes)}`],
  ["database_bytes", "Database",
    ({ status }) => [status.database_bytes, bytes(status.database_bytes)],
    ({ status }) => status.disk_free_bytes === null ? "in memory"
      : `${bytes(status.disk_free_bytes)} free`],
  ["uptime", "Running", ({ store, status }) => [null, duration(store.age(status.started_at))],
    ({ status }) => clockWords(status.clock_offset)],
];

function clockWords(offset) {
  if (offset === null) return "clock not compared yet";
  if (Math.abs(offset) < 0.5) return "clock agrees";
  return `clock ${roundTrip(Math.abs(offset))} ${offset > 0 ? "behind" : "ahead"}`;
}

export function showOverview(store) {
  const tiles = TILES.map(([field, label, write, below]) => {
    const value = figure(field);
    const under = h("dd", { class: "soft" });
    byId("tiles").append(h("div", {}, h("dt", {}, label), h("dd", {}, value), under));
    return { value, under, write, below };
  });
  const bar = byId("bar");
  const done = figure("sync.progress");
  const current = figure("sync.current_height");
  const target = figure("sync.target_height");
  const rate = figure("sync.rate");
  const left = figure("sync.eta");
  byId("sync-figures").append(
    h("b", {}, done), h("span", {}, current, " of ", target, " blocks"),
    h("span", {}, rate, " ", left),
  );
  let announced = null;

  const draw = () => {
    const { status, sync, head } = store;
    if (status === null || head === null) return;
    const words = sentence(status, sync, head);
    say(byId("sentence"), words);
    say(byId("detail"), detail(status, sync));
    const moving = sync !== null && SYNCING.has(sync.phase) && sync.progress < 1;
    document.title = moving ? `${percent(sync.progress)} · ${words}` : words;
    byId("sync").hidden = !moving;
    if (sync !== null) drawSync(sync);
    for (const { value, under, write, below } of tiles) {
      setFigure(value, ...write({ store, status, head }));
      say(under, below({ status, head }));
    }
    announce(sync?.phase ?? status.phase, words);
  };

  const drawSync = (sync) => {
    const span = Math.max(1, sync.target_height - sync.start_height);
    const ahead = Math.min(1, Math.max(0, (sync.header_height - sync.start_height) / span));
    bar.querySelector(".done").style.width = `${sync.progress * 100}%`;
    bar.querySelector(".ahead").style.width = `${Math.max(ahead, sync.progress) * 100}%`;
    bar.setAttribute("aria-valuenow", Math.floor(sync.progress * 100));
    setFigure(done, sync.progress, percent(sync.progress));
    setFigure(current, sync.current_height, count(sync.current_height));
    setFigure(target, sync.target_height, count(sync.target_height));
    const figures = syncFigures(sync);
    setFigure(rate, figures.perSecond, `${digits(figures.perSecond)} ${figures.rate},`);
    setFigure(left, sync.eta, figures.left);
    bar.setAttribute("aria-valuetext", `${percent(sync.progress)}, ${figures.left}`);
  };

  /** Spoken when the phase changes, not with every block. */
  const announce = (phase, words) => {
    if (announced !== null && announced !== phase) say(byId("announce"), words);
    announced = phase;
  };

  store.subscribe((_, changed) => {
    if (["status", "sync", "head"].some((name) => changed.has(name))) draw();
  });
  setInterval(draw, 1000); // ages grow between answers
}
