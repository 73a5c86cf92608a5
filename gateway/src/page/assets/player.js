// HLS in a dialog: the browser's own player where it has one, else hls.js by Media Source.

import { attribute, byId, h, number, text, NONE } from "./dom.js";

const NATIVE = "application/vnd.apple.mpegurl";
let hls = null;
let ticking = 0;

export function setUp() {
  const dialog = byId("player-dialog");
  dialog.querySelector('[data-action="close-player"]').addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", stop);
}

export function play(view) {
  stop();
  const [dialog, video, link] = [byId("player-dialog"), byId("player"), byId("player-link")];
  // Below the page's own address, also where a proxy serves the gateway under a path.
  const url = new URL(view.playlist.replace(/^\/*/, "./"), document.baseURI).href;
  text(byId("player-title"), view.stream);
  text(link, url);
  attribute(link, "href", url);
  attribute(video, "data-stream", view.stream);
  text(byId("player-error"), "");
  if (!dialog.open) dialog.showModal();
  ticking = setInterval(() => facts(video), 500);
  if (video.canPlayType(NATIVE) !== "") native(video, url);
  else scripted(video, url);
}

function native(video, url) {
  engine(video, "native");
  // A browser that says maybe and then cannot: hls.js may.
  video.onerror = () => scripted(video, url);
  video.src = url;
  start(video);
}

async function scripted(video, url) {
  video.onerror = null;
  video.removeAttribute("src");
  engine(video, "hls.js");
  let Hls;
  try {
    Hls = await library();
  } catch {
    return fail("The player could not be loaded from the gateway.");
  }
  if (!Hls.isSupported()) return fail("This browser can play neither HLS nor Media Source. Open the playlist in a player such as mpv or VLC.");
  if (!byId("player-dialog").open) return;
  hls = new Hls({ liveSyncDurationCount: 3, backBufferLength: 30 });
  hls.on(Hls.Events.ERROR, (_, data) => {
    if (!data.fatal) return;
    fail(data.response?.code === 404 ? "The gateway no longer has this stream." : `Playback stopped: ${data.details}.`);
  });
  hls.on(Hls.Events.FRAG_BUFFERED, () => text(byId("player-error"), ""));
  hls.loadSource(url);
  hls.attachMedia(video);
  start(video);
}

let loading = null;
function library() {
  loading ??= new Promise((done, failed) => {
    const script = h("script", { src: "assets/hls.light.min.js" });
    script.addEventListener("load", () => done(globalThis.Hls));
    script.addEventListener("error", () => {
      loading = null;
      script.remove();
      failed(new Error("no player"));
    });
    document.head.append(script);
  });
  return loading;
}

// Muted playback may start by itself; where even that is not allowed, the controls are there.
const start = (video) => video.play().catch(() => {});

function engine(video, name) {
  attribute(video, "data-engine", name);
  text(byId("player-engine"), name === "native" ? "browser" : "hls.js");
}

const fail = (why) => text(byId("player-error"), why);

function facts(video) {
  const { videoWidth, videoHeight, buffered, currentTime } = video;
  text(byId("player-size"), videoWidth ? `${videoWidth} × ${videoHeight}` : NONE);
  const end = buffered.length ? buffered.end(buffered.length - 1) : currentTime;
  text(byId("player-buffer"), `${number(Math.max(0, end - currentTime), 1)} s`);
  const quality = video.getVideoPlaybackQuality?.();
  text(byId("player-dropped"), quality ? `${quality.droppedVideoFrames} of ${quality.totalVideoFrames}` : NONE);
}

function stop() {
  clearInterval(ticking);
  hls?.destroy();
  hls = null;
  const video = byId("player");
  video.onerror = null;
  video.pause();
  video.removeAttribute("src");
  video.removeAttribute("data-engine");
  video.removeAttribute("data-stream");
  video.load();
}
