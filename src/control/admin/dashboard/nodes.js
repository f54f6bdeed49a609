// The table of nodes: counts by state, filter, order, and the orders of each node.
import { nodePath } from "./api.js";
import { $, button, mark, ofSite, set, span } from "./dom.js";
import { nodeKey, openNode, ORDERS, title, why } from "./node.js";
import { Table, cells } from "./table.js";

const STATES = ["down", "draining", "up"];

let shown = [];
let counted = "";
let [sorted, falling] = ["name", false];
let positions = new Map();
let newFlows = new Map();
let most = 1;
const natural = new Intl.Collator("en", { numeric: true });

function make(row, node) {
  cells(row, ["name", "state", "n", "n", "", "n", "", "", "", "orders"]);
  row.cells[0].append(button(title(node), `${title(node)}: details`, () => openNode(row.one)));
  row.cells[0].firstChild.className = "link";
  const meter = document.createElement("meter");
  // The number stands beside it.
  meter.setAttribute("aria-hidden", "true");
  row.cells[4].append(meter);
  for (const [label, give] of Object.entries(ORDERS)) {
    const made = button(label, `${label} ${title(node)}`, () => give(row.one));
    made.dataset.order = nodePath(node, label.toLowerCase());
    made.className = "wide";
    row.cells[9].append(made);
  }
  const more = button("⋯", `Orders for ${title(node)}`, () => openNode(row.one));
  more.className = "narrow";
  row.cells[9].append(more);
}

function fill(row, node) {
  set(row.cells[1], node.state);
  mark(row.cells[1], "class", `state ${node.state}`);
  mark(row, "data-state", node.state);
  set(row.cells[2], span(node.state_seconds));
  set(row.cells[3], ofSite(node));
  const meter = row.cells[4].firstChild;
  if (meter.max !== most) meter.max = most;
  if (meter.value !== node.flows) meter.value = node.flows;
  set(row.cells[5], newFlows.get(nodeKey(node)) ?? "–");
  set(row.cells[6], node.address);
  set(row.cells[7], node.pools.join(", "));
  set(row.cells[8], why(node));
  mark(row.cells[8], "title", row.cells[8].textContent);
}

const table = new Table($("nodes"), nodeKey, make, fill);

const VALUES = {
  name: () => 0,
  flows: (node) => node.flows,
  new: (node) => newFlows.get(nodeKey(node)) ?? 0,
  since: (node) => node.state_seconds,
  address: (node) => node.address,
  pool: (node) => node.pools.join(", "),
};

// Down comes first whatever the order, then Draining.
function compare(a, b) {
  const state = STATES.indexOf(a.state) - STATES.indexOf(b.state);
  if (state) return state;
  const [x, y] = [VALUES[sorted](a), VALUES[sorted](b)];
  const value = typeof x === "number" ? x - y : natural.compare(x, y);
  const name = natural.compare(a.name, b.name);
  return (falling ? -value : value) || (falling && sorted === "name" ? -name : name);
}

// While somebody points at a row or is in it by the keyboard, rows do not change places under the button.
function held() {
  const pointed = matchMedia("(hover: hover)").matches && $("nodes").matches(":hover");
  return pointed || $("nodes").contains(document.activeElement);
}

function arranged(list, again) {
  const keep = !again && held();
  $("held").hidden = !keep;
  if (keep) {
    const at = (node) => positions.get(nodeKey(node)) ?? Infinity;
    list.sort((a, b) => at(a) - at(b) || 0);
  } else {
    list.sort(compare);
  }
  positions = new Map(list.map((node, i) => [nodeKey(node), i]));
  return list;
}

function matches(node, words) {
  const text = [node.name, node.address, node.state, ...node.pools, node.source ?? "", why(node)];
  const said = text.join(" ").toLowerCase();
  return words.every((word) => said.includes(word));
}

function counts() {
  const count = (state) => shown.filter((node) => node.state === state).length;
  for (const chip of $("states").children) {
    const state = chip.dataset.state;
    set(chip.lastElementChild, state ? count(state) : shown.length);
    mark(chip, "aria-pressed", counted === state);
  }
}

// Shows the nodes that the filter leaves. `again` puts them in order even under the pointer.
function refresh(again) {
  counts();
  const words = $("filter").value.toLowerCase().split(/\s+/).filter((word) => word !== "");
  let list = counted ? shown.filter((node) => node.state === counted) : [...shown];
  if (words.length) list = list.filter((node) => matches(node, words));
  table.show(arranged(list, again));
  set($("matching"), list.length === shown.length ? "" : `${list.length} of ${shown.length} shown`);
  $("no-nodes").hidden = list.length > 0;
}

export function showNodes(all, last, seconds) {
  most = all.reduce((most, node) => Math.max(most, node.flows), 1);
  const before = new Map((last ?? []).map((node) => [nodeKey(node), node.flows_total]));
  newFlows = new Map();
  for (const node of all) {
    const was = before.get(nodeKey(node));
    if (was !== undefined) {
      newFlows.set(nodeKey(node), Math.max(0, Math.round((node.flows_total - was) / seconds)));
    }
  }
  shown = all;
  refresh(false);
}

for (const heading of document.querySelectorAll("button[data-sort]")) {
  heading.addEventListener("click", () => {
    const by = heading.dataset.sort;
    // Numbers begin with the largest.
    falling = by === sorted ? !falling : ["flows", "new"].includes(by);
    sorted = by;
    for (const other of document.querySelectorAll("button[data-sort]")) {
      const direction = falling ? "descending" : "ascending";
      mark(other.closest("th"), "aria-sort", other === heading ? direction : "none");
    }
    refresh(true);
  });
}
for (const chip of $("states").children) {
  chip.addEventListener("click", () => {
    counted = chip.dataset.state;
    refresh(true);
  });
}
$("filter").addEventListener("input", () => refresh(true));
