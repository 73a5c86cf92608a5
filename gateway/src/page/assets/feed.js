// The gateway's events as state. The browser reconnects by itself while the gateway is away; where it gives up
// (an answer that is no event stream), we try again with a growing pause.

const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15_000;

/** Calls `onNodes`, `onUpdates` and `onStreams` with each new list, `onState` with connecting, live or lost. */
export function follow({ onNodes, onUpdates, onStreams, onState }) {
  let pause = FIRST_PAUSE;

  const list = (show) => (event) => {
    let data;
    try {
      data = JSON.parse(event.data);
    } catch {
      return; // A list cut off by a dying connection; the next one is whole.
    }
    if (Array.isArray(data)) {
      onState("live");
      show(data);
    }
  };

  const connect = () => {
    const events = new EventSource("api/v1/events");
    events.addEventListener("open", () => {
      pause = FIRST_PAUSE;
      onState("live");
    });
    events.addEventListener("nodes", list(onNodes));
    events.addEventListener("updates", list(onUpdates));
    events.addEventListener("streams", list(onStreams));
    events.addEventListener("error", () => {
      onState("lost");
      if (events.readyState !== EventSource.CLOSED) return;
      setTimeout(connect, pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    });
    addEventListener("pagehide", () => events.close(), { once: true });
  };

  // The first look need not wait for the first event.
  const first = async (path, show) => {
    const answer = await fetch(path).catch(() => null);
    const data = answer?.ok ? await answer.json().catch(() => null) : null;
    if (Array.isArray(data)) show(data);
  };
  first("api/v1/nodes", onNodes);
  first("api/v1/streams", onStreams);
  connect();
  // A page that comes back from the browser's cache has no connection any more.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}
