// What the node is too busy to say is shown as it was, and says so.

import { byId, say } from "./dom.js";
import { clock } from "./format.js";

const PLACES = { sync: "sync-late", headers: "blocks-late", peers: "peers-late", traffic: "traffic-late" };

export function showLate(store) {
  store.subscribe((_, changed) => {
    if (!changed.has("late")) return;
    for (const [name, place] of Object.entries(PLACES)) {
      const note = byId(place);
      const at = store.late.get(name);
      note.hidden = at === undefined;
      const what = at ? `what is shown here is of ${clock(at)}.` : "there is nothing to show yet.";
      say(note, note.hidden ? "" : `The node is too busy to say this: ${what}`);
    }
  });
}
