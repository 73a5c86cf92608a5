//! What a device does wrong ends in a clear fault, and never in a hang: the rig kills a worker that outlives every
//! deadline, and its test fails.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use crate::support::{BITRATES, PATIENCE, Rig};
use gstreamer as gst;
use headwater_pipelines::exit::Exit;
use headwater_pipelines::graph::{self, Faults, Taker};
use headwater_pipelines::plan::{DecodePlan, Element};
use headwater_protocol::ProbeReport;
use serde_json::Value;

/// The worker's end on a Jetson Orin NX whose elements have `faults`.
fn orin(faults: &str) -> (Output, String) {
    on("orin-nx-jp6", faults)
}

fn on(machine: &str, faults: &str) -> (Output, String) {
    let done = Rig::new(machine).transcode(faults);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done, said)
}

/// It failed as work fails, and said `why`.
fn fails(faults: &str, why: &str) {
    let (done, said) = orin(faults);
    assert_eq!(done.status.code(), Some(Exit::Failed as i32), "{faults}: {said}");
    assert!(said.contains(why), "{faults}: {said}");
}

/// It stood still, noticed, said so and ended.
fn stands_still(faults: &str) {
    let (done, said) = orin(faults);
    assert_eq!(done.status.code(), Some(Exit::Hung as i32), "{faults}: {said}");
    assert!(said.contains("nothing moved for"), "{faults}: {said}");
}

/// Milliseconds: 21 frames, which do not divide a segment's 60.
const ODD_GOP: u32 = 700;
const COUNTS_ON: &str = "nvv4l2h264enc:ignore-keyframe";

#[test]
fn an_encoder_that_takes_everything_and_gives_nothing_is_found_out() {
    fails("nvv4l2h264enc:no-output", "swallowed 60 frames");
}

#[test]
fn a_decoder_that_takes_everything_and_gives_nothing_is_found_out() {
    fails("nvv4l2decoder:no-output", "could not be decoded");
}

#[test]
fn a_picture_that_comes_without_a_time_is_left_out_and_counts_as_lost() {
    let rig = Rig::new("orin-nx-jp6");
    let done = rig.transcode("nvv4l2decoder:no-time@100");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(summary["decoded"].as_u64(), Some(179));
    let mut times: Vec<i64> = rig.frames(&rig.path("in.ts")).into_iter().map(|(pts, _)| pts).collect();
    times.remove(99);
    for (name, _) in BITRATES {
        let frames = (0..3).flat_map(|segment| rig.frames(&rig.path(&format!("out/{name}/{segment}.ts"))));
        assert_eq!(frames.map(|(pts, _)| pts).collect::<Vec<_>>(), times, "{name}");
    }
}

#[test]
fn frames_without_bytes_are_no_output() {
    fails("nvv4l2h264enc:empty-buffers", "a frame without bytes");
}

#[test]
fn empty_frames_are_found_out_behind_a_parser_too() {
    let (done, said) = on("rk3588-bsp", "mpph264enc:empty-buffers");
    assert_eq!(done.status.code(), Some(Exit::Failed as i32), "{said}");
}

#[test]
fn a_segment_that_does_not_start_with_a_keyframe_is_not_handed_out() {
    let rig = Rig::new("orin-nx-jp6");
    let done = rig.transcode_of(&rig.clip(), &rig.ladder_of(ODD_GOP), COUNTS_ON);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(Exit::Failed as i32), "{said}");
    assert!(said.contains("does not start with a keyframe"), "{said}");
}

