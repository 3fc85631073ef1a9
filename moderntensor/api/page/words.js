// What the node is doing, in one sentence.

import { count, duration, several } from "./format.js";

/** `status` is a NodeStatus, `sync` a SyncState or null, `head` the newest head known. */
export function sentence(status, sync, head) {
  const height = count(head.height);
  const phase = sync?.phase ?? status.phase;
  const peers = status.places.inbound + status.places.outbound;
  const target = sync === null ? null : count(sync.target_height);
  switch (phase) {
    case "headers":
      if (target === null) return "Fetching headers";
      return `Fetching headers: ${count(sync.header_height)} of ${target}`;
    case "state":
      if (sync?.accounts_total == null) return "Fetching the accounts of a recent block";
      return (
        `Fetching the accounts as of block ${count(sync.pivot_height ?? 0)}: ` +
        `${count(sync.accounts_done)} of ${count(sync.accounts_total)}`
      );
    case "blocks":
      if (target === null) return `Syncing, at block ${height}`;
      return `Syncing: block ${count(sync.current_height)} of ${target}`;
    case "following":
      if (status.producing && !peers) return `Making blocks alone, at block ${height}`;
      if (status.producing) return `Following and making blocks, at block ${height}`;
      return `Following the chain, at block ${height}`;
    case "idle":
      if (status.producing) return `Making blocks${peers ? "" : " alone"}, at block ${height}`;
      return `Idle, at block ${height}`;
    case "waiting":
      if (status.producing && !peers) return `Making blocks alone, at block ${height}`;
      return peers ? `Waiting to sync, at block ${height}` : "Waiting for peers";
    default: // of a newer node
      return `At block ${height}`;
  }
}

/** What the sentence leaves out; may be empty. */
export function detail(status, sync) {
  const parts = [];
  if (sync?.waiting) parts.push(`${capital(sync.waiting)}.`);
  const { inbound, outbound } = status.places;
  if (inbound + outbound) {
    parts.push(`${several(inbound + outbound, "peer")}: ${outbound} dialled, ${inbound} came.`);
  } else if (!sync?.waiting) parts.push("Nobody is connected."); // which is why it waits
  if (sync?.backfilling) {
    parts.push(`Older blocks are being fetched, down from ${count(status.earliest_height)}.`);
  }
  if (!status.has_state) parts.push("The accounts are still to be fetched.");
  return parts.join(" ");
}

/** Beside the bar. */
export function syncFigures(sync) {
  const state = sync.phase === "state" && sync.accounts_total !== null;
  const rate = state ? sync.accounts_per_second : sync.blocks_per_second;
  return {
    rate: state ? "accounts/s" : "blocks/s",
    perSecond: rate,
    left: sync.eta === null ? "time to go not known yet" : `${duration(sync.eta)} to go`,
  };
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
