// The dashboard: shows each event of /api/events, and sends orders by POST.
import { follow, get, hasToken, useToken } from "./dashboard/api.js";
import { watchCertificates } from "./dashboard/certificates.js";
import { compare, happened } from "./dashboard/changes.js";
import { hiddenWord, plot, stalls } from "./dashboard/charts.js";
import { $, notice, set } from "./dashboard/dom.js";
import { showEdges } from "./dashboard/edges.js";
import { showNode } from "./dashboard/node.js";
import { showNodes } from "./dashboard/nodes.js";
import { showPool } from "./dashboard/pool.js";
import { showPools } from "./dashboard/pools.js";

// Pause before the page connects again, in milliseconds.
const AGAIN = 2000;
// Pause between two looks at the metrics, in milliseconds: their text is long where nodes are many.
const STALLS = 5000;

let last = null;

function show(now) {
  const at = performance.now();
  const seconds = last ? Math.max(0.5, (at - last.at) / 1000) : 1;
  set($("ready"), now.ready === true ? "ready" : now.ready);
  $("ready").className = now.ready === true ? "up" : "down";
  showNodes(now.nodes, last?.nodes, seconds);
  const { uneven, hidden } = showPools(now);
  showEdges(now.site);
  showNode(now.nodes);
  showPool(now.pools);
  plots(now, seconds, uneven, hidden);
  compare(last, now);
  last = { ...now, at };
  document.title = title(now);
  // Time this took, for whoever measures it.
  document.body.dataset.milliseconds = (performance.now() - at).toFixed(1);
}

// The tab tells of nodes that are Down.
function title(now) {
  const down = now.nodes.filter((node) => node.state === "down").length;
  return down ? `${down} Down – Pushgate` : "Pushgate";
}

function plots(now, seconds, uneven, hidden) {
  const whole = (n) => Math.round(n).toLocaleString("en");
  const sum = (nodes, field) => nodes.reduce((all, node) => all + node[field], 0);
  const total = sum(now.nodes, "flows_total");
  const grown = last ? Math.max(0, (total - sum(last.nodes, "flows_total")) / seconds) : null;
  plot("Flows", "live flows of all nodes", sum(now.nodes, "flows"), 0, whole);
  plot("New flows a second", "at all nodes", grown, 0, whole);
  plot("Evenness", "of the least even pool; 1 is even", uneven, 1, (n) => n.toFixed(2));
  const hint = "99 % of the flows that ended in the last minute hid at most this, at the worst listener";
  plot("Hidden bytes", hint, hidden, 0, hiddenWord);
  for (const [who, value] of stalled) {
    const stall = "seconds of stalls in a second: how many stand still at once, on average";
    plot(`Stalled: ${who}`, stall, value, 0, (n) => n.toFixed(2));
  }
}

// Stalls in a second, by who stalls; empty if the edge does not count them.
let stalled = new Map();
let seen = null;

async function lookForStalls(turn) {
  const answer = await get("metrics");
  const found = answer && stalls(await answer.text());
  if (turn !== turns || !found) return;
  const at = performance.now();
  for (const [who, value] of found.found) {
    const was = seen?.found.get(who);
    const grown = was === undefined ? null : Math.max(0, (value - was) / ((at - seen.at) / 1000));
    stalled.set(who, found.grows ? grown : value);
  }
  seen = { ...found, at };
  setTimeout(() => lookForStalls(turn), STALLS);
}

// Connections so far; what belongs to an earlier one ends.
let turns = 0;

function begun(status) {
  $("login").hidden = status !== 401;
  if (status === 401) return notice(hasToken() ? "the edge refused this token" : "");
  if (status !== 200) return null;
  notice("");
  if (turns > 0) happened("connected again");
  turns += 1;
  stalled = new Map();
  seen = null;
  lookForStalls(turns);
  return watchCertificates();
}

async function run() {
  for (;;) {
    try {
      if (!(await follow(begun, show))) return;
    } catch (e) {
      if ($("ready").textContent !== "no connection") happened(`no connection: ${e.message}`, "down");
      notice(`${e.message}; what is shown is old`);
      set($("ready"), "no connection");
      $("ready").className = "down";
    }
    await new Promise((again) => setTimeout(again, AGAIN));
  }
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, textarea, dialog");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  $("filter").focus();
  $("filter").select();
});
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken($("token").value);
  run();
});
run();
