//! What a probe finds out of a machine, and what comes of it.

use std::fs;

use crate::support::{BITRATES, Rig};
use headwater_pipelines::doctor::Report;

#[test]
fn a_driver_is_told_the_controls_that_it_has_and_the_report_names_them() {
    // As on a Raspberry Pi, on a board that has no profile of its own.
    let rig = Rig::changed("v4l2-generic", |machine| {
        let encoder = machine.elements.get_mut("v4l2h264enc").unwrap();
        let controls = encoder.controls.as_mut().unwrap();
        let range = controls.remove("video_gop_size").unwrap();
        controls.insert("h264_i_frame_period".to_owned(), range);
    });
    let path = rig.path("report.json");
    let done = rig.run(rig.worker("").arg("doctor").arg("--report").arg(&path));
    let report: Report = serde_json::from_str(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)));
    let controls = report.machine.elements["v4l2h264enc"].controls.as_ref().unwrap();
    assert!(controls.contains_key("h264_i_frame_period"), "{controls:?}");
    assert!(!controls.contains_key("video_gop_size"), "{controls:?}");
    fs::remove_file(rig.path("trace")).unwrap();
    let done = rig.transcode("");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!rig.trace("v4l2h264enc").is_empty(), "{}", rig.whole_trace());
    for (name, _) in BITRATES {
        let frames = rig.frames(&rig.path(&format!("out/{name}/0.ts")));
        let keys: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].1).collect();
        assert_eq!(keys, [0, 30], "{name}: {}", rig.whole_trace());
    }
}
