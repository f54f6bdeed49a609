// A table of any length. Only the rows in view, and some around them, are elements; gaps stand for the others.
// So a refresh costs the same with 10 rows and with 10,000. Rows stay in place and only their cells change;
// otherwise a press could miss its button. The row that has the focus is kept wherever it is.
import { element, mark } from "./dom.js";

// Rows kept above and below the view, so that Tab finds the next button.
const AROUND = 12;
// A list of at most this many is there as a whole.
const WHOLE = 60;
// Height of a row in pixels, until one can be measured.
const ROW = 44;

export class Table {
  // `body`: the tbody, in a scroller. `key`: name of one entry. `make` fills a new row with cells, `fill`
  // writes what is to be shown.
  constructor(body, key, make, fill) {
    Object.assign(this, { body, key, make, fill, list: [], rows: new Map(), height: 0 });
    this.table = body.closest("table");
    this.scroller = body.closest(".scroll");
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.scroller);
  }

  show(list) {
    this.list = list;
    this.draw();
  }

  draw() {
    const focused = this.focused();
    const wanted = this.wanted(focused);
    const sequence = [];
    const rows = new Map();
    let next = 0;
    for (const i of wanted) {
      if (i > next) sequence.push(this.gap(i - next));
      const row = this.row(this.list[i], i);
      rows.set(row.dataset.name, row);
      sequence.push(row);
      next = i + 1;
    }
    if (next < this.list.length) sequence.push(this.gap(this.list.length - next));
    this.rows = rows;
    const lost = focused && !rows.has(focused.dataset.name);
    arrange(this.body, sequence, lost ? null : focused);
    // The row is gone with its node: the focus stays in the table.
    if (lost) this.scroller.focus({ preventScroll: true });
    mark(this.table, "aria-rowcount", this.list.length + 1);
  }

  focused() {
    const at = document.activeElement;
    return this.body.contains(at) ? at.closest("tr") : null;
  }

  // Positions of the rows to be shown, ascending.
  wanted(focused) {
    const all = this.list.length;
    let [from, to] = [0, all];
    if (all > WHOLE) {
      const height = this.rowHeight();
      const top = this.scroller.scrollTop;
      from = Math.max(0, Math.min(all, Math.floor(top / height)) - AROUND);
      to = Math.min(all, Math.ceil((top + this.scroller.clientHeight) / height) + AROUND);
    }
    const wanted = Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
    if (focused && all > WHOLE) {
      const at = this.list.findIndex((one) => this.key(one) === focused.dataset.name);
      if (at >= 0 && at < from) wanted.unshift(at);
      if (at >= to) wanted.push(at);
    }
    return wanted;
  }

  // All rows have the same height (dashboard.css); a zoom changes it.
  rowHeight() {
    const first = this.rows.values().next().value;
    const height = first?.isConnected ? first.offsetHeight : 0;
    if (height > 0) this.height = height;
    return this.height || ROW;
  }

  row(one, i) {
    const name = this.key(one);
    let row = this.rows.get(name);
    if (!row) {
      row = element("tr");
      row.dataset.name = name;
      row.one = one;
      this.make(row, one);
    }
    row.one = one;
    mark(row, "aria-rowindex", i + 2);
    this.fill(row, one);
    return row;
  }

  gap(rows) {
    const gap = element("tr", "", "gap");
    gap.setAttribute("aria-hidden", "true");
    gap.style.height = `${rows * (this.height || ROW)}px`;
    return gap;
  }
}

// Brings the children of `body` into `sequence`. A moved element loses the focus, so `fixed` stays and the
// others go around it.
function arrange(body, sequence, fixed) {
  const kept = new Set(sequence);
  for (const child of [...body.children]) if (!kept.has(child)) child.remove();
  if (sequence.length === 0) return;
  const middle = fixed ? sequence.indexOf(fixed) : 0;
  if (!fixed && body.firstChild !== sequence[0]) body.prepend(sequence[0]);
  for (let i = middle - 1; i >= 0; i -= 1) {
    if (sequence[i].nextSibling !== sequence[i + 1]) body.insertBefore(sequence[i], sequence[i + 1]);
  }
  for (let i = middle + 1; i < sequence.length; i += 1) {
    if (sequence[i].previousSibling !== sequence[i - 1]) sequence[i - 1].after(sequence[i]);
  }
}

// Adds cells of these classes to a row; the first one is its heading.
export function cells(row, classes) {
  classes.forEach((name, i) => {
    const cell = element(i === 0 ? "th" : "td", "", name);
    if (i === 0) cell.scope = "row";
    row.append(cell);
  });
}
