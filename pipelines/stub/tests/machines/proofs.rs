//! What a probe finds out of a machine, and what comes of it.

use std::fs;

use crate::support::{BITRATES, Rig};
use headwater_pipelines::doctor::Report;
use headwater_protocol::{Capability, CapabilityKind, ProbeReport};

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

/// Why the element is not used.
fn sentence(report: &ProbeReport, element: &str) -> String {
    let unproved = report.unproved.iter().find(|one| one.element == element);
    unproved.unwrap_or_else(|| panic!("{element} is proved: {report:?}")).fault.text.clone()
}

#[test]
fn an_element_whose_plugin_found_no_device_for_it_is_told_so_and_no_package() {
    let rig = Rig::changed("pi4-bookworm", |machine| drop(machine.elements.remove("v4l2h264enc")));
    let said = sentence(&rig.probe(""), "v4l2h264enc");
    assert_eq!(
        said,
        "v4l2h264enc has no device, though its plugin is installed: there is no /dev/video*; load the device's driver, or \
         set the overlay that brings it"
    );
    fs::create_dir_all(rig.path("root/dev")).unwrap();
    fs::write(rig.path("root/dev/video0"), "a camera").unwrap();
    let said = sentence(&rig.probe(""), "v4l2h264enc");
    assert_eq!(
        said,
        "v4l2h264enc has no device that does its work, though its plugin is installed: not /dev/video0; if the board has \
         one, its driver, overlay or library is missing"
    );
}

#[test]
fn an_orin_nano_is_told_that_it_has_no_nvenc_and_software_takes_its_place() {
    for fault in ["no-device", "no-output"] {
        let rig = Rig::unproved("orin-nano-jp6");
        let faults =
            ["nvv4l2h264enc", "nvv4l2h265enc", "nvv4l2av1enc"].map(|element| format!("{element}:{fault}"));
        let report = rig.probe(&faults.join(","));
        let said = sentence(&report, "nvv4l2h264enc");
        let want = "nvv4l2h264enc is registered but encoded no frame: this board has no NVENC";
        assert!(said.starts_with(want), "{fault}: {said}");
        assert_eq!(said == want, fault == "no-output", "{said}");
        let encodes = |one: &&Capability| one.kind == CapabilityKind::Encode;
        let proved: Vec<&str> =
            report.capabilities.iter().filter(encodes).map(|one| one.element.as_str()).collect();
        assert_eq!(proved, ["nvjpegenc", "x264enc"]);
        assert!(report.capabilities.iter().any(|one| one.element == "nvv4l2decoder"), "{report:?}");
    }
}

#[test]
fn a_device_that_is_slow_is_proved_all_the_same_and_one_that_hangs_after_as_many_pictures_is_not() {
    let probed = |fault: &str| {
        let rig = Rig::unproved("v4l2-generic");
        // Of which half is the patience with the first sixty pictures: slow ones take twice that.
        let done = rig.run(rig.worker(fault).args(["probe", "--deadline", "4s"]));
        serde_json::from_slice::<ProbeReport>(&done.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)))
    };
    let slow = probed("v4l2h264enc:slow@70");
    let encoder = slow.capabilities.iter().find(|one| one.element == "v4l2h264enc");
    assert!(encoder.unwrap_or_else(|| panic!("{slow:?}")).speed_fps < 15.0, "{encoder:?}");
    let hangs = sentence(&probed("v4l2h264enc:hang@30"), "v4l2h264enc");
    assert_eq!(hangs, "v4l2h264enc does not work: it never came to its end");
}

#[test]
fn a_device_with_two_sessions_is_found_to_have_two() {
    let report = Rig::unproved("v4l2-generic").probe("v4l2h264enc:busy@3");
    let encoder = report.capabilities.iter().find(|one| one.element == "v4l2h264enc");
    assert_eq!(encoder.unwrap_or_else(|| panic!("{report:?}")).instances, Some(2));
}
