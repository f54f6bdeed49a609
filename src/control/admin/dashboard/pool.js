// The dialog of one pool: rebalance it, with a dry run before; cancel that; forget its assignments.
import { order, poolPath, post, query } from "./api.js";
import { ask } from "./ask.js";
import { $, element, facts, set } from "./dom.js";

let pool = null;

export function openPool(chosen) {
  pool = chosen;
  $("rebalance-form").reset();
  set($("pool-title"), `Rebalance ${pool.name}`);
  set($("rebalance"), `Rebalance ${pool.name}`);
  set($("pool-answer"), "");
  $("plan").hidden = true;
  options($("from"), pool.nodes);
  options($("forget-node"), pool.nodes);
  goal();
  poolFacts();
  $("pool").showModal();
}

function options(select, names) {
  const first = select.firstElementChild;
  select.replaceChildren(first, ...names.map((name) => element("option", name)));
}

function poolFacts() {
  facts($("pool-facts"), [
    ["Flows", `${pool.flows} at ${pool.nodes.length} nodes, ${pool.waiting} waiting`],
    ["Evenness", pool.evenness.toFixed(2)],
    ["Last rebalance", progress(pool.rebalance)],
  ]);
}

export function progress(run) {
  if (!run) return "–";
  const rest = run.left ? `, ${run.left} left (${Math.ceil(run.eta_seconds)} s)` : "";
  return `${run.state}, ${run.moved} moved${rest}`;
}

// A share goes with a node, a tolerance without.
function goal() {
  const form = $("rebalance-form");
  const one = form.elements.from.value !== "";
  form.elements.share.disabled = !one;
  form.elements.tolerance.disabled = one;
}

async function rebalance(isDry) {
  const form = $("rebalance-form");
  const one = form.elements.from.value !== "";
  const given = query(form, one ? ["from", "share", "rate"] : ["tolerance", "rate"]);
  if (!one) given.set("to_even", "");
  if (form.elements.close.checked) given.set("close", "");
  if (isDry) given.set("dry_run", "");
  try {
    const answer = JSON.parse(await post(`${poolPath(pool.name, "rebalance")}?${given}`));
    if (isDry) return plan(answer);
    $("pool").close();
  } catch (e) {
    set($("pool-answer"), e.message);
  }
  return null;
}

// What a dry run would move, by node. A pool of 1,000 nodes shows those that lose most.
const PLANNED = 10;

function plan(answer) {
  const clients = answer.left === 1 ? "1 client" : `${answer.left} clients`;
  set($("pool-answer"),
    `Dry run: would move ${clients} in ${Math.ceil(answer.eta_seconds)} s; evenness is ${answer.evenness}.`);
  const moving = answer.nodes.filter((one) => one.moves > 0).sort((a, b) => b.moves - a.moves);
  const lines = moving.slice(0, PLANNED).map((one) => {
    const line = element("tr");
    line.append(element("th", one.name), element("td", String(one.flows), "n"),
      element("td", String(one.moves), "n"));
    line.firstChild.scope = "row";
    return line;
  });
  $("plan").lastElementChild.replaceChildren(...lines);
  $("plan").hidden = lines.length === 0;
  if (moving.length > PLANNED) {
    $("pool-answer").append(` ${PLANNED} of ${moving.length} nodes are listed.`);
  }
}

function forget() {
  const name = pool.name;
  const one = $("forget-node").value;
  const what = one ? `Forget ${one} in ${name}` : `Forget ${name}`;
  const clients = one ? `clients that are stuck to ${one}` : "clients of the pool";
  ask(`${what}: sure?`,
    `The edge ends the assignments of all ${clients}. Live flows go on; the next flow of each client is ` +
    "balanced anew, and a client whose session is open loses it then.",
    what, async () => {
      const tail = one ? `?${new URLSearchParams({ node: one })}` : "";
      if (await order(what, poolPath(name, "forget") + tail)) $("pool").close();
    });
}

// Brings the dialog up to date if it is open.
export function showPool(pools) {
  if (!$("pool").open) return;
  pool = pools.find((one) => one.name === pool.name) ?? pool;
  poolFacts();
}

$("from").addEventListener("change", goal);
$("rebalance-form").addEventListener("submit", (event) => {
  event.preventDefault();
  rebalance(true);
});
$("rebalance").addEventListener("click", () => rebalance(false));
$("cancel-rebalance").addEventListener("click", async () => {
  try {
    await post(poolPath(pool.name, "rebalance/cancel"));
    set($("pool-answer"), "cancelled");
  } catch (e) {
    set($("pool-answer"), e.message);
  }
});
$("forget").addEventListener("click", forget);
