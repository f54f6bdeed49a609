// The admin endpoint: the stream of events, answers, and orders by POST. If the edge wants a token, it stays
// in this tab.
import { notice } from "./dom.js";

let token = sessionStorage.getItem("token");

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

export function useToken(given) {
  token = given;
  sessionStorage.setItem("token", given);
}

export const hasToken = () => token !== null;

// Paths in which a name is one step.
export const nodePath = (node, word) =>
  `api/nodes/${encodeURIComponent(node.name)}/${word}${node.removed ? "?removed" : ""}`;
export const poolPath = (name, word) => `api/pools/${encodeURIComponent(name)}/${word}`;

// Words of a query from the fields of a form; an empty field leaves its word out.
export function query(form, words) {
  const given = new URLSearchParams();
  for (const word of words) {
    const value = form.elements[word].value.trim();
    if (value !== "") given.set(word, value);
  }
  return given;
}

// Returns the answer, or null if there is none.
export async function get(path) {
  try {
    const answer = await fetch(path, { headers: headers() });
    return answer.ok ? answer : null;
  } catch {
    return null;
  }
}

// Sends an order. Returns the text of the answer; an error has a sentence.
export async function post(path) {
  const answer = await fetch(path, { method: "POST", headers: headers() });
  const text = (await answer.text()).trim();
  if (!answer.ok) throw new Error(`${text} (${answer.status})`);
  return text;
}

// Gives an order and says above the page what became of it.
export async function order(what, path) {
  try {
    await post(path);
    notice("");
    return true;
  } catch (e) {
    notice(`${what}: ${e.message}`);
    return false;
  }
}

// Calls `show` with each event. Returns false if the edge wants another token, and fails when the stream ends.
// EventSource cannot send a token, so fetch reads the stream.
export async function follow(begun, show) {
  const answer = await fetch("api/events", { headers: headers() });
  begun(answer.status);
  if (answer.status === 401) return false;
  if (!answer.ok) throw new Error(`${(await answer.text()).trim()} (${answer.status})`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  // An event of 1,000 nodes comes in many pieces; only its last piece is searched for the end.
  let pieces = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the edge closed the connection");
    pieces.push(value);
    if (!value.includes("\n\n") && !value.startsWith("\n")) continue;
    const events = pieces.join("").split("\n\n");
    pieces = [events.pop()];
    // Of events that piled up only the last one counts.
    const data = events.map(text).filter((said) => said !== "").pop();
    if (data) show(JSON.parse(data));
  }
}

const text = (event) =>
  event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
