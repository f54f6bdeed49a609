// The last changes that this page has seen, newest first. The edge keeps no list: what the page tells of the
// time before it was opened is each node's last change.
import { $, element } from "./dom.js";

const KEPT = 100;

// Adds changes, the oldest first: `{ at, text, state }`.
function add(changes) {
  const list = $("changes");
  for (const { at, text, state } of changes.slice(-KEPT)) {
    const line = element("li");
    const time = element("time", new Date(at).toLocaleTimeString());
    time.dateTime = new Date(at).toISOString();
    line.append(time, element("span", text, state ? `state ${state}` : ""));
    list.prepend(line);
  }
  while (list.children.length > KEPT) list.lastChild.remove();
  $("no-changes").hidden = list.children.length > 0;
}

export function happened(text, state = "") {
  add([{ at: Date.now(), text, state }]);
}

const nodeKey = (node) => `${node.name} ${node.address} ${node.removed}`;
const isSame = (a, b) => a.name === b.name && a.address === b.address && a.removed === b.removed;
const said = (node) => `${node.name} is ${node.state}${node.why ? `: ${node.why}` : ""}`;

// Notes what differs between two events. `last` is null at the first event.
export function compare(last, now) {
  if (!last) return add(before(now.nodes));
  const at = Date.now();
  const changes = nodeChanges(last.nodes, now.nodes, at);
  const runs = new Map(last.pools.map((pool) => [pool.name, pool.rebalance?.state]));
  for (const { name, rebalance } of now.pools) {
    if (rebalance && runs.get(name) !== rebalance.state) {
      changes.push({ at, text: `rebalance of ${name}: ${rebalance.state}, ${rebalance.moved} moved` });
    }
  }
  const failures = new Map(last.discovery.map((one) => [one.source, one.failure]));
  for (const { source, failure } of now.discovery) {
    if (failures.has(source) && failures.get(source) !== failure) {
      changes.push({ at, text: `DNS name ${source}: ${failure ?? "answered again"}` });
    }
  }
  changes.push(...edgeChanges(last.site.edges, now.site.edges, at));
  if (last.ready !== now.ready) {
    changes.push({ at, text: `the edge is ${now.ready === true ? "ready" : `not ready: ${now.ready}`}` });
  }
  return add(changes);
}

function edgeChanges(last, now, at) {
  const gone = last.filter((one) => !now.some((other) => other.id === one.id));
  const come = now.filter((one) => !last.some((other) => other.id === one.id));
  return [
    ...gone.map((one) => ({ at, text: `edge ${one.name} is gone`, state: "down" })),
    ...come.map((one) => ({ at, text: `edge ${one.name} is part of the site` })),
  ];
}

function nodeChanges(last, now, at) {
  const changes = [];
  // Mostly the same nodes come in the same order, and need no keys.
  const isOrdered = last.length === now.length && now.every((node, i) => isSame(node, last[i]));
  const known = new Map(isOrdered ? [] : last.map((node) => [nodeKey(node), node]));
  now.forEach((node, i) => {
    const was = isOrdered ? last[i] : known.get(nodeKey(node));
    if (!isOrdered) known.delete(nodeKey(node));
    if (!was) changes.push({ at, text: `${node.name} was added`, state: node.state });
    else if (was.state !== node.state) changes.push({ at, text: said(node), state: node.state });
  });
  for (const node of known.values()) changes.push({ at, text: `${node.name} was removed` });
  return changes;
}

function before(nodes) {
  const changed = nodes.filter((node) => node.why !== null);
  const changes = changed.map((node) => ({
    at: Date.now() - node.state_seconds * 1000, text: said(node), state: node.state,
  }));
  return changes.sort((a, b) => a.at - b.at);
}
