// The table of certificates, the one that ends first on top.
import { get } from "./api.js";
import { $, mark, set } from "./dom.js";
import { Table, cells } from "./table.js";

const EVERY = 60000;
// Fewer days are marked.
const SOON = 14;

function verdict(one) {
  if (one.warnings.includes("placeholder")) return ["not issued", "down"];
  if (one.days_left < 0) return ["expired", "down"];
  // The edge itself renews it, and the last order was no failure.
  const renewed = one.acme?.failures === 0;
  return one.days_left < SOON && !renewed ? ["ends soon", "draining"] : ["valid", "up"];
}

// Why the last order of a certificate failed, else its warnings.
const mend = (one) => [...one.warnings, one.acme?.failure ?? ""].filter((word) => word).join(", ");

const key = (one) => `${one.name} ${one.alias ?? ""}`;

const table = new Table($("certificates"), key, (row, one) => {
  cells(row, ["name", "state", "n", "", "", "", ""]);
  set(row.cells[0], one.alias ? `${one.name} (${one.alias})` : one.name);
}, (row, one) => {
  const [word, state] = verdict(one);
  set(row.cells[1], word);
  mark(row.cells[1], "class", `state ${state}`);
  set(row.cells[2], Math.floor(one.days_left));
  set(row.cells[3], new Date(one.not_after * 1000).toISOString().slice(0, 10));
  set(row.cells[4], one.names.join(", "));
  set(row.cells[5], one.listeners.join(", ") || "none");
  set(row.cells[6], mend(one) || "–");
});

async function look() {
  const answer = await get("api/certificates");
  if (!answer) return;
  const all = await answer.json();
  $("credentials").hidden = all.length === 0;
  table.show(all.sort((a, b) => a.days_left - b.days_left));
}

let timer = 0;

// Asks now, and from now on once a minute.
export function watchCertificates() {
  clearInterval(timer);
  timer = setInterval(look, EVERY);
  look();
}
