// The table of streams: one strip of segments, one line of delays, one ladder each.

import { attribute, bitrate, field, h, millis, number, percentile, rebuild, reconcile, svg, text, NONE } from "./dom.js";

const rows = new Map();

export function showStreams(root, streams, play) {
  reconcile(root, rows, streams, (view) => view.stream, (view) => makeRow(view, play), updateRow);
}

export const delaysOf = (segments) => segments.map((segment) => segment.delay_ms).filter(Number.isFinite);

/** Media milliseconds and worker milliseconds of the segments with a report. */
export function work(segments) {
  let media = 0;
  let wall = 0;
  for (const { report, duration } of segments) {
    if (!report) continue;
    media += duration;
    wall += report.wall_us / 1000;
  }
  return { media, wall };
}

function makeRow(view, play) {
  const button = h("button", { type: "button", "data-action": "play", "aria-label": `Watch ${view.stream}` }, svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("path", { d: "M2 1l7 4-7 4z" })), "Watch");
  const cell = (label, attributes, ...children) => h("td", { "data-label": label, ...attributes }, ...children);
  const row = h("tr", { "data-stream": view.stream },
    h("th", { scope: "row", title: view.stream }, h("i", { class: "live-dot", "aria-hidden": "true" }), h("span", { class: "name" }, view.stream), h("span", { class: "hidden", "data-field": "state" })),
    cell("Node", { "data-field": "node" }),
    cell("Ladder", { class: "ladder", "data-part": "ladder" }),
    cell("Last segments", {}, h("div", { class: "strip", "data-part": "strip" }), h("p", { class: "fault", "data-field": "fault" })),
    cell("Segments", { class: "num" }, h("span", { "data-field": "segments" }), h("span", { class: "failed", "data-part": "failed" }, " · ", h("span", { "data-field": "failed" }), " failed")),
    cell("Delay", { class: "spark-cell" }, h("div", { "data-part": "spark" })),
    cell("p50", { class: "num", "data-field": "delay" }),
    cell("p95", { class: "num dim", "data-field": "delay-p95" }),
    cell("Real time", { class: "num", "data-field": "real-time" }),
    h("td", { class: "act" }, button));
  button.addEventListener("click", () => play(row.view));
  return row;
}

function updateRow(row, view) {
  row.view = view;
  attribute(row, "data-live", view.live);
  text(field(row, "state"), view.live ? ", live" : ", ended");
  text(field(row, "node"), view.node ?? NONE);
  text(field(row, "segments"), number(view.segments_total));
  text(field(row, "failed"), number(view.segments_failed));
  row.querySelector('[data-part="failed"]').hidden = view.segments_failed === 0;

  const delays = delaysOf(view.segments);
  text(field(row, "delay"), millis(percentile(delays, 50)));
  text(field(row, "delay-p95"), millis(percentile(delays, 95)));
  const { media, wall } = work(view.segments);
  text(field(row, "real-time"), wall > 0 ? `${number(media / wall, 1)} ×` : NONE);
  const playable = view.segments.some((segment) => segment.state === "done");
  row.querySelector('[data-action="play"]').disabled = !playable;

  const recent = view.segments.slice(-20);
  rebuild(row.querySelector('[data-part="strip"]'), recent.map(({ segment, state, delay_ms, node, attempts }) => [segment, state, delay_ms, node, attempts]), () => recent.map(block));
  // A red block asks why; the answer must not need a mouse.
  const faulty = recent.findLast((segment) => segment.state === "failed" && segment.fault);
  text(field(row, "fault"), faulty ? `#${faulty.segment}: ${faulty.fault.text}` : "");
  attribute(field(row, "fault"), "title", faulty ? faulty.fault.text : null);
  rebuild(row.querySelector('[data-part="spark"]'), delays.slice(-20), () => [sparkline(delays.slice(-20))]);
  rebuild(row.querySelector('[data-part="ladder"]'), [view.ladder, view.renditions], () => ladder(view));
}

function block(segment) {
  const slow = segment.state === "done" && segment.delay_ms > segment.duration;
  const facts = [`segment ${segment.segment}`, segment.state];
  if (Number.isFinite(segment.delay_ms)) facts.push(`delay ${millis(segment.delay_ms)}`);
  if (segment.node) facts.push(segment.node);
  if (segment.attempts > 1) facts.push(`${segment.attempts} attempts`);
  if (segment.fault) facts.push(segment.fault.text);
  return h("i", {
    role: "img", title: facts.join("\n"), "aria-label": facts.join(", "), "data-segment": segment.segment,
    "data-state": segment.state, "data-slow": slow || null, "data-delay": segment.delay_ms, "data-retried": segment.attempts > 1 || null,
  });
}

function sparkline(delays) {
  const [width, height, pad] = [104, 26, 3];
  const picture = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  if (delays.length < 2) return picture;
  const top = Math.max(...delays) * 1.1 || 1;
  const step = (width - 2 * pad) / (delays.length - 1);
  const points = delays.map((delay, at) => [pad + at * step, height - pad - (delay / top) * (height - 2 * pad)].map((v) => +v.toFixed(1)));
  const line = points.map((point) => point.join(" ")).join("L");
  const [lastX, lastY] = points.at(-1);
  picture.append(
    svg("path", { class: "area", d: `M${points[0][0]} ${height}L${line}L${lastX} ${height}Z` }),
    svg("path", { class: "line", d: `M${line}` }),
    svg("circle", { cx: lastX, cy: lastY, r: 2 }));
  return picture;
}

/** Rungs as bars whose width is the picture's height: a ladder looks like one. */
function ladder({ ladder: names, renditions }) {
  const known = new Map((renditions ?? []).map((rendition) => [rendition.name, rendition]));
  const tallest = Math.max(1, ...(renditions ?? []).map((r) => Math.min(r.width, r.height)));
  return names.map((name) => {
    const r = known.get(name);
    const rate = r?.rate?.bitrate !== undefined ? bitrate(r.rate.bitrate) : r?.rate?.quality !== undefined ? `quality ${r.rate.quality}` : null;
    const facts = r ? [name, r.codec, `${r.width}x${r.height}`, r.fps ? `${r.fps} fps` : null, rate, r.container].filter(Boolean).join(" · ") : name;
    const rung = h("span", { class: "rung", "data-rendition": name, title: facts }, h("i", { "aria-hidden": "true" }), h("span", {}, name), rate ? h("small", {}, rate) : null);
    rung.firstElementChild.style.width = `${Math.max(6, r ? (Math.min(r.width, r.height) / tallest) * 34 : 20)}px`;
    return rung;
  });
}
