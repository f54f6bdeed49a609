// One node: its name, the words about its state, its orders, and the dialog with all of it.
import { nodePath, order, post, query } from "./api.js";
import { ask } from "./ask.js";
import { $, facts, set, span } from "./dom.js";

// A removed node may have the same name as a current one.
export const nodeKey = (node) => (node.removed ? `${node.name} ${node.address}` : node.name);

// Cause of the state, how long the node is held, its last check if that did not pass, and what its agent adds.
export function why(node) {
  const said = [node.why ?? "since the start"];
  if (node.held_seconds !== null) said.push(`held ${span(node.held_seconds)} more`);
  const check = node.check;
  if (check && check.outcome !== "pass" && !said[0].includes(check.said)) said.push(check.said);
  const agent = node.agent;
  if (agent && agent.outcome !== "pass") said.push(`no answer of its agent: ${agent.said}`);
  else if (agent?.overruled) said.push(`against its agent: ${agent.said}`);
  else if (agent && (agent.weight_percent ?? 100) !== 100) said.push(`agent: ${agent.weight_percent}%`);
  return said.join("; ");
}

export const title = (node) =>
  `${node.name}${node.backup ? " (backup)" : ""}${node.removed ? " (removed)" : ""}`;
const flows = (node) => (node.flows === 1 ? "its flow" : `its ${node.flows} flows`);

// Asks before an order that ends sessions.
export const ORDERS = {
  Drain: (node) => order(`Drain ${node.name}`, nodePath(node, "drain")),
  Up: (node) => order(`Up ${node.name}`, nodePath(node, "up")),
  Down: (node) => ask(`Down ${node.name}: sure?`,
    `The edge closes ${flows(node)}, unless the pool keeps them, and balances its clients anew.`,
    `Down ${node.name}`, () => order(`Down ${node.name}`, nodePath(node, "down"))),
  Evict: (node) => ask(`Evict ${node.name}: sure?`,
    `The edge closes ${flows(node)} at once. Stuck clients come back to the node.`,
    `Evict ${node.name}`, () => order(`Evict ${node.name}`, nodePath(node, "evict"))),
};

let node = null;

export function openNode(chosen) {
  node = chosen;
  $("drain-form").reset();
  set($("node-answer"), "");
  set($("node-title"), node.name);
  nodeFacts();
  $("node").showModal();
}

function nodeFacts() {
  const { check, drain } = node;
  const eta = drain?.eta_seconds;
  facts($("node-facts"), [
    ["State", `${node.state} for ${span(node.state_seconds)}: ${why(node)}`],
    ["Flows", `${node.flows} live, ${node.flows_total} since the start`],
    ["Address", `${node.address}, weight ${node.weight}`],
    ["Pools", node.pools.join(", ") || "none"],
    ...(node.source ? [["Found by", node.source]] : []),
    ["Order", node.order + (node.slow_start ? ", slow start" : "")],
    ...(node.agent ? [["Agent", `${node.agent.outcome}: ${node.agent.said} (${span(node.agent.seconds_ago)} ago)`]] : []),
    ["Last check", check ? `${check.outcome}: ${check.said} (${span(check.seconds_ago)} ago)` : "none"],
    ...(eta ? [["Ends of flows", `half within ${span(eta.half)}, all within ${span(eta.last)}`]] : []),
    ...(drain && drain.deadline_seconds !== null ? [["Deadline", `in ${span(drain.deadline_seconds)}`]] : []),
  ]);
}

async function drain() {
  const given = query($("drain-form"), ["deadline", "rate"]);
  if (node.removed) given.set("removed", "");
  const tail = String(given) === "" ? "" : `?${given}`;
  try {
    await post(nodePath({ ...node, removed: false }, "drain") + tail);
    $("node").close();
  } catch (e) {
    set($("node-answer"), e.message);
  }
}

// Brings the dialog up to date if it is open.
export function showNode(nodes) {
  if (!$("node").open) return;
  const found = nodes.find((one) => nodeKey(one) === nodeKey(node));
  set($("node-gone"), found ? "" : "This node is no longer there.");
  node = found ?? node;
  nodeFacts();
}

for (const label of ["Up", "Down", "Evict"]) {
  $(`node-${label.toLowerCase()}`).addEventListener("click", () => ORDERS[label](node));
}
$("drain-form").addEventListener("submit", (event) => {
  event.preventDefault();
  drain();
});
