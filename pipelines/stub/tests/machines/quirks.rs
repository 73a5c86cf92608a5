//! What a user says of a board in a profile of their own, laid over a shipped one.

use std::fs;

use crate::support::{BITRATES, Rig};

/// How often the decoder and both encoders began, over three segments on a board whose profile a user extends by `quirks`.
fn begun(quirks: &[&str]) -> (usize, usize) {
    let rig = Rig::new("orin-nx-jp6");
    let profile = format!(
        "schema = 1\nid = 'mine'\ntitle = 'Mine'\nextends = 'jetson-orin-jp6'\npriority = 99\nquirks = {quirks:?}\n"
    );
    fs::create_dir(rig.path("boards")).unwrap();
    fs::write(rig.path("boards/mine.toml"), profile).unwrap();
    let mut command = rig.worker("");
    command.env("HEADWATER_BOARDS", rig.path("boards"));
    command.arg("transcode").arg(rig.clip()).arg("-o").arg(rig.path("out"));
    command.arg("--ladder").arg(rig.ladder()).args(["--segment", "2"]);
    let done = rig.run(&mut command);
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), rig.whole_trace());
    for (name, _) in BITRATES {
        for segment in 0..3 {
            let frames = rig.frames(&rig.path(&format!("out/{name}/{segment}.ts")));
            assert_eq!((frames.len(), frames[0].1), (60, true), "{name} {segment}");
        }
    }
    let starts = |element: &str| rig.trace(element).iter().filter(|line| line.starts_with("starts")).count();
    (starts("nvv4l2decoder"), starts("nvv4l2h264enc"))
}

#[test]
fn without_a_quirk_a_decoder_and_an_encoder_for_each_rung_serve_all_segments() {
    assert_eq!(begun(&[]), (1, 2));
}

#[test]
fn encoders_that_do_not_survive_a_segment_are_new_in_each() {
    assert_eq!(begun(&["fresh-encoder-per-segment"]), (1, 6));
}

#[test]
fn a_decoder_that_does_not_survive_a_segment_is_new_in_each() {
    assert_eq!(begun(&["fresh-decoder-per-segment"]), (3, 2));
}
