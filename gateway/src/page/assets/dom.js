// Small helpers: elements, and numbers as people read them. Data becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

/** Sets a text only where it changed, so that nothing is repainted or read out again for nothing. */
export function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Sets or, with null, removes an attribute. */
export function attribute(node, name, value) {
  if (value === null || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

export const field = (root, name) => root.querySelector(`[data-field="${name}"]`);

/** Keeps `parent`'s children one to one with `items`, by key: made once, updated in place, moved only if out of order. */
export function reconcile(parent, known, items, key, make, update) {
  const seen = new Set();
  let at = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    seen.add(id);
    let node = known.get(id);
    if (!node) known.set(id, (node = make(item)));
    update(node, item);
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  for (const [id, node] of known) {
    if (!seen.has(id)) {
      node.remove();
      known.delete(id);
    }
  }
}

/** Rebuilds a part only when what it shows changed. */
export function rebuild(node, shown, make) {
  const key = JSON.stringify(shown);
  if (node.shownKey === key) return;
  node.shownKey = key;
  node.replaceChildren(...make());
}

export const NONE = "–";
export const number = (value, digits = 0) =>
  Number.isFinite(value) ? value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : NONE;

export function millis(value) {
  if (!Number.isFinite(value)) return NONE;
  if (value < 1000) return `${Math.round(value)} ms`;
  return value < 100_000 ? `${(value / 1000).toFixed(value < 10_000 ? 2 : 1)} s` : span(value);
}

export function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} days`;
}

export function ago(then, now = Date.now()) {
  const passed = Math.max(0, now - then);
  return passed < 2000 ? "now" : `${span(passed)} ago`;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return NONE;
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (value >= size) return `${(value / size).toFixed(value >= 20 * size ? 0 : 1)} ${unit}`;
  }
  return `${value} B`;
}

export const bitrate = (value) =>
  value >= 1e6 ? `${+(value / 1e6).toFixed(2)} Mb/s` : `${+(value / 1e3).toFixed(0)} kb/s`;

/** Of numbers in any order, by nearest rank; undefined of none. */
export function percentile(values, percent) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(1, Math.ceil((sorted.length * percent) / 100)) - 1];
}
