// Asking the node: JSON by GET.

export const ROOT = new URL("../v1/", import.meta.url); // also where a proxy serves it under a prefix
const PATIENCE = 8000; // milliseconds that an answer may take

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
