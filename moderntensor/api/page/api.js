// Asking the node: JSON by GET, and its events.

const ROOT = new URL("../v1/", import.meta.url); // also where a proxy serves it under a prefix
const PATIENCE = 8000; // milliseconds that an answer may take
const EVENTS = ["head", "reorganisation", "peer", "sync", "missed"];

/** The node answered, but not with what was asked for. */
export class Refused extends Error {
  constructor(path, response) {
    super(`${path} was answered with ${response.status}`);
    this.status = response.status;
    this.retryAfter = Number(response.headers.get("Retry-After")) || 0;
  }
}

/** The JSON at a path below /v1/. Raises Refused for an answer that is none, any other error where
 * the node did not answer. */
export async function get(path) {
  const response = await fetch(new URL(path, ROOT), {
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (!response.ok) {
    await response.body?.cancel();
    throw new Refused(path, response);
  }
  return response.json();
}

/**
 * Listen to the node's events, from the one with the id `after` on where that is known, until
 * `close` is called or the stream ends. `onEvent(event, id)` gets each, `onOpen()` and `onEnd()` are
 * called once. A browser would try again by itself, and every
 * few seconds; when to do so is decided by who calls this.
 */
export function listen({ after, onEvent, onOpen, onEnd }) {
  const url = new URL("events", ROOT);
  if (after !== null) url.searchParams.set("after", after);
  const source = new EventSource(url);
  let over = false;
  const close = () => {
    over = true;
    source.close();
  };
  const hear = (message) => {
    if (!over) onEvent(JSON.parse(message.data), message.lastEventId || null);
  };
  for (const name of EVENTS) source.addEventListener(name, hear);
  source.addEventListener("open", () => over || onOpen(), { once: true });
  source.addEventListener("error", () => {
    if (over) return;
    close();
    onEnd();
  });
  return close;
}
