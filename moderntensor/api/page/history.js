// What the charts show: a few minutes of samples, forgotten when the node is another.

export const SPAN = 300; // seconds
const APART = 0.9; // seconds between samples, at least
const GAP = 15; // seconds without a sample: a line across them would be invented
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
  #heads = [];
  #since = null; // when heads were first listened for

  constructor(store) {
    store.subscribe((_, changed) => this.#note(store, changed));
  }

  #note(store, changed) {
    const now = performance.now() / 1000;
    if (changed.has("reset")) {
      for (const history of [this.blocks, this.transactions, this.bytes]) history.clear();
      this.#traffic = null;
      this.#heads = [];
      this.#since = null;
    }
    if (changed.has("headEvent") && store.headEvent !== null) {
      this.#heads.push({ at: now, transactions: store.headEvent.transactions });
    }
    if (changed.has("sync") && store.sync !== null) {
      const rates = store.sync.phase === "following" ? this.#following(store, now) : store.sync;
      if (rates !== null) {
        this.blocks.add(now, [rates.blocks_per_second]);
        this.transactions.add(now, [rates.transactions_per_second]);
      }
    }
    if (changed.has("traffic") && store.traffic !== null) this.#flow(store.traffic, now);
  }

  /** The rates of a few slots, by the heads that were told; null before one has passed. */
  #following(store, now) {
    const slot = Math.max(1, store.status?.block_time ?? 1);
    this.#since ??= now;
    if (now - this.#since < slot) return null;
    const span = Math.min(BLOCKS_LOOKED_BACK * slot, now - this.#since);
    this.#heads = this.#heads.filter(({ at }) => at > now - span);
    const sum = this.#heads.reduce((total, head) => total + head.transactions, 0);
    return {
      blocks_per_second: this.#heads.length / span,
      transactions_per_second: sum / span,
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
