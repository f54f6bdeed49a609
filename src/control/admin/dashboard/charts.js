// Small charts of the last two minutes, drawn as SVG, and the values they show.
import { $, element, kib, mark, set } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
// One value a second.
const KEPT = 120;
// Hidden bytes are those of the flows that ended within this many seconds.
const RECENT = 60;

// Values by name, the newest last; null is a second without a value.
export class History {
  constructor() {
    this.values = new Map();
  }

  add(name, value) {
    const values = this.values.get(name) ?? [];
    values.push(value);
    if (values.length > KEPT) values.shift();
    this.values.set(name, values);
    return values;
  }

  // Drops what is not among `names`.
  keep(names) {
    const kept = new Set(names);
    for (const name of this.values.keys()) if (!kept.has(name)) this.values.delete(name);
  }
}

export function chart() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "chart");
  svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 40`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  for (const kind of ["area", "line"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", kind);
    svg.append(path);
  }
  return svg;
}

// Draws values from `floor` upwards; `name` says what they are, `word` makes one readable.
export function draw(svg, values, floor, name, word) {
  const known = values.filter((value) => value !== null);
  const top = Math.max(...known, floor);
  const scale = top > floor ? 36 / (top - floor) : 0;
  const first = KEPT - values.length;
  let [line, area, begin] = ["", "", null];
  values.forEach((value, i) => {
    const x = first + i;
    if (value !== null) {
      const y = (38 - Math.max(0, value - floor) * scale).toFixed(1);
      line += `${begin === null ? "M" : "L"}${x} ${y}`;
      area += `${begin === null ? `M${x} 40L` : "L"}${x} ${y}`;
      begin ??= x;
    }
    if (begin !== null && (value === null || i === values.length - 1)) {
      const end = value === null ? x - 1 : x;
      // A single value is a short line, or nothing would be seen.
      if (begin === end) line += "h.5";
      area += `L${end} 40Z`;
      begin = null;
    }
  });
  mark(svg.children[0], "d", area);
  mark(svg.children[1], "d", line);
  const now = values[values.length - 1];
  const most = known.length ? `; highest ${word(top)} in the last ${values.length} s` : "";
  mark(svg, "aria-label", `${name}: ${now === null ? "no value" : word(now)}${most}`);
}

// A chart with its title and its newest value.
function card(title, hint) {
  const made = element("figure", "", "card");
  const caption = element("figcaption", title);
  caption.title = hint;
  made.append(caption, element("strong"), element("small"), chart());
  $("charts").append(made);
  return { made, title, hint, values: [] };
}

const history = new History();
const cards = new Map();

// Adds a value to the chart `title`, which it makes at the first value.
export function plot(title, hint, value, floor, word) {
  if (!cards.has(title)) cards.set(title, card(title, hint));
  const { made } = cards.get(title);
  const values = history.add(title, value);
  const [, strong, small, svg] = made.children;
  set(strong, value === null ? "–" : word(value));
  const known = values.filter((one) => one !== null);
  set(small, known.length ? `max ${word(Math.max(...known))}` : "");
  draw(svg, values, floor, title, word);
}

const ended = new Map();

// Beyond the last bound of the histogram, 1 MiB.
const BEYOND = 2097152;

// Returns the bound that the hidden bytes of 99 % of a listener's recently ended flows kept; null if none has
// ended.
export function recentHidden(listener) {
  const { name, hidden } = listener;
  const seen = ended.get(name) ?? [];
  seen.push(hidden);
  if (seen.length > RECENT + 1) seen.shift();
  ended.set(name, seen);
  // A new process counts from 0.
  const first = seen[0].flows > hidden.flows ? { flows: 0, within: [] } : seen[0];
  const flows = hidden.flows - first.flows;
  if (flows === 0) return null;
  const before = new Map(first.within ?? []);
  const of = (hidden.within ?? []).find(
    ([bound, count]) => (count - (before.get(bound) ?? 0)) * 100 >= flows * 99);
  return of ? of[0] : BEYOND;
}

export function hiddenWord(bytes) {
  if (bytes === 0) return "0 KiB";
  return bytes === BEYOND ? "> 1 MiB" : `≤ ${kib(bytes)}`;
}

// Stalls from the text of /metrics: seconds by who stalled, as a total or at this moment. Null without them.
export function stalls(text) {
  const kind = /^# TYPE pushgate_stall_seconds (\w+)$/m.exec(text)?.[1];
  if (!kind) return null;
  const end = kind === "histogram" || kind === "summary" ? "_sum" : "";
  const line = new RegExp(`^pushgate_stall_seconds${end}\\{([^}]*)\\} (\\S+)$`, "gm");
  const found = new Map();
  for (const [, labels, value] of text.matchAll(line)) {
    const who = /who="([^"]*)"/.exec(labels)?.[1] ?? "all";
    found.set(who, (found.get(who) ?? 0) + Number(value));
  }
  return { found, grows: kind !== "gauge" };
}
