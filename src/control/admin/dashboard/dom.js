// Elements and words that every part of the page uses. All text is set as text, so nothing shown can become
// a tag.

export const $ = (id) => document.getElementById(id);

export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text !== "") made.append(text);
  made.className = className;
  return made;
}

// `name` is what a screen reader says: it tells apart the buttons of a thousand rows.
export function button(label, name, press) {
  const made = element("button", label);
  made.type = "button";
  made.setAttribute("aria-label", name);
  made.addEventListener("click", press);
  return made;
}

// Writes only what differs: each write costs a layout.
export function set(node, text) {
  const wanted = String(text);
  const child = node.firstChild;
  if (!child) {
    if (wanted !== "") node.append(wanted);
  } else if (child.nodeType !== Node.TEXT_NODE || child.nextSibling) {
    if (node.textContent !== wanted) node.textContent = wanted;
  } else if (child.data !== wanted) {
    child.data = wanted;
  }
}

// Sets an attribute only if it differs.
export function mark(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [unit, word] = parts.find(([unit]) => seconds >= unit) ?? [1, "s"];
  return `${Math.floor(seconds / unit)} ${word}`;
}

// Flows at this edge, and at all edges of the site where there are more.
export function ofSite(one) {
  return one.site_flows > one.flows ? `${one.flows} of ${one.site_flows}` : one.flows;
}

export function kib(bytes) {
  return bytes >= 1048576 ? `${bytes / 1048576} MiB` : `${bytes / 1024} KiB`;
}

// A definition list of facts: terms and texts in pairs. Rows of the list stay in place.
export function facts(list, pairs) {
  pairs.forEach(([term, text], i) => {
    if (!list.children[2 * i]) list.append(element("dt"), element("dd"));
    set(list.children[2 * i], term);
    set(list.children[2 * i + 1], text);
  });
  while (list.children.length > 2 * pairs.length) list.lastChild.remove();
}

export function notice(text) {
  set($("notice"), text);
}
