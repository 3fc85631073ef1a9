// Staying up to date: events as they happen, and a modest round of questions for the rest.

import { get, listen, Refused } from "./api.js";

const ROUND = 2000; // milliseconds between rounds
const SLOW = 2; // peers and headers are asked for every so many rounds
const LATE = 2 * ROUND; // then what is shown is told to be old
const SYNC_FRESH = 1900; // a sync event younger than this spares the question
const FIRST_WAIT = 1000; // before the node is tried again; doubled each time up to
const LONGEST_WAIT = 15000;
const STREAM_WAIT = 5000; // before another stream of events; doubled up to a minute
const HIDDEN_FOR = 5 * 60 * 1000; // then nobody looks, and the node is left alone
export const BLOCKS_SHOWN = 12;
const COUNTS_KEPT = 200;

export class Live {
  #store;
  #round = 0;
  #timer = null;
  #wait = FIRST_WAIT;
  #busy = false;
  #again = null; // milliseconds: asked to ask again while asking
  #urgent = false; // by whoever looks at the page
  #paused = false;
  #close = null;
  #heardLast = null; // the id of the last event
  #streaming = false;
  #streamWait = STREAM_WAIT;
  #streamAfter = 0;
  #heardSync = -Infinity;
  #answered = new Map(); // when, by what was asked
  #peersSoon = false;
  #headersSoon = true;
  #hiddenTimer = null;

  constructor(store) {
    this.#store = store;
  }

  start() {
    document.addEventListener("visibilitychange", () => this.#visibility());
    this.#visibility(); // it may have been opened where nobody looks
    this.retry();
  }

  /** Ask now instead of at the end of the wait. */
  retry() {
    this.#urgent = this.#busy;
    this.#schedule(0);
  }

  #schedule(delay) {
    if (this.#busy) this.#again = Math.min(delay, this.#again ?? delay);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), delay);
  }

  #visibility() {
    clearTimeout(this.#hiddenTimer);
    if (document.hidden) {
      this.#hiddenTimer = setTimeout(() => this.#pause(), HIDDEN_FOR);
    } else if (this.#paused) {
      this.#paused = false;
      this.retry();
    }
  }

  #pause() {
    this.#paused = true;
    clearTimeout(this.#timer);
    this.#endStream();
    this.#connection({ state: "paused" });
  }

  #connection(values) {
    this.#store.set({ connection: { ...this.#store.connection, ...values } });
  }

  // --- questions ---------------------------------------------------------------------------

