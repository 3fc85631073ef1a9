// What the charts show: a few minutes of samples, forgotten when the node is another.

export const SPAN = 300; // seconds
const APART = 0.9; // seconds between samples, at least
export const GAP = 15; // seconds without a sample: a line across them would be invented
const HEADS_KEPT = 1000; // of which four slots have far fewer, unless the node syncs
const BLOCKS_LOOKED_BACK = 4; // a rate of blocks that come one per slot is one over some slots

/** Samples of some values over the last `SPAN` seconds; times are in seconds. */
export class History {
  samples = [];

  add(at, values) {
    const last = this.samples.at(-1);
    if (last !== undefined && at - last.at < APART) return;
    this.samples.push({ at, values });
    while (this.samples[0].at < at - SPAN) this.samples.shift();
  }

  clear() {
    this.samples = [];
  }

  /** Runs of samples without a gap. */
  runs() {
    const runs = [];
    for (const sample of this.samples) {
      const run = runs.at(-1);
      if (run !== undefined && sample.at - run.at(-1).at <= GAP) run.push(sample);
      else runs.push([sample]);
    }
    return runs;
  }
}

/** Keeps the histories of blocks, transactions (per second) and bytes (per second, in and out). */
export class Recorder {
  blocks = new History();
  transactions = new History();
  bytes = new History();
  #traffic = null;
  #heads = []; // how high the head was when; the first is from before the slots that are looked at
  #counts = new Map(); // transactions by height
  #since = null; // when the head was first seen
  #asked = null; // when the node last said anything

  constructor(store) {
    store.subscribe((_, changed) => this.#note(store, changed));
  }

  #note(store, changed) {
    const now = performance.now() / 1000;
    if (changed.has("reset")) {
      for (const history of [this.blocks, this.transactions, this.bytes]) history.clear();
      this.#traffic = null;
      this.#forgetHeads();
    }
    if (changed.has("status")) {
      if (now - (this.#asked ?? now) > GAP) this.#forgetHeads(); // who knows when they came
      this.#asked = now;
    }
    if (changed.has("head") || changed.has("headers")) this.#noteHeads(store, now);
    if (changed.has("sync") && store.sync !== null) {
      const rates = follows(store) ? this.#following(store, now) : store.sync;
      if (rates !== null) {
        this.blocks.add(now, [rates.blocks_per_second]);
        if (rates.transactions_per_second !== null) {
          this.transactions.add(now, [rates.transactions_per_second]);
        }
      }
    }
    if (changed.has("traffic") && store.traffic !== null) this.#flow(store.traffic, now);
  }

  #forgetHeads() {
    this.#heads = [];
    this.#counts.clear();
    this.#since = null;
  }

  /** Heads are not counted but measured: several may come at once, and not all are told of. */
  #noteHeads(store, now) {
    const { head, headers, counts } = store;
    for (const header of head === null ? headers : [...headers, head]) {
      const count = counts.get(header.hash) ?? header.transactions ?? null;
      if (count !== null) this.#counts.set(header.height, count);
    }
    const last = this.#heads.at(-1);
    if (head === null || head.height === last?.height) return;
    if (head.height < last?.height) this.#heads = [];
    this.#heads.push({ at: now, height: head.height });
    if (this.#heads.length > HEADS_KEPT) this.#heads.shift();
    while (this.#counts.size > HEADS_KEPT) this.#counts.delete(this.#counts.keys().next().value);
    this.#since ??= now;
  }

  /** The rates of a few slots; null before one has passed. That of transactions is null where
   * those of a block are not known. */
  #following(store, now) {
    const slot = Math.max(1, store.status?.block_time ?? 1);
    if (this.#since === null || now - this.#since < slot) return null;
    const span = Math.min(BLOCKS_LOOKED_BACK * slot, now - this.#since);
    while (this.#heads.length > 1 && this.#heads[1].at <= now - span) this.#heads.shift();
    const from = this.#heads[0].height;
    const to = this.#heads.at(-1).height;
    for (const height of this.#counts.keys()) if (height <= from) this.#counts.delete(height);
    let sum = 0;
    for (let height = from + 1; height <= to && sum !== null; height += 1) {
      const count = this.#counts.get(height);
      sum = count === undefined ? null : sum + count;
    }
    return {
      blocks_per_second: (to - from) / span,
      transactions_per_second: sum === null ? null : sum / span,
    };
  }

  #flow(types, now) {
    const total = (name) => types.reduce((sum, type) => sum + type[name], 0);
    const next = { at: now, in: total("bytes_received"), out: total("bytes_sent") };
    const last = this.#traffic;
    if (last !== null && now - last.at < APART) return;
    this.#traffic = next;
    if (last === null || next.in < last.in || next.out < last.out || now - last.at > GAP) return;
    const seconds = now - last.at;
    this.bytes.add(now, [(next.in - last.in) / seconds, (next.out - last.out) / seconds]);
  }
}

/** Whether the head is moved by single blocks, a node's own too where it makes them alone. */
function follows({ status, sync }) {
  return sync.phase === "following" || (status?.producing && ["waiting", "idle"].includes(sync.phase));
}
