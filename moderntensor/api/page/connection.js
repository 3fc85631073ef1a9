// How the page itself is doing: is what it shows of now?

import { byId, say } from "./dom.js";
import { clock, duration } from "./format.js";
import { isLate } from "./late.js";

const NAMES = {
  connecting: "Connecting",
  live: "Live",
  polling: "Up to date",
  late: "Not current",
  lost: "Reconnecting",
  paused: "Paused",
};

export function showConnection(store, retry) {
  let spoken = "connecting";
  const draw = () => {
    const { updated, retryAt, since, detail } = store.connection;
    const answering = ["live", "polling"].includes(store.connection.state);
    const state = answering && isLate(store, "status") ? "late" : store.connection.state;
    const pill = byId("connection");
    pill.dataset.state = state;
    say(pill.querySelector("b"), NAMES[state]);
    say(byId("updated"), updated === null ? "" : `updated ${clock(updated)}`);
    byId("lost").hidden = state !== "lost";
    if (state === "lost") {
      const wait = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
      const what = detail ?? "The node does not answer";
      const shown = updated === null ? "" : ` What is shown here is of ${clock(updated)}.`;
      const next = wait ? `Next try in ${duration(wait)}.` : "Trying now.";
      say(byId("lost-text"), `${what} since ${clock(since)}.${shown} ${next}`);
    }
    if (state !== spoken && (state === "lost" || spoken === "lost")) {
      say(byId("announce"), state === "lost" ? "The node does not answer." : "The node answers again.");
    }
    spoken = state;
  };
  byId("retry").addEventListener("click", retry);
  store.subscribe((_, changed) => changed.has("connection") && draw());
  setInterval(draw, 1000);
}
