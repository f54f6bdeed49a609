// The table of the site's edges; hidden where this edge is alone.
import { $, mark, set, span } from "./dom.js";
import { Table, cells } from "./table.js";

const edges = new Table($("edges"), (one) => `${one.name} ${one.id}`, (row, one) => {
  cells(row, ["name", "n", "n", "", "", "", ""]);
  set(row.cells[0], one.here ? `${one.name} (this edge)` : one.name);
}, (row, one) => {
  set(row.cells[1], one.flows);
  set(row.cells[2], span(Math.max(0, Date.now() / 1000 - one.since)));
  set(row.cells[3], one.addresses.join(", "));
  mark(row.cells[3], "title", row.cells[3].textContent);
  set(row.cells[4], one.version);
  set(row.cells[5], one.configuration.slice(0, 8));
  const state = one.draining ? "draining" : "";
  set(row.cells[6], [state, ...one.warnings].filter(Boolean).join("; ") || "–");
  mark(row.cells[6], "class", one.warnings.length ? "state down" : "");
});

const said = (store) => (store.seconds === null ? store.state : `${store.state} for ${span(store.seconds)}`);

export function showEdges(site) {
  $("site").hidden = site.store === null;
  if (site.store === null) return;
  set($("store"), `Store: ${said(site.store)}.`);
  mark($("store"), "class", site.store.state === "ok" ? "soft" : "state down");
  edges.show(site.edges);
}
