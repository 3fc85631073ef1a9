// Which parts show what is no longer of now: a node may answer one question and refuse another.

import { byId, say } from "./dom.js";
import { clock } from "./format.js";
import { CURRENT_FOR } from "./live.js";

/** Whether the last answer about something is older than two rounds of questions. */
export function isLate(store, name) {
  const last = store.answers.get(name);
  return last !== undefined && performance.now() - last.at > CURRENT_FOR[name];
}

const WHAT = { sync: "Progress not current" };

export function showLate(store) {
  const marks = [...document.querySelectorAll(".late")];
  let before = "";
  const draw = () => {
    for (const mark of marks) {
      const { of } = mark.dataset;
      mark.hidden = !isLate(store, of);
      const when = store.answers.get(of)?.when ?? null;
      const what = WHAT[of] ?? "Not current";
      say(mark, `${what}: ${when === null ? "not answered yet" : `last answered at ${clock(when)}`}`);
    }
    // That nothing is answered is said once, and elsewhere.
    const { state } = store.connection;
    const shown = ["live", "polling"].includes(state) ? marks.filter((mark) => !mark.hidden) : [];
    const parts = shown.map((mark) => mark.parentElement.querySelector("h1, h2").textContent);
    const now = parts.join(", ");
    if (now && now !== before) say(byId("announce"), `Not current: ${now}`);
    before = now;
  };
  store.subscribe((_, changed) => ["connection", "peers", "traffic", "headers", "sync", "reset"]
    .some((name) => changed.has(name)) && draw());
  setInterval(draw, 1000);
}
