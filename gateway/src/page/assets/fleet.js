// Node cards.

import { ago, attribute, bytes, field, h, number, rebuild, reconcile, span, text, NONE } from "./dom.js";

const cards = new Map();

export function showNodes(root, nodes) {
  reconcile(root, cards, nodes, (view) => view.node, makeCard, updateCard);
}

export const stateOf = (view) =>
  view.state === "online" && view.resting_until > Date.now() ? "resting" : view.state;

const meter = (name, label) =>
  h("div", { class: "meter" }, h("dt", {}, label), h("dd", { "data-field": name }, NONE), h("span", { class: "bar", "data-bar": name, "aria-hidden": "true" }, h("i")));

function makeCard(view) {
  return h("article", { class: "node", "data-node": view.node, "aria-label": `Node ${view.node}` },
    h("header", {},
      h("h3", {}, view.node),
      h("span", { class: "state" }, h("i", { "aria-hidden": "true" }), h("span", { "data-field": "state" })),
      h("span", { class: "seen dim", "data-field": "seen" })),
    h("p", { class: "board", "data-field": "board" }),
    h("dl", { class: "meters" },
      meter("load", "Load"), meter("memory", "Memory"),
      h("div", { class: "meter" }, h("dt", {}, "Workers"), h("dd", { "data-field": "workers" }, NONE), h("span", { class: "pips", "data-pips": true, "aria-hidden": "true" })),
      h("div", { class: "meter" }, h("dt", {}, "Temp"), h("dd", { "data-field": "temperature" }, NONE)),
      h("div", { class: "meter" }, h("dt", {}, "Power"), h("dd", { "data-field": "power" }, NONE))),
    h("table", { class: "capabilities" }, h("caption", { class: "hidden" }, "Proved capabilities"), h("tbody", { "data-part": "capabilities" })),
    h("div", { class: "attempts", "data-part": "attempts" }),
    h("footer", {},
      h("span", {}, h("b", { "data-field": "done" }), " done"),
      h("span", { class: "failed" }, h("b", { "data-field": "failed" }), " failed"),
      h("span", {}, h("b", { "data-field": "running" }), " running"),
      h("span", { "data-field": "update" }),
      h("span", { class: "dim", "data-field": "version" })));
}

function updateCard(card, view) {
  const { birth, telemetry } = view;
  const state = stateOf(view);
  attribute(card, "data-state", state);
  text(field(card, "state"), state);
  text(field(card, "seen"), ago(view.last_seen));
  const board = birth?.board;
  text(field(card, "board"), board
    ? [board.model || board.profile, board.arch, `${board.cpus} cores`, board.os].filter(Boolean).join(" · ")
    : "Nothing known yet: it has not come online");
  attribute(field(card, "board"), "title", field(card, "board").textContent);

  const here = view.state !== "offline" ? telemetry : undefined;
  level(card, "load", here && here.load / (board?.cpus || 1), here ? `${number(here.load, 2)}${board ? ` / ${board.cpus}` : ""}` : NONE);
  const total = board?.memory_bytes;
  const used = here && total ? total - here.memory_available_bytes : undefined;
  level(card, "memory", used / total, used !== undefined ? pair(used, total) : NONE);

  const limit = birth?.limits.workers ?? 0;
  const workers = here?.workers ?? [];
  const busy = workers.filter((worker) => worker.busy).length;
  text(field(card, "workers"), birth ? `${busy} / ${limit}` : NONE);
  const pips = card.querySelector("[data-pips]");
  rebuild(pips, [limit, workers.map((worker) => worker.busy)], () =>
    Array.from({ length: Math.min(limit, 32) }, (_, at) => h("i", { "data-worker": at < busy ? "busy" : at < workers.length ? "warm" : "free" })));

  text(field(card, "temperature"), here?.temperature_c !== undefined ? `${number(here.temperature_c)} °C` : NONE);
  attribute(field(card, "temperature"), "data-throttled", here?.throttled ? "true" : null);
  text(field(card, "power"), here?.power_w !== undefined ? `${number(here.power_w, 1)} W` : NONE);

  rebuild(card.querySelector('[data-part="capabilities"]'), birth?.capabilities ?? [], () => (birth?.capabilities ?? []).map(capability));
  rebuild(card.querySelector('[data-part="attempts"]'), view.running, () => view.running.map(attempt));

  text(field(card, "done"), number(view.done));
  text(field(card, "failed"), number(view.failed));
  attribute(field(card, "failed").parentElement, "data-some", view.failed > 0 ? "true" : null);
  text(field(card, "running"), number(view.running.length));
  text(field(card, "update"), progress(view.update));
  text(field(card, "version"), birth ? [installed(birth), here && `up ${span(here.uptime)}`].filter(Boolean).join(", ") : "");
}

/** Of its image or package, where it has one. */
const installed = ({ agent_version, installation }) => {
  if (!installation?.version) return `v${agent_version}`;
  return installation.slot ? `v${installation.version} in ${installation.slot}` : `v${installation.version}`;
};

const OVER = ["done", "failed", "rolled_back"];

/** Nothing once it is over: the version tells. */
const progress = (update) => {
  if (!update || OVER.includes(update.state.kind)) return "";
  const percent = update.state.kind === "installing" ? ` ${update.state.percent}%` : "";
  return `${update.version}: ${update.state.kind}${percent}`;
};

/** `2.7 / 7.8 GB`: one unit for both. */
const pair = (used, total) => `${number(used / 1e9, 1)} / ${bytes(total)}`;

function level(card, name, part, label) {
  text(field(card, name), label);
  const bar = card.querySelector(`[data-bar="${name}"]`);
  const known = Number.isFinite(part);
  bar.firstElementChild.style.width = known ? `${Math.min(100, Math.max(0, part * 100))}%` : "0";
  attribute(bar, "data-high", known && part > 0.9 ? "true" : null);
}

function capability({ kind, codec, element, memory, speed_fps, width, height }) {
  return h("tr", { "data-capability": `${kind}:${codec ?? ""}:${element}`, "data-kind": kind },
    h("th", { scope: "row" }, h("span", { class: "kind" }, kind), codec ? ` ${codec}` : ""),
    h("td", { title: `${element}, ${memory} memory` }, h("code", {}, element), memory && memory !== "system" ? h("span", { class: "dim" }, ` ${memory}`) : null),
    h("td", { class: "num", title: `measured at ${width}x${height}` }, h("b", { "data-field": "fps" }, number(speed_fps)), " fps", h("span", { class: "dim" }, ` @${Math.min(width, height)}p`)));
}

function attempt({ task, stream, segment, epoch }) {
  return h("span", { class: "attempt", "data-attempt": task, title: `task ${task}, epoch ${epoch}` },
    h("i", { "aria-hidden": "true" }), h("span", { class: "name" }, stream), ` #${segment}`, epoch > 1 ? h("em", {}, ` try ${epoch}`) : null);
}
