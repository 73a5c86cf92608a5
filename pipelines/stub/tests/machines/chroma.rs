//! Input with more samples of colour than devices take, which only its own bits tell.

use crate::support::{BITRATES, Rig};

/// Two seconds of `codec` in `format`, on an Orin; whether its decoder was used.
fn by_device(codec: &str, format: &str) -> bool {
    let rig = Rig::new("orin-nx-jp6");
    let mut arguments =
        vec!["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30", "-t", "2", "-pix_fmt", format];
    arguments.extend(["-c:v", codec, "-preset", "ultrafast", "-bf", "0", "-g", "60"]);
    if codec == "libx265" {
        arguments.extend(["-x265-params", "log-level=error"]);
    }
    arguments.push("in.ts");
    rig.ffmpeg(&arguments);
    let done = rig.transcode_of(&rig.path("in.ts"), &rig.ladder(), "");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{codec} {format}: {said}\n{}", rig.whole_trace());
    for (name, _) in BITRATES {
        assert_eq!(rig.frames(&rig.path(&format!("out/{name}/0.ts"))).len(), 60, "{codec} {format} {name}");
    }
    assert!(!rig.trace("nvv4l2h264enc").is_empty(), "{codec} {format}: the device still encodes");
    !rig.trace("nvv4l2decoder").is_empty()
}

#[test]
fn input_with_more_colour_than_devices_take_goes_to_software() {
    for codec in ["libx264", "libx265"] {
        assert!(by_device(codec, "yuv420p"), "{codec}");
        for format in ["yuv422p", "yuv444p"] {
            assert!(!by_device(codec, format), "{codec} in {format}");
        }
    }
}
