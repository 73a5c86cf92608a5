// Ties the feed to what is on the page.

import { attribute, byId, millis, number, percentile, text, NONE } from "./dom.js";
import { follow } from "./feed.js";
import { showNodes, stateOf } from "./fleet.js";
import { showUpdates } from "./updates.js";
import { delaysOf, showStreams, work } from "./streams.js";
import * as player from "./player.js";

const SAYS = { connecting: "connecting", live: "live", lost: "connection lost, retrying" };
const MINUTE = 60_000;
/** How often what only time changes is shown anew: "5 s ago", a rate that sinks when nothing comes. */
const TICK = 2000;
/** Moments and counts of finished segments, for the rate. */
const counts = [];
const latest = { nodes: [], done: undefined, state: "connecting" };

function onState(state) {
  latest.state = state;
  attribute(byId("connection"), "data-state", state);
  text(byId("connection").lastElementChild, SAYS[state]);
  attribute(document.body, "data-connection", state);
}

function onNodes(nodes) {
  nodes.sort((a, b) => a.node.localeCompare(b.node, "en", { numeric: true }));
  latest.nodes = nodes;
  showNodes(byId("nodes"), nodes);
  byId("no-nodes").hidden = nodes.length > 0;
  const there = nodes.filter((view) => view.state !== "offline");
  text(byId("nodes-online"), there.filter((view) => stateOf(view) !== "draining").length);
  text(byId("nodes-total"), nodes.length);
  const busy = there.flatMap((view) => view.telemetry?.workers ?? []).filter((worker) => worker.busy).length;
  const limit = there.reduce((sum, view) => sum + (view.birth?.limits.workers ?? 0), 0);
  text(byId("workers-busy"), `${busy} of ${limit}`);
}

function onUpdates(updates) {
  showUpdates(byId("updates"), updates);
  byId("updates-section").hidden = updates.length === 0;
}

function onStreams(streams) {
  showStreams(byId("streams"), streams, player.play);
  byId("streams-box").hidden = streams.length === 0;
  byId("no-streams").hidden = streams.length > 0;
  text(byId("streams-live"), streams.filter((view) => view.live).length);

  const failed = streams.reduce((sum, view) => sum + view.segments_failed, 0);
  const open = streams.flatMap((view) => view.segments).filter(({ state }) => state === "waiting" || state === "running").length;
  const done = streams.reduce((sum, view) => sum + view.segments_total, 0) - failed - open;
  text(byId("segments-done"), number(done));
  text(byId("segments-failed"), number(failed));
  latest.done = done;
  text(byId("segments-per-minute"), rate(done));

  // Live streams say how it is; where none is live, the last one says how it was.
  const live = streams.filter((view) => view.live);
  const recent = (live.length ? live : streams.slice(0, 1)).flatMap((view) => view.segments);
  const delays = delaysOf(recent);
  for (const [id, percent] of [["delay-p50", 50], ["delay-p95", 95]]) {
    const value = percentile(delays, percent);
    text(byId(id), millis(value));
    attribute(byId(id), "data-ms", value ?? null);
  }
  const { media, wall } = work(recent);
  text(byId("real-time-factor"), wall > 0 ? number(media / wall, 1) : NONE);
}

/** Segments a minute over what this page has seen of the last minute; too little says nothing. */
function rate(done) {
  const now = performance.now();
  // Streams that fall off the list take their counts along.
  if (counts.length && done < counts.at(-1).done) counts.length = 0;
  counts.push({ now, done });
  while (counts.length > 2 && now - counts[1].now > MINUTE) counts.shift();
  const passed = now - counts[0].now;
  return passed < 4000 ? NONE : number(((done - counts[0].done) * MINUTE) / passed);
}

function tick() {
  showNodes(byId("nodes"), latest.nodes);
  if (latest.done !== undefined && latest.state === "live") text(byId("segments-per-minute"), rate(latest.done));
}

text(byId("gateway-address"), location.host);
text(byId("push-address"), `${location.origin}/live/NAME/0.ts`);
player.setUp();
follow({ onNodes, onUpdates, onStreams, onState });
setInterval(tick, TICK);
