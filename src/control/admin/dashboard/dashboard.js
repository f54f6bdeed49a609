// The dashboard: shows each event of /api/events, and sends orders by POST. If the edge wants a token,
// it stays in this tab. All text is set as text, so nothing shown can become a tag.
"use strict";

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token");
let last = null;

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function notice(text) {
  $("notice").textContent = text;
}

// An order that ends sessions needs a second press within three seconds; the button says so.
function button(label, path, grave) {
  const made = element("button", label);
  made.type = "button";
  made.dataset.order = path;
  let armed = 0;
  made.addEventListener("click", async () => {
    if (grave && Date.now() > armed) {
      armed = Date.now() + 3000;
      made.textContent = `${label}: sure?`;
      made.classList.add("sure");
      setTimeout(() => { made.textContent = label; made.classList.remove("sure"); }, 3000);
      return;
    }
    armed = 0;
    made.textContent = label;
    made.classList.remove("sure");
    try {
      const answer = await fetch(path, { method: "POST", headers: headers() });
      notice(answer.ok ? "" : `${label}: ${(await answer.text()).trim()} (${answer.status})`);
    } catch (e) {
      notice(`${label}: ${e.message}`);
    }
  });
  return made;
}

// A removed node may have the same name as a current one.
const key = (one) => (one.removed ? `${one.name} ${one.address}` : one.name);

// Rows stay in place and only their cells change; otherwise a press could miss its button.
function rows(body, all, make, fill) {
  const old = new Map([...body.children].map((row) => [row.dataset.name, row]));
  for (const one of all) {
    let row = old.get(key(one));
    if (!row) {
      row = document.createElement("tr");
      row.dataset.name = key(one);
      make(row, one);
      body.append(row);
    }
    old.delete(key(one));
    fill(row, one);
  }
  for (const gone of old.values()) gone.remove();
}

function cells(row, classes) {
  for (const name of classes) row.append(element("td", "", name));
}

function set(cell, text) {
  if (cell.textContent !== String(text)) cell.textContent = text;
}

function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [unit, word] = parts.find(([unit]) => seconds >= unit) ?? [1, "s"];
  return `${Math.floor(seconds / unit)} ${word}`;
}

// Cause and age of the state, how long the node is held, and its last check if that did not pass.
function why(node) {
  const said = [`${node.why ?? "since the start"} (${span(node.state_seconds)})`];
  if (node.held_seconds !== null) said.push(`held ${span(node.held_seconds)} more`);
  const check = node.check;
  if (check && check.outcome !== "pass" && !said[0].includes(check.said)) said.push(check.said);
  return said.join("; ");
}

function nodes(all, seconds) {
  const most = Math.max(1, ...all.map((n) => n.flows));
  const before = new Map((last?.nodes ?? []).map((n) => [key(n), n.flows_total]));
  rows($("nodes"), all, (row, node) => {
    cells(row, ["", "state", "n", "", "n", "", "", "", ""]);
    row.cells[3].append(document.createElement("meter"));
    const at = (word) => `api/nodes/${node.name}/${word}${node.removed ? "?removed" : ""}`;
    row.cells[8].append(
      button("Drain", at("drain"), false), button("Up", at("up"), false),
      button("Down", at("down"), true), button("Evict", at("evict"), true));
  }, (row, node) => {
    set(row.cells[0], `${node.name}${node.backup ? " (backup)" : ""}${node.removed ? " (removed)" : ""}`);
    set(row.cells[1], node.state);
    row.cells[1].className = `state ${node.state}`;
    row.dataset.state = node.state;
    set(row.cells[2], node.flows);
    Object.assign(row.cells[3].firstChild, { max: most, value: node.flows });
    const was = before.get(key(node));
    set(row.cells[4], was === undefined ? "–" : Math.round((node.flows_total - was) / seconds));
    set(row.cells[5], node.address);
    set(row.cells[6], node.pools.join(", "));
    set(row.cells[7], why(node));
  });
}

function progress(run) {
  if (!run) return "–";
  const rest = run.left ? `, ${run.left} left (${Math.ceil(run.eta_seconds)} s)` : "";
  return `${run.state}, ${run.moved} moved${rest}`;
}

function pools(all) {
  rows($("pools"), all, (row, pool) => {
    cells(row, ["", "n", "n", "n", "", ""]);
    const at = `api/pools/${pool.name}/rebalance`;
    row.cells[5].append(
      button("Rebalance", `${at}?to_even&close`, true), button("Cancel", `${at}/cancel`, false));
  }, (row, pool) => {
    set(row.cells[0], pool.name);
    set(row.cells[1], pool.flows);
    set(row.cells[2], pool.evenness.toFixed(2));
    set(row.cells[3], pool.waiting);
    set(row.cells[4], progress(pool.rebalance));
    row.dataset.rebalance = pool.rebalance?.state ?? "";
  });
}

function listeners(all) {
  rows($("listeners"), all, (row) => cells(row, ["", "", "n", "n", "n"]), (row, one) => {
    set(row.cells[0], one.name);
    set(row.cells[1], one.addresses.join(", "));
    set(row.cells[2], one.connections);
    set(row.cells[3], one.hidden.p99 === null ? "–" : `≤ ${one.hidden.p99 / 1024} KiB`);
    set(row.cells[4], one.hidden.flows);
  });
}

function names(all) {
  $("discovery").hidden = all.length === 0;
  const named = all.map((one) => ({ ...one, name: one.source }));
  rows($("names"), named, (row) => cells(row, ["", "", "", "", ""]), (row, one) => {
    set(row.cells[0], one.name);
    set(row.cells[1], one.answer.map((target) => target.address).join(", ") || "–");
    const ago = one.answered === null ? null : Math.max(0, Date.now() / 1000 - one.answered);
    set(row.cells[2], ago === null ? "–" : `${span(ago)} ago`);
    set(row.cells[3], one.ttl_seconds === null ? "–" : `${one.ttl_seconds} s`);
    set(row.cells[4], one.failure ?? "–");
  });
}

function show(now) {
  const seconds = last ? Math.max(0.5, (performance.now() - last.at) / 1000) : 1;
  set($("ready"), now.ready === true ? "ready" : now.ready);
  $("ready").className = now.ready === true ? "up" : "down";
  nodes(now.nodes, seconds);
  pools(now.pools);
  listeners(now.listeners);
  names(now.discovery);
  last = { ...now, at: performance.now() };
}

// EventSource cannot send a token, so fetch reads the stream.
async function follow() {
  const answer = await fetch("api/events", { headers: headers() });
  $("login").hidden = answer.status !== 401;
  if (answer.status === 401) {
    notice(token ? "the edge refused this token" : "");
    return false;
  }
  if (!answer.ok) throw new Error(`${(await answer.text()).trim()} (${answer.status})`);
  notice("");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the edge closed the connection");
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5));
      if (data.length) show(JSON.parse(data.join("\n")));
    }
  }
}

async function run() {
  for (;;) {
    try {
      if (!(await follow())) return;
    } catch (e) {
      notice(e.message);
    }
    await new Promise((again) => setTimeout(again, 2000));
  }
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("token", token);
  run();
});
run();
