// The tables of pools, listeners and names in DNS.
import { order, poolPath } from "./api.js";
import { chart, draw, hiddenWord, History, recentHidden } from "./charts.js";
import { openPool, progress } from "./pool.js";
import { $, button, element, mark, ofSite, set, span } from "./dom.js";
import { Table, cells } from "./table.js";

const evenness = new History();
const hidden = new History();
const byName = (one) => one.name;
const two = (value) => value.toFixed(2);

// A cell with a number and its chart.
function charted(cell) {
  cell.append(element("span"), chart());
}

const pools = new Table($("pools"), byName, (row, pool) => {
  cells(row, ["name", "n", "n", "n", "", "orders"]);
  set(row.cells[0], pool.name);
  charted(row.cells[2]);
  const open = button("Rebalance…", `Rebalance ${pool.name}`, () => openPool(row.one));
  open.dataset.order = poolPath(pool.name, "rebalance");
  const path = poolPath(pool.name, "rebalance/cancel");
  const what = `Cancel the rebalance of ${pool.name}`;
  const cancel = button("Cancel", what, () => order(what, path));
  cancel.dataset.order = path;
  const more = button("⋯", `Orders for ${pool.name}`, () => openPool(row.one));
  open.className = cancel.className = "wide";
  more.className = "narrow";
  row.cells[5].append(open, cancel, more);
}, (row, pool) => {
  set(row.cells[1], ofSite(pool));
  set(row.cells[2].firstChild, two(pool.evenness));
  draw(row.cells[2].lastChild, evenness.values.get(pool.name), 1, `Evenness of ${pool.name}`, two);
  set(row.cells[3], pool.waiting);
  set(row.cells[4], progress(pool.rebalance));
  mark(row, "data-rebalance", pool.rebalance?.state ?? "");
});

const listeners = new Table($("listeners"), byName, (row, one) => {
  cells(row, ["name", "", "n", "n", "n", "n"]);
  set(row.cells[0], one.name);
  charted(row.cells[3]);
}, (row, one) => {
  set(row.cells[1], one.addresses.join(", "));
  set(row.cells[2], one.connections);
  const recent = hidden.values.get(one.name);
  const now = recent[recent.length - 1];
  set(row.cells[3].firstChild, now === null ? "–" : hiddenWord(now));
  draw(row.cells[3].lastChild, recent, 0, `Hidden bytes of ${one.name}`, hiddenWord);
  const { p99, flows } = one.hidden;
  set(row.cells[4], flows === 0 ? "–" : p99 === null ? "> 1 MiB" : hiddenWord(p99));
  set(row.cells[5], flows);
});

const names = new Table($("names"), byName, (row, one) => {
  cells(row, ["name", "", "", "", ""]);
  set(row.cells[0], one.name);
}, (row, one) => {
  set(row.cells[1], one.answer.map((target) => target.address).join(", ") || "–");
  mark(row.cells[1], "title", row.cells[1].textContent);
  const ago = one.answered === null ? null : Math.max(0, Date.now() / 1000 - one.answered);
  set(row.cells[2], ago === null ? "–" : `${span(ago)} ago`);
  set(row.cells[3], one.ttl_seconds === null ? "–" : `${one.ttl_seconds} s`);
  set(row.cells[4], one.failure ?? "–");
});

// Shows the tables. Returns the worst evenness, and the most hidden bytes of the last minute or null.
export function showPools(now) {
  for (const pool of now.pools) evenness.add(pool.name, pool.evenness);
  evenness.keep(now.pools.map(byName));
  pools.show(now.pools);
  const recent = now.listeners.map((one) => recentHidden(one));
  now.listeners.forEach((one, i) => hidden.add(one.name, recent[i]));
  hidden.keep(now.listeners.map(byName));
  listeners.show(now.listeners);
  $("discovery").hidden = now.discovery.length === 0;
  names.show(now.discovery.map((one) => ({ ...one, name: one.source })));
  const known = recent.filter((bytes) => bytes !== null);
  return {
    uneven: now.pools.reduce((most, pool) => Math.max(most, pool.evenness), 1),
    hidden: known.length ? Math.max(...known) : null,
  };
}
