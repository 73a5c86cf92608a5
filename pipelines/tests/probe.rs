//! `headwater-worker probe`: what works is proved, and what does not is told in a sentence.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use headwater_protocol::worker::{Header, Kind, Open};
use headwater_protocol::{CapabilityKind, Codec, ProbeReport};
use serde_json::{Value, json};

mod desk;
use desk::Desk;

/// As shipped, in seconds, for nothing that works comes near it.
const LONG: u32 = 30;
/// For what stands still, so that the test does not wait long.
const SHORT: u32 = 8;

/// Where processors are emulated, so many times that.
fn patient(seconds: u32) -> u32 {
    seconds * std::env::var("HEADWATER_TEST_PATIENCE").map_or(1, |times| times.parse::<u32>().unwrap())
}

fn probe(desk: &Desk, deadline: u32) -> ProbeReport {
    let deadline = format!("{}s", patient(deadline));
    serde_json::from_str(&desk.text(&["probe", "--deadline", &deadline], 0)).unwrap()
}

/// Why the toy board's only entry is not used.
fn sentence(entry: &str) -> String {
    sentence_after(entry, LONG)
}

fn sentence_after(entry: &str, deadline: u32) -> String {
    let report = probe(&Desk::with_toy(entry), deadline);
    assert_eq!(report.profile, "toy");
    assert_eq!(report.unproved.len(), 1, "{report:?}");
    // The last resort still works.
    assert!(report.capabilities.iter().any(|one| one.element == "x264enc" && one.memory == "system"));
    report.unproved[0].fault.text.clone()
}

/// An encoder entry of a toy board: x264 with one thing changed.
fn x264(set: &str, bitrate: &str, gop: &str) -> String {
    format!(
        r#"
[memory.toy]
from_system = ["identity"]
[[encoder]]
codec = "h264"
factory = ["x264enc"]
package = "toy-codecs"
block = "TOYENC"
in = {{ memory = "toy", formats = ["I420"] }}
set = {{ speed-preset = "ultrafast", bframes = "0", b-adapt = "false", byte-stream = "true", option-string = "scenecut=0" {set} }}
[encoder.map]
bitrate = {bitrate}
gop = {gop}
"#
    )
}

const BITRATE: &str = r#"{ prop = "bitrate", unit = "kbit/s" }"#;
const GOP: &str = r#"{ prop = "key-int-max" }"#;

#[test]
fn everything_that_is_installed_here_is_proved() {
    let desk = Desk::plain();
    let report = probe(&desk, LONG);
    assert_eq!(report.profile, "software");
    for unproved in &report.unproved {
        let text = &unproved.fault.text;
        assert!(text.contains("is not installed") || text.contains("was not tried"), "{text}");
    }
    for (kind, codec) in [
        (CapabilityKind::Decode, Some(Codec::H264)),
        (CapabilityKind::Decode, Some(Codec::Hevc)),
        (CapabilityKind::Scale, None),
        (CapabilityKind::Encode, Some(Codec::H264)),
    ] {
        let found = report.capabilities.iter().find(|one| one.kind == kind && one.codec == codec);
        let found = found.unwrap_or_else(|| panic!("{kind:?} {codec:?} is not proved: {report:?}"));
        assert!(found.speed_fps > 0.0);
        assert_eq!(found.instances, None, "software is not counted");
    }
}

#[test]
fn a_devices_element_is_counted_and_proved_through_its_own_memory() {
    let desk = Desk::with_toy(&x264("", BITRATE, GOP));
    let report = probe(&desk, LONG);
    let found = report.capabilities.iter().find(|one| one.memory == "toy");
    let found = found.unwrap_or_else(|| panic!("{report:?}"));
    assert!(found.instances.is_some_and(|count| count >= 1), "{found:?}");
}

