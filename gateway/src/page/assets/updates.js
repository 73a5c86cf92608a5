// The table of updates: what goes where, in which wave, how far.

import { ago, attribute, field, h, reconcile, text } from "./dom.js";

const rows = new Map();

export function showUpdates(root, updates) {
  reconcile(root, rows, updates, (view) => view.id, makeRow, updateRow);
}

function makeRow(view) {
  const cell = (label, attributes, ...children) => h("td", { "data-label": label, ...attributes }, ...children);
  return h("tr", { "data-update": view.id },
    h("th", { scope: "row", title: view.id }, h("span", { class: "name" }, view.name ?? view.id)),
    cell("Version", { "data-field": "version" }),
    cell("State", { "data-field": "state" }),
    cell("Wave", { class: "num", "data-field": "wave" }),
    cell("Nodes", {}, h("span", { "data-field": "counts" }), h("p", { class: "fault", "data-field": "reason" })),
    cell("Begun", { class: "num dim", "data-field": "begun" }));
}

function updateRow(row, { bundle, plan, head, counts, created }) {
  attribute(row, "data-state", head.state.kind);
  text(field(row, "version"), bundle.version);
  text(field(row, "state"), head.soaking && head.state.kind === "running" ? "running, soaks" : head.state.kind);
  text(field(row, "reason"), head.state.reason ?? "");
  text(field(row, "wave"), `${head.wave + 1} of ${plan.waves.length}`);
  text(field(row, "counts"), Object.entries(counts).map(([state, count]) => `${count} ${state}`).join(" · "));
  text(field(row, "begun"), ago(created));
}
