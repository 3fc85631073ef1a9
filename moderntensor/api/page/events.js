// The node's events, from where a stream before it ended. An EventSource would tell the node that
// only where it connects again by itself, which it does every few seconds for as long as it takes.

import { Refused, ROOT } from "./api.js";

const NAMES = new Set(["head", "reorganisation", "peer", "sync", "missed"]);
const MAX_EVENT = 1 << 20; // characters; a node's are a few hundred
const ID = /^[\x21-\x7e]{1,256}$/; // what may be sent back
const END_OF_LINE = /\r\n|\n|\r(?!$)/; // a last \r may be half of one

/** Server-sent events as they are on the wire (WHATWG HTML, 9.2.6). */
export class EventParser {
  #rest = "";
  #name = "";
  #data = [];
  #size = 0;
  #id;
  #onEvent;
  /** Of the last block that was complete, also of one without data. */
  lastId;

  constructor(onEvent, lastId = "") {
    this.#onEvent = onEvent;
    this.lastId = this.#id = lastId;
  }

  /** Text as it comes; `onEvent(name, data)` is called for each event that it completes. Raises
   * RangeError for one that does not end. */
  feed(text) {
    const lines = (this.#rest + text).split(END_OF_LINE);
    this.#rest = lines.pop();
    for (const line of lines) this.#take(line);
    if (this.#size + this.#rest.length > MAX_EVENT) throw new RangeError("an event without an end");
  }

  #take(line) {
    if (line === "") return this.#settle();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#name = value;
    else if (field === "id" && ID.test(value)) this.#id = value;
    else if (field === "data") {
      this.#data.push(value);
      this.#size += value.length + 1;
    }
  }

  #settle() {
    const [name, data] = [this.#name, this.#data];
    this.#name = "";
    this.#data = [];
    this.#size = 0;
    this.lastId = this.#id;
    if (data.length) this.#onEvent(name, data.join("\n"));
  }
}

/**
 * Listens from now on, or from the event after the id `after`, until it is closed or the stream
 * ends. `onEvent(event)` gets each, `onOpen()` and `onEnd(error)` are called once at most; there is
 * no error where the node ended it. When to listen again is decided by who made it.
 */
export class EventStream {
  #stop = new AbortController();
  #parser;

  constructor({ after, onEvent, onOpen, onEnd }) {
    const { signal } = this.#stop;
    this.#parser = new EventParser((name, data) => {
      if (!signal.aborted && NAMES.has(name)) onEvent(JSON.parse(data)); // or it is of a newer node
    }, after);
    this.#listen(after, onOpen).then(
      () => signal.aborted || onEnd(null),
      (error) => signal.aborted || onEnd(error),
    );
  }

  /** Where to go on: of the last event, or where the stream began. */
  get lastId() {
    return this.#parser.lastId;
  }

  close() {
    this.#stop.abort();
  }

  async #listen(after, onOpen) {
    const { signal } = this.#stop;
    const response = await fetch(new URL("events", ROOT), {
      cache: "no-store",
      headers: { Accept: "text/event-stream", ...(after && { "Last-Event-ID": after }) },
      signal,
    });
    const type = response.headers.get("Content-Type") ?? "";
    if (!response.ok || !type.startsWith("text/event-stream")) {
      await response.body?.cancel();
      throw new Refused("events", response);
    }
    if (!signal.aborted) onOpen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || signal.aborted) return;
        this.#parser.feed(value);
      }
    } finally {
      reader.cancel().catch(() => {}); // it has ended, or is of no use any more
    }
  }
}