#[test]
fn an_encoder_that_counts_its_gop_over_a_flush_is_found_out_and_new_for_each_segment() {
    let rig = Rig::changed("orin-nx-jp6", |machine| {
        machine
            .elements
            .retain(|name, _| ["nvv4l2decoder", "nvvidconv", "nvv4l2h264enc"].contains(&name.as_str()));
    });
    let report = rig.probe(COUNTS_ON);
    assert!(report.capabilities.iter().any(|one| one.element == "nvv4l2h264enc"), "{report:?}");
    let known = fs::read_to_string(rig.path("cache/headwater/probe.json")).unwrap();
    assert!(known.contains("needs a fresh encoder per segment"), "{known}");
    fs::remove_file(rig.path("trace")).unwrap();
    let mut command = rig.worker(COUNTS_ON);
    command.env("HEADWATER_BOARDS", rig.path("boards"));
    command.arg("transcode").arg(rig.clip()).arg("-o").arg(rig.path("out"));
    command.arg("--ladder").arg(rig.ladder_of(ODD_GOP)).args(["--segment", "2"]);
    let done = rig.run(&mut command);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for (name, _) in BITRATES {
        for segment in 0..3 {
            let frames = rig.frames(&rig.path(&format!("out/{name}/{segment}.ts")));
            let keys: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].1).collect();
            assert_eq!((frames.len(), keys), (60, vec![0, 21, 42]), "{name} {segment}");
        }
    }
    let starts = rig.trace("nvv4l2h264enc").iter().filter(|line| line.starts_with("starts")).count();
    assert_eq!(starts, 6, "{}", rig.whole_trace());
}

#[test]
fn a_device_that_refuses_another_session_is_busy_and_told_in_its_words() {
    let said = "busy: a device has all the work it can do (GStreamer failed: nvv4l2h264enc: out of memory for another \
                session)";
    fails("nvv4l2h264enc:busy@2", said);
}

#[test]
fn a_board_whose_drivers_mean_memory_when_they_say_so_has_failed() {
    let (done, said) = on("rk3588-bsp", "mpph264enc:busy@2");
    assert_eq!(done.status.code(), Some(Exit::Failed as i32), "{said}");
    assert!(said.contains("pipeline_failed: GStreamer failed: mpph264enc: out of memory"), "{said}");
}

#[test]
fn an_encoder_that_cannot_open_its_device_fails_the_work_in_its_words() {
    fails("nvv4l2h264enc:no-device", "it cannot open its device");
}

#[test]
fn an_encoder_that_never_comes_to_its_end_ends_the_worker() {
    stands_still("nvv4l2h264enc:hang-on-drain");
}

#[test]
fn a_decoder_that_never_comes_to_its_end_ends_the_worker() {
    stands_still("nvv4l2decoder:hang-on-drain");
}

#[test]
fn an_encoder_that_does_not_come_back_ends_the_worker() {
    stands_still("nvv4l2h264enc:hang@20");
}

#[test]
fn a_decoder_that_does_not_come_back_ends_the_worker() {
    stands_still("nvv4l2decoder:hang@20");
}

#[test]
fn a_decoder_that_does_not_stop_after_a_failed_segment_ends_the_worker() {
    let (done, said) = orin("nvv4l2decoder:hang-on-stop,nvv4l2h264enc:no-output");
    assert_eq!(done.status.code(), Some(Exit::Hung as i32), "{said}");
    assert!(said.contains("did not stop within"), "{said}");
}

#[test]
fn a_library_that_aborts_takes_the_worker_alone_with_it() {
    // SIGABRT: whoever started the worker sees a crash, not a failure of the work.
    let (done, said) = orin("nvv4l2decoder:crash@30");
    assert_eq!(done.status.signal(), Some(6), "{said}");
}

#[test]
fn a_library_that_talks_by_the_megabyte_holds_nothing_up() {
    let rig = Rig::new("orin-nx-jp6");
    let done = rig.transcode("nvv4l2decoder:flood");
    assert!(done.status.success());
    assert!(done.stderr.len() > 1 << 20 && done.stdout.len() > 1 << 20, "it did not talk that much");
    for (name, _) in BITRATES {
        let frames = (0..3).map(|segment| rig.frames(&rig.path(&format!("out/{name}/{segment}.ts"))).len());
        assert_eq!(frames.sum::<usize>(), 180, "{name}");
    }
}

