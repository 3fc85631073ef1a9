// The newest blocks; one that is chosen shows its transactions.

import { get, Refused } from "./api.js";
import { byId, figure, h, keyed, s, say, setFigure, tableRoles } from "./dom.js";
import { ago, bytes, count, percent, several, short } from "./format.js";

const TRANSACTIONS_SHOWN = 50;
const COLUMNS = 6;
const NEWS_FOR = 10 * 60 * 1000; // milliseconds that a reorganisation is shown

export function showBlocks(store) {
  const open = new Map(); // by hash: headers of the blocks that are opened
  const body = byId("blocks").tBodies[0];

  const draw = () => {
    const listed = new Set(store.headers.map(({ hash }) => hash));
    const kept = [...open.values()].filter(({ hash }) => !listed.has(hash));
    kept.sort((a, b) => b.height - a.height);
    const rows = [...store.headers, ...kept].flatMap((header) => {
      const row = { key: header.hash, header };
      return open.has(header.hash) ? [row, { key: `${header.hash} open`, header }] : [row];
    });
    keyed(body, rows, ({ key }) => key, (row) =>
      row.key === row.header.hash ? makeRow(row, store, toggle) : makeDetail(row));
    drawNews(store.reorganisation);
  };

  const toggle = (header, button) => {
    if (open.has(header.hash)) open.delete(header.hash);
    else open.set(header.hash, header);
    button.setAttribute("aria-expanded", open.has(header.hash));
    draw();
  };

  store.subscribe((_, changed) => {
    if (changed.has("reset")) open.clear();
    if (["headers", "reorganisation"].some((name) => changed.has(name))) draw();
  });
  setInterval(draw, 1000); // ages grow
}

function drawNews(event) {
  const note = byId("reorganised");
  note.hidden = event === null || Date.now() - event.at > NEWS_FOR;
  if (note.hidden) return;
  const lost = event.from_height - event.fork_height;
  const told = ago((Date.now() - event.at) / 1000);
  const when = event.late ? `while this page heard nothing, which it was told ${told}` : told;
  say(note, `Reorganised ${when}: the branch up to block ${count(event.from_height)} was left ` +
    `after block ${count(event.fork_height)} (${several(lost, "block")} undone) for one up to ` +
    `block ${count(event.to_height)}.`);
}

function makeRow({ header }, store, toggle) {
  const { hash } = header;
  const button = h("button", { type: "button", "aria-expanded": "false", class: "open" },
    figure("height", { value: header.height }));
  button.firstElementChild.textContent = count(header.height);
  button.addEventListener("click", () => toggle(header, button));
  const age = h("span");
  const transactions = figure("transactions");
  const full = header.gas_limit ? header.gas_used / header.gas_limit : 0;
  const cell = (label, name, ...children) =>
    h("td", { "data-label": label, class: name }, ...children);
  const element = h("tr", { "data-hash": hash },
    cell("Height", null, button), cell("Age", null, age),
    cell("Transactions", "num", transactions),
    cell("Gas used", null, gauge(full), full > 0 && full < 0.001 ? " < 0.1\u00a0%" : ` ${percent(full)}`),
    cell("Validator", "wide mono", short(header.validator)), cell("Hash", "wide mono", short(hash)));
  element.addEventListener("click", (event) => {
    if (!event.target.closest("button") && !String(getSelection())) button.click();
  });
  return {
    element,
    update: () => {
      const seconds = store.age(header.timestamp);
      say(age, seconds === null ? "" : ago(seconds));
      const known = store.counts.get(hash) ?? header.transactions ?? null;
      const idle = known === null && !header.gas_used;
      setFigure(transactions, known, known === null ? (idle ? "0" : "–") : count(known));
    },
  };
}

function gauge(share) {
  return s("svg", { class: "gauge", viewBox: "0 0 48 6", "aria-hidden": "true" },
    s("rect", { class: "track", width: 48, height: 6, rx: 3 }),
    s("rect", { class: "fill", width: share > 0 ? Math.max(3, 48 * share) : 0, height: 6, rx: 3 }));
}

function makeDetail({ header }) {
  const cell = h("td", { colspan: COLUMNS }, h("p", { class: "soft" }, "Asking for the block …"));
  const element = h("tr", { class: "detail" }, cell);
  get(`blocks/${header.hash}`)
    .then((block) => {
      cell.replaceChildren(...describe(block));
      tableRoles(cell);
    })
    .catch((error) => {
      const gone = error instanceof Refused && error.status === 404;
      cell.replaceChildren(h("p", {}, gone ? "The node no longer has this block's transactions."
        : "The node did not answer; close and open it to ask again."));
    });
  return { element, update: () => {} };
}

function describe({ header, size, transactions }) {
  const facts = [
    ["Hash", header.hash], ["Previous", header.previous_hash], ["State root", header.state_root],
    ["Validator", header.validator],
    ["Made", new Date(header.timestamp * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC"],
    ["Size", bytes(size)], ["Gas", `${count(header.gas_used)} of ${count(header.gas_limit)}`],
  ];
  const list = h("dl", { class: "about" },
    ...facts.map(([label, text]) => h("div", {}, h("dt", {}, label), h("dd", {}, text))));
  if (!transactions.length) return [list, h("p", { class: "soft" }, "No transactions.")];
  const rows = transactions.slice(0, TRANSACTIONS_SHOWN).map(describeTransaction);
  const heads = ["Transaction", "From", "To", "Value", "Gas", "Outcome"].map((name) =>
    h("th", { scope: "col", class: name === "Value" || name === "Gas" ? "num" : null }, name));
  const more = transactions.length - rows.length;
  return [
    list,
    h("h3", {}, several(transactions.length, "transaction")),
    h("table", { class: "stack transactions", role: "table" },
      h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows)),
    more > 0 ? h("p", { class: "soft" }, `and ${several(more, "transaction")} more`) : "",
  ];
}

function describeTransaction(transaction) {
  const { succeeded, gas_used: gas } = transaction;
  const outcome = succeeded === null ? "not known" : succeeded ? "took effect" : "failed";
  const cell = (label, name, ...text) => h("td", { "data-label": label, class: name }, ...text);
  return h("tr", { "data-hash": transaction.hash },
    cell("Transaction", "mono whole",
      h("a", { href: `v1/transactions/${transaction.hash}` }, short(transaction.hash))),
    cell("From", "mono", short(transaction.sender)),
    cell("To", "mono", transaction.to === null ? "nobody" : short(transaction.to)),
    cell("Value", "num amount whole", ...grouped(transaction.value)),
    cell("Gas", "num", gas === null ? "–" : count(gas)),
    cell("Outcome", succeeded === false ? "bad" : null, outcome));
}

/** Thousands apart, with places to break a line; amounts may be larger than numbers are exact, and
 * stay strings. */
function grouped(amount) {
  const groups = amount.replace(/\B(?=(\d{3})+$)/g, ", ").split(" ");
  return groups.flatMap((group) => [group, h("wbr")]);
}
