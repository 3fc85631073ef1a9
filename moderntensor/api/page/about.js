// Who this node is: what rarely changes.

import { byId, figure, h, setFigure } from "./dom.js";
import { count, short } from "./format.js";

// [label, field, text of it]
const FACTS = [
  ["Node id", "node_id", (status) => status.node_id],
  ["Version", "version", (status) => `${status.version}, ${status.engines} engines`],
  ["Listens at", "listen_address", (status) => status.listen_address ?? "nowhere: it only dials"],
  ["Seen from outside as", "external_address", (status) => status.external_address ?? "not known"],
  ["Network, chain", "network_id", (status) => `${status.network_id}, ${status.chain_id}`],
  ["Genesis", "genesis_hash", (status) => status.genesis_hash],
  ["Blocks from", "earliest_height", (status) => count(status.earliest_height)],
  ["Known addresses", "places.known_addresses", (status) => count(status.places.known_addresses)],
  ["Capabilities", "capabilities", (status) => status.capabilities.join(", ") || "none"],
];

const valueOf = (status, field) => field.split(".").reduce((value, name) => value[name], status);

export function showAbout(store) {
  const facts = FACTS.map(([label, field, write]) => {
    const element = figure(field);
    byId("about").append(h("div", {}, h("dt", {}, label), h("dd", {}, element)));
    return { element, field, write };
  });
  store.subscribe((_, changed) => {
    if (!changed.has("status") || store.status === null) return;
    for (const { element, field, write } of facts) {
      setFigure(element, valueOf(store.status, field), write(store.status));
    }
    const { node_id: id, version } = store.status;
    byId("who").replaceChildren(
      `node ${short(id)}`, h("span", { class: "version" }, ` · ${version}`),
    );
  });
}
