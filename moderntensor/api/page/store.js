// What the page knows, in one place; views are told of changes once per frame.

const EMPTY = {
  status: null,
  sync: null,
  peers: null,
  traffic: null,
  head: null,
  headers: [],
  counts: new Map(), // transactions by block hash, as far as events told
  reorganisation: null,
};

export class Store {
  #views = [];
  #changed = new Set();
  #scheduled = false;

  constructor() {
    this.connection = { state: "connecting", updated: null, retryAt: null, detail: null };
    this.#clear();
  }

  #clear() {
    Object.assign(this, EMPTY, { counts: new Map(), headers: [] });
    this.answers = new Map(); // when each question was answered last, by what it is about
    this.nodeClock = null;
  }

  /** `view(store, changed)` is called with the set of names that changed; "reset" when the node
   * is another than before. */
  subscribe(view) {
    this.#views.push(view);
  }

  set(values) {
    for (const [name, value] of Object.entries(values)) {
      this[name] = value;
      this.#changed.add(name);
    }
    this.#schedule();
  }

  /** A question was put; what was never answered is as old as that. */
  asked(name) {
    if (!this.answers.has(name)) this.answers.set(name, { at: performance.now(), when: null });
  }

  /** What it is about is known as of now. */
  answered(name) {
    this.answers.set(name, { at: performance.now(), when: new Date() });
  }

  /** Forget all: the node was restarted, or is another one. */
  reset() {
    this.#clear();
    for (const name of Object.keys(EMPTY)) this.#changed.add(name);
    this.#changed.add("reset");
    this.#schedule();
  }

  /** The node's clock when it answered; ages are by it, not by the reader's. */
  setNodeClock(now) {
    this.nodeClock = { now, at: performance.now() };
  }

  /** Seconds since a timestamp, by the node's clock; null before its first answer. */
  age(timestamp) {
    if (this.nodeClock === null) return null;
    const now = this.nodeClock.now + (performance.now() - this.nodeClock.at) / 1000;
    return Math.max(0, now - timestamp);
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // A page in the background gets no frames, and must not fall behind for it.
    if (document.hidden) setTimeout(() => this.#tell(), 250);
    else requestAnimationFrame(() => this.#tell());
  }

  #tell() {
    this.#scheduled = false;
    const changed = this.#changed;
    this.#changed = new Set();
    for (const view of this.#views) view(this, changed);
  }
}