#[test]
fn a_probe_refuses_an_encoder_that_gives_nothing_and_software_takes_its_place() {
    let rig = Rig::unproved("v4l2-generic");
    let faults = "v4l2h264enc:no-output";
    let probe = rig.run(rig.worker(faults).arg("probe"));
    let report: Value = serde_json::from_slice(&probe.stdout).unwrap();
    let named = |list: &str| -> Vec<Value> {
        let all = report[list].as_array().unwrap().iter();
        all.filter(|one| one["element"] == "v4l2h264enc").cloned().collect()
    };
    assert!(named("capabilities").is_empty(), "{report}");
    let said = named("unproved")[0]["fault"]["text"].as_str().unwrap().to_owned();
    assert!(said.starts_with("v4l2h264enc"), "{said}");
    fs::remove_file(rig.path("trace")).unwrap();
    let done = rig.transcode(faults);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(rig.trace("v4l2h264enc").is_empty(), "{}", rig.whole_trace());
    assert!(!rig.trace("v4l2h264dec").is_empty(), "{}", rig.whole_trace());
}

#[test]
fn what_runs_only_so_many_at_once_has_the_largest_renditions_and_software_the_rest() {
    let rig = Rig::unproved("v4l2-generic");
    // Its second session is refused.
    let faults = "v4l2h264enc:busy@2";
    let probe = rig.run(rig.worker(faults).arg("probe"));
    let report: ProbeReport = serde_json::from_slice(&probe.stdout).unwrap();
    let limit = |name: &str| report.capabilities.iter().find(|one| one.element == name).unwrap().limit;
    assert_eq!((limit("v4l2h264enc"), limit("v4l2h264dec"), limit("x264enc")), (Some(1), None, None));
    fs::remove_file(rig.path("trace")).unwrap();
    let done = rig.transcode(faults);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let trace = rig.trace("v4l2h264enc");
    let taken: Vec<&String> = trace.iter().filter(|line| line.starts_with("takes")).collect();
    assert!(!taken.is_empty() && taken.iter().all(|line| line.contains("width=(int)480")), "{trace:?}");
    for (name, _) in BITRATES {
        let frames = (0..3).map(|segment| rig.frames(&rig.path(&format!("out/{name}/{segment}.ts"))).len());
        assert_eq!(frames.sum::<usize>(), 180, "{name}");
    }
}

struct Nobody;

impl Taker for Nobody {
    fn sample(&mut self, _sample: gst::Sample) -> Result<(), gst::FlowError> {
        Ok(())
    }

    fn end(&mut self) {}
}

#[test]
fn a_plugin_that_hangs_whoever_loads_it_is_found_out_by_the_probe_and_software_takes_its_place() {
    let rig = Rig::unproved("pi4-bookworm");
    let known = rig.run(rig.worker("").arg("boards"));
    assert!(known.status.success(), "the registry is made while all is well");
    let output = rig.run(rig.worker("").env("HEADWATER_STUB_HANG", "1").args(["probe", "--deadline", "3s"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: ProbeReport = serde_json::from_slice(&output.stdout).unwrap();
    let hung: Vec<&str> = report.unproved.iter().map(|one| one.fault.text.as_str()).collect();
    let hung = hung.iter().filter(|text| text.contains("did not answer within 3 s and was killed"));
    assert!(hung.count() >= 2, "{report:?}");
    assert!(report.capabilities.iter().any(|one| one.element == "x264enc"), "{report:?}");
    assert!(report.capabilities.iter().all(|one| !one.element.starts_with("v4l2")), "{report:?}");
}

#[test]
fn who_waits_for_room_in_a_chain_is_let_go_when_the_chain_breaks() {
    gst::init().unwrap();
    let breaks = Element {
        factory: "identity".to_owned(),
        properties: [("error-after".to_owned(), "2".to_owned())].into(),
    };
    let plan = DecodePlan { elements: vec![breaks], ..DecodePlan::nothing() };
    let faults = Arc::new(Faults::default());
    let chain = graph::decode_chain(&plan, &faults, Nobody).unwrap();
    let (done, ended) = sync_channel(1);
    std::thread::spawn(move || {
        // Far more than its queue takes.
        let refused = (0..100).any(|_| chain.push(gst::Buffer::from_slice(vec![0; 1 << 20])).is_err());
        done.send(refused).unwrap();
    });
    let refused = ended.recv_timeout(PATIENCE).expect("the feeder waits for ever");
    assert!(refused && faults.first().is_some());
}