#[test]
fn what_only_a_decoder_can_feed_is_proved_behind_it() {
    // Nothing carries pictures into or out of this memory.
    let desk = Desk::with_toy(&format!(
        r#"
[[decoder]]
codec = "h264"
factory = ["avdec_h264"]
package = "toy-codecs"
out = {{ memory = "toy", formats = ["I420"] }}
[[scaler]]
factory = ["videoscale"]
package = "toy-codecs"
in = ["toy"]
out = ["toy"]
formats = ["I420"]
can = ["scale"]
{}"#,
        x264("", BITRATE, GOP).replace(r#"from_system = ["identity"]"#, "")
    ));
    let report = probe(&desk, LONG);
    assert!(report.unproved.is_empty(), "{report:?}");
    let toys = report.capabilities.iter().filter(|one| one.memory == "toy");
    let kinds: Vec<CapabilityKind> = toys.map(|one| one.kind).collect();
    assert_eq!(kinds, [CapabilityKind::Decode, CapabilityKind::Scale, CapabilityKind::Encode]);
}

#[test]
fn what_is_not_installed_is_told_with_its_package() {
    let text = sentence(
        "[[encoder]]\ncodec = 'h264'\nfactory = ['toyh264enc', 'oldtoyenc']\npackage = 'toy-codecs'\n\
         in = { formats = ['NV12'] }\n",
    );
    assert_eq!(text, "toyh264enc is not installed; package toy-codecs brings it");
}

#[test]
fn a_plugin_that_cannot_be_loaded_is_told() {
    let desk = Desk::with_toy(
        "[[encoder]]\ncodec = 'h264'\nfactory = ['toyh264enc']\npackage = 'toy-codecs'\n\
         in = { formats = ['NV12'] }\n",
    );
    let plugins = desk.path("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::write(plugins.join("libgsttoy.so"), "no library").unwrap();
    let mut command = desk.command(&["probe"]);
    command.env("GST_PLUGIN_PATH", &plugins).env("GST_REGISTRY", desk.path("registry.bin"));
    let report: ProbeReport = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(
        report.unproved[0].fault.text,
        "toyh264enc is not installed; package toy-codecs brings it, or it is in one of the plugins that GStreamer \
         could not load: libgsttoy.so"
    );
}

#[test]
fn an_element_without_a_device_behind_it_is_told_so() {
    // What x264 needs for this is not there, so it opens nothing, as a driver without its device.
    let text = sentence(&x264(", pass = 'pass2', multipass-cache-file = '/no/such/file'", BITRATE, GOP));
    assert!(
        text.starts_with("x264enc is registered but encoded no frame: this board has no TOYENC"),
        "{text}"
    );
}

#[test]
fn an_encoder_that_breaks_a_promise_is_refused_with_the_promise() {
    let text = sentence(&x264("", BITRATE, r#"{ prop = "rc-lookahead" }"#));
    assert_eq!(text, "x264enc was asked for a keyframe each 13 pictures and made them at [0]");
    let text = sentence(&x264("", r#"{ prop = "bitrate", unit = "bit/s" }"#, GOP));
    assert!(text.starts_with("x264enc was asked for 3000 kbit/s and made "), "{text}");
    let text = sentence(&x264(", no-such-property = '1'", BITRATE, GOP));
    assert!(text.ends_with("this version has no property no-such-property"), "{text}");
    let text = sentence(&x264(", pass = 'nonsense'", BITRATE, GOP));
    assert!(text.starts_with("x264enc cannot be used as its profile says: "), "{text}");
}

#[test]
fn an_element_that_stands_still_is_given_up_at_its_deadline() {
    let shut = "after = [{ factory = 'valve', set = { drop = 'true' } }]\n[encoder.map]";
    let text = sentence_after(&x264("", BITRATE, GOP).replace("[encoder.map]", shut), SHORT);
    assert_eq!(text, "x264enc is registered but encoded no frame: it stood still until its time was over");
}

#[test]
fn an_element_that_never_starts_is_killed_at_its_deadline() {
    let desk = Desk::new();
    let pipe = desk.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // It reads its picture when it starts, and nobody ever writes into this pipe.
    let entry = format!(
        "{}[[scaler]]\nfactory = ['gdkpixbufoverlay']\npackage = 'toy-codecs'\nin = ['system']\nout = ['system']\n\
         formats = ['I420']\ncan = ['scale']\nset = {{ location = '{}' }}\n",
        desk::TOY,
        pipe.display()
    );
    desk.profile("toy", &entry);
    let report = probe(&desk, SHORT);
    assert_eq!(report.unproved.len(), 1, "{report:?}");
    let text = format!("gdkpixbufoverlay did not answer within {} s and was killed", patient(SHORT));
    assert_eq!(report.unproved[0].fault.text, text);
}

#[test]
fn a_second_probe_answers_from_what_is_remembered_until_something_changes() {
    let desk = Desk::new();
    let file = |desk: &Desk| std::fs::metadata(desk.cache()).unwrap().ino();
    let cached = |desk: &Desk| desk.text(&["probe", "--cached"], 0);
    let first = cached(&desk);
    let written = file(&desk);
    assert_eq!(cached(&desk), first);
    assert_eq!(file(&desk), written, "it was probed again");
    desk.text(&["probe"], 0);
    assert_ne!(file(&desk), written, "it was not probed though that was asked for");

    let written = file(&desk);
    desk.profile("software", &desk::SMALL.replace("ultrafast", "superfast"));
    cached(&desk);
    assert_ne!(file(&desk), written, "the profile says something else now");

    for (what, other) in [
        ("boot", json!("another boot")),
        ("worker", json!("0.0.1")),
        ("gstreamer", json!("GStreamer 1.14.0")),
        ("plugins", json!({"x264": "1.14.0"})),
        ("drivers", json!({"kernel": "5.10.0"})),
        ("devices", json!(["video0"])),
    ] {
        let text = std::fs::read_to_string(desk.cache()).unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        assert!(!value["key"][what].is_null(), "{what} is no part of the key");
        value["key"][what] = other;
        std::fs::write(desk.cache(), value.to_string()).unwrap();
        let written = file(&desk);
        cached(&desk);
        assert_ne!(file(&desk), written, "results of another {what} were believed");
    }
}

#[test]
fn transcode_proves_hardware_once_and_goes_around_what_failed() {
    let rig_input = "-v error -nostdin -y -f lavfi -i testsrc2=s=320x180:r=30 -t 1 -pix_fmt yuv420p -c:v libx264 \
                     -preset ultrafast";
    let desk = Desk::with_toy(&x264("", BITRATE, r#"{ prop = "rc-lookahead" }"#));
    let input = desk.path("in.ts");
    let made = std::process::Command::new("ffmpeg").args(rig_input.split_whitespace()).arg(&input).status();
    assert!(made.unwrap().success());
    let ladder = desk.path("ladder.json");
    std::fs::write(&ladder, r#"[{"name":"a","width":160,"height":90,"bitrate":100000}]"#).unwrap();
    let (input, ladder, out) = (input.to_str().unwrap(), ladder.to_str().unwrap(), desk.path("out"));
    let arguments = ["transcode", input, "-l", ladder, "-o", out.to_str().unwrap()];
    let first = desk.run(&arguments);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(first.status.success() && said.contains("proving this board's hardware"), "{said}");
    let second = desk.run(&arguments);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.success() && !said.contains("proving"), "{said}");
    let plan = desk.json(&["doctor", "--plan"], 6);
    let verdicts = plan["candidates"].as_array().unwrap();
    let refused =
        verdicts.iter().find(|one| one["verdict"].as_str().unwrap().contains("asked for a keyframe"));
    assert!(refused.is_some(), "{verdicts:?}");
    assert!(plan["outputs"]["rungs"].as_array().unwrap().iter().all(|rung| rung["hardware"] == false));
}

/// What a worker of an agent says on standard error until it is ready and closed.
fn served(desk: &Desk) -> String {
    let rendition =
        r#"{"name":"a","codec":"h264","width":160,"height":90,"rate":{"bitrate":100000},"container":"ts"}"#;
    let open = format!(r#"{{"stream":"s1","ladder":[{rendition}]}}"#);
    let open: Open = serde_json::from_str(&open).unwrap();
    let open = serde_json::to_vec(&open).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = desk.command(&["serve"]);
    let worker = command.stdin(OwnedFd::from(theirs)).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut say = |kind, payload: &[u8]| {
        let length = payload.len() as u32;
        ours.write_all(&Header { length, kind, channel: 0, tag: 0 }.encode()).unwrap();
        ours.write_all(payload).unwrap();
    };
    say(Kind::Open, &open);
    say(Kind::Close, &[]);
    let output = worker.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_worker_uses_no_hardware_until_a_probe_has_proved_it() {
    let desk = Desk::with_toy(&x264("", BITRATE, GOP));
    let said = served(&desk);
    assert!(said.contains("nothing is proved yet") && said.contains("encode:h264:x264enc:toy"), "{said}");
    probe(&desk, LONG);
    let said = served(&desk);
    assert!(!said.contains("nothing is proved yet"), "{said}");
}

#[test]
fn what_a_profile_wants_in_the_environment_is_there_before_gstreamer_starts() {
    let desk = Desk::new();
    let registry = desk.path("registry.bin");
    desk.profile("toy", &format!("{}[env]\nGST_REGISTRY = '{}'\n", desk::TOY, registry.display()));
    // Its socket outlives the new beginning.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = desk.command(&["serve"]);
    let mut worker = command.env_remove("GST_REGISTRY").stdin(OwnedFd::from(theirs)).spawn().unwrap();
    drop(command);
    ours.write_all(&Header { length: 0, kind: Kind::Close, channel: 0, tag: 0 }.encode()).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0));
    assert!(registry.exists(), "GStreamer keeps its registry elsewhere");

    std::fs::remove_file(&registry).unwrap();
    let mut command = desk.command(&["boards"]);
    let asked = command.env("HEADWATER_BOARD", "software").env_remove("GST_REGISTRY").output().unwrap();
    assert!(asked.status.success() && !registry.exists(), "the environment of a profile not in use");
}
