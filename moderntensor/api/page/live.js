// Staying up to date: events as they happen, and a modest round of questions for the rest.

import { get, Refused } from "./api.js";
import { EventStream } from "./events.js";

const ROUND = 2000; // milliseconds between rounds
const SLOW = 2; // peers and headers are asked for every so many rounds
const SYNC_FRESH = 1900; // a sync event younger than this spares the question
const FIRST_WAIT = 1000; // before the node is tried again; doubled each time up to
const LONGEST_WAIT = 15000;
const LONGEST_OBEYED = 60000; // of what a node asks for by Retry-After
const STREAM_WAIT = 5000; // before another stream of events; doubled up to a minute
const HIDDEN_FOR = 5 * 60 * 1000; // then nobody looks, and the node is left alone
const SLACK = 1000; // that answers may take, before they are missed
/** Milliseconds after which an answer is no longer of now: two rounds of that question. */
export const CURRENT_FOR = {
  status: 2 * ROUND + SLACK,
  sync: 2 * ROUND + SLACK,
  traffic: 2 * ROUND + SLACK,
  peers: 2 * SLOW * ROUND + SLACK,
  headers: 2 * SLOW * ROUND + SLACK,
};
export const BLOCKS_SHOWN = 12;
const COUNTS_KEPT = 200;

export class Live {
  #store;
  #round = 0;
  #timer = null;
  #wait = FIRST_WAIT;
  #busy = false;
  #again = null; // milliseconds: asked to ask again while asking
  #pressed = false; // to try now, while asking
  #paused = false;
  #stream = null;
  #streaming = false;
  #lastId = ""; // where the last stream ended
  #heightAtOpen = -1; // what was told of then and is not higher had happened before
  #streamWait = STREAM_WAIT;
  #streamAfter = 0;
  #heardSync = -Infinity;
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
    this.#pressed = this.#busy;
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
      this.#again = null; // that was the answer to what events asked for
      if (!this.#paused) delay = this.#failed(error);
    } finally {
      this.#busy = this.#pressed = false;
    }
    delay = this.#again ?? delay;
    this.#again = null;
    if (!this.#paused) this.#schedule(delay);
  }

  /** Returns milliseconds until the next question. */
  #failed(error) {
    if (error instanceof Refused && error.status === 429) {
      const wait = Math.max(ROUND, obeyed(error));
      if (this.#store.connection.state === "lost") { // it answers, but nothing that could be shown
        this.#connection({ detail: error.message, retryAt: performance.now() + wait });
      }
      return wait;
    }
    this.#endStream();
    const wait = this.#pressed ? 0 : this.#wait;
    if (!this.#pressed) this.#wait = Math.min(2 * wait, LONGEST_WAIT);
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
      this.#lastId = "";
      this.#streamAfter = 0;
      this.#store.reset();
      this.#headersSoon = this.#peersSoon = true;
    }
    this.#store.setNodeClock(status.head.timestamp + status.head.age);
    this.#store.set({ status, head: status.head });
    this.#store.answered("status");
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
    if (!headers) this.#store.answered("headers"); // by the status: nothing has changed
    const questions = [["traffic", "traffic", (answer) => answer.types]];
    if (performance.now() - this.#heardSync > SYNC_FRESH) questions.push(["sync", "sync"]);
    if (slow || this.#peersSoon) questions.push(["peers", "peers", (answer) => answer.peers]);
    const calm = status.phase === "following"; // while it syncs, the list is new each time
    if (headers && (slow || calm || this.#headersSoon)) {
      questions.push(["headers", `headers?limit=${BLOCKS_SHOWN}`, (answer) => answer.headers]);
    }
    this.#peersSoon = this.#headersSoon = false;
    const news = {};
    let patience = null; // asked for by the node
    const asked = questions.map(async ([name, path, pick]) => {
      this.#store.asked(name);
      try {
        const answer = await get(path);
        news[name] = pick ? pick(answer) : answer;
      } catch (error) {
        // A node that is too busy for one of them is there all the same: what was known stays.
        if (!(error instanceof Refused)) throw error;
        if (error.status === 429) patience = error;
      }
    });
    await Promise.all(asked);
    if (this.#paused) return;
    for (const name of Object.keys(news)) this.#store.answered(name);
    if (news.headers?.length) [news.head] = news.headers; // asked for later than the status
    this.#store.set(news);
    if (patience !== null) throw patience;
  }

  // --- events ------------------------------------------------------------------------------

  #startStream() {
    if (this.#stream !== null || performance.now() < this.#streamAfter) return;
    this.#heightAtOpen = this.#lastId ? this.#store.head.height : -1;
    this.#stream = new EventStream({
      after: this.#lastId,
      onOpen: () => {
        this.#streaming = true;
        this.#streamWait = STREAM_WAIT;
        this.#connection({ state: "live" });
      },
      onEnd: (error) => {
        const had = this.#streaming;
        this.#endStream();
        const wait = Math.max(this.#streamWait, error instanceof Refused ? obeyed(error) : 0);
        this.#streamAfter = performance.now() + wait;
        this.#streamWait = Math.min(2 * this.#streamWait, 60000);
        if (had) this.#schedule(FIRST_WAIT); // is the node still there?
      },
      onEvent: (event) => this.#hear(event),
    });
  }

  #endStream() {
    this.#streaming = false;
    if (this.#stream === null) return;
    this.#stream.close();
    this.#lastId = this.#stream.lastId;
    this.#stream = null;
  }

  #hear(event) {
    if (event.type === "sync") {
      this.#heardSync = performance.now();
      this.#store.answered("sync");
      this.#store.set({ sync: event.sync });
    } else if (event.type === "head") {
      this.#newHead(event);
    } else if (event.type === "reorganisation") {
      const late = event.to_height <= this.#heightAtOpen;
      this.#store.set({ reorganisation: { ...event, at: Date.now(), late } });
      this.#headersSoon = true;
    } else if (event.type === "peer") {
      if (!this.#peersSoon) this.#soon();
      this.#peersSoon = true;
    } else { // missed: how many is not always known
      this.#peersSoon = this.#headersSoon = true;
    }
  }

  /** Ask before the round is over; several events share the question. */
  #soon() {
    this.#schedule(400);
  }

  #newHead({ header, transactions }) {
    const { counts, head, headers } = this.#store;
    counts.set(header.hash, transactions);
    while (counts.size > COUNTS_KEPT) counts.delete(counts.keys().next().value);
    if (header.height < head?.height) return; // it came late: branches win by being longer
    const top = headers[0];
    if (top !== undefined && header.previous_hash === top.hash) {
      this.#store.answered("headers");
      this.#store.set({ headers: [header, ...headers].slice(0, BLOCKS_SHOWN), counts });
    } else if (header.hash !== top?.hash) {
      this.#headersSoon ||= this.#store.status?.phase === "following";
    }
    this.#store.set({ head: header });
  }
}

/** Milliseconds that a refusal asks to wait. */
const obeyed = (refused) => Math.min(refused.retryAfter * 1000, LONGEST_OBEYED);

function sameLife(before, after) {
  return before.node_id === after.node_id && Math.abs(before.started_at - after.started_at) < 1;
}