  async #ask() {
    if (this.#busy) return;
    this.#busy = true;
    let delay = ROUND;
    try {
      await this.#askAll();
      this.#wait = FIRST_WAIT;
    } catch (error) {
      if (!this.#urgent || tooMany(error)) this.#again = null; // that was the answer
      if (!this.#paused) delay = this.#failed(error);
    } finally {
      this.#busy = this.#urgent = false;
    }
    delay = this.#again ?? delay;
    this.#again = null;
    if (!this.#paused) this.#schedule(delay);
  }

  /** Returns milliseconds until the next question. */
  #failed(error) {
    if (tooMany(error)) {
      return Math.max(ROUND, error.retryAfter * 1000);
    }
    this.#endStream();
    const wait = this.#wait;
    this.#wait = Math.min(2 * wait, LONGEST_WAIT);
    const since = this.#store.connection.since ?? new Date();
    const detail = error instanceof Refused ? error.message : null;
    this.#connection({ state: "lost", since, detail, retryAt: performance.now() + wait });
    return wait;
  }

  async #askAll() {
    const status = await get("status"); // alone at first: a node that is down is asked once
    if (this.#paused) return; // meanwhile
    const before = this.#store.status;
    if (before !== null && !sameLife(before, status)) {
      this.#endStream();
      this.#streamAfter = 0;
      this.#answered.clear();
      this.#heardLast = null; // another life's: it would miss nothing that is of this one
      this.#store.reset();
      this.#headersSoon = this.#peersSoon = true;
    }
    this.#store.setNodeClock(status.head.timestamp + status.head.age);
    this.#store.set({ status, head: status.head });
    this.#connection({
      state: this.#streaming ? "live" : "polling",
      updated: new Date(),
      since: null,
      retryAt: null,
      detail: null,
    });
    this.#startStream();
    const slow = this.#round++ % SLOW === 0;
    const head = this.#store.headers[0];
    const headers = this.#headersSoon || head?.hash !== status.head.hash;
    const questions = [["traffic", "traffic", (answer) => answer.types]];
    if (performance.now() - this.#heardSync > SYNC_FRESH) questions.push(["sync", "sync"]);
    if (slow || this.#peersSoon) questions.push(["peers", "peers", (answer) => answer.peers]);
    const calm = status.phase === "following"; // while it syncs, the list is new each time
    if (headers && (slow || calm || this.#headersSoon)) {
      questions.push(["headers", `headers?limit=${BLOCKS_SHOWN}`, (answer) => answer.headers]);
    }
    this.#peersSoon = this.#headersSoon = false;
    const news = {};
    const refused = new Set();
    const asked = questions.map(async ([name, path, pick]) => {
      try {
        const answer = await get(path);
        news[name] = pick ? pick(answer) : answer;
      } catch (error) {
        // A node that is too busy for one of them is there all the same: what was known stays.
        if (!(error instanceof Refused) || tooMany(error)) throw error;
        refused.add(name);
      }
    });
    await Promise.all(asked);
    if (this.#paused) return;
    if (news.headers?.length) [news.head] = news.headers; // asked for later than the status
    this.#store.set(news);
    this.#noteLate(Object.keys(news), refused);
  }

  /** Of what the node was too busy to say again, since when what is shown is as it is. */
  #noteLate(answered, refused) {
    const now = performance.now();
    for (const name of answered) this.#answered.set(name, { now, at: new Date() });
    const { late } = this.#store;
    for (const name of answered) late.delete(name);
    if (this.#store.headers[0]?.hash === this.#store.head?.hash) late.delete("headers");
    for (const name of refused) {
      const last = this.#answered.get(name);
      if (last === undefined || now - last.now >= LATE) late.set(name, last?.at ?? null);
    }
    this.#store.set({ late });
  }

  // --- events ------------------------------------------------------------------------------

  #startStream() {
    if (this.#close !== null || performance.now() < this.#streamAfter) return;
    this.#close = listen({
      after: this.#heardLast,
      onOpen: () => {
        this.#streaming = true;
        this.#streamWait = STREAM_WAIT;
        this.#connection({ state: "live" });
      },
      onEnd: () => {
        const had = this.#streaming;
        this.#endStream();
        this.#streamAfter = performance.now() + this.#streamWait;
        this.#streamWait = Math.min(2 * this.#streamWait, 60000);
        if (had) this.#schedule(FIRST_WAIT); // is the node still there?
      },
      onEvent: (event, id) => {
        this.#heardLast = id;
        this.#hear(event);
      },
    });
  }

  #endStream() {
    this.#close?.();
    this.#close = null;
    this.#streaming = false;
  }

  #hear(event) {
    if (event.type === "sync") {
      this.#heardSync = performance.now();
      if (this.#store.late.delete("sync")) this.#store.set({ late: this.#store.late });
      this.#store.set({ sync: event.sync });
    } else if (event.type === "head") {
      this.#newHead(event);
    } else if (event.type === "reorganisation") {
      this.#store.set({ reorganisation: { ...event, at: Date.now() } });
      this.#headersSoon = true;
    } else if (event.type === "peer") {
      if (!this.#peersSoon) this.#soon();
      this.#peersSoon = true;
    } else {
      this.#peersSoon = this.#headersSoon = true;
    }
  }

  /** Ask before the round is over; several events share the question. */
  #soon() {
    this.#schedule(400);
  }

  #newHead({ header, transactions }) {
    const { counts, headers } = this.#store;
    counts.set(header.hash, transactions);
    while (counts.size > COUNTS_KEPT) counts.delete(counts.keys().next().value);
    if (headers.slice(1).some(({ hash }) => hash === header.hash)) return; // it came late
    const top = headers[0];
    if (top !== undefined && header.previous_hash === top.hash) {
      this.#store.set({ headers: [header, ...headers].slice(0, BLOCKS_SHOWN), counts });
    } else if (header.hash !== top?.hash) {
      this.#headersSoon ||= this.#store.status?.phase === "following";
    }
    this.#store.set({ head: header });
  }
}

function tooMany(error) {
  return error instanceof Refused && error.status === 429;
}

function sameLife(before, after) {
  return before.node_id === after.node_id && Math.abs(before.started_at - after.started_at) < 1;
}
