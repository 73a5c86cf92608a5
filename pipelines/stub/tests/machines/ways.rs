//! What a picture may need besides another size, done by a board's own elements.

use std::fs;
use std::path::PathBuf;

use crate::support::Rig;
use serde_json::{Value, json};

const ORIN: &str = "orin-nx-jp6";

fn one_rung(rig: &Rig, width: u32, height: u32, more: Value) -> PathBuf {
    let mut rung = json!({"name": "a", "codec": "h264", "width": width, "height": height,
                          "rate": {"bitrate": 500_000}, "gop": "segment", "container": "ts"});
    rung.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let path = rig.path("one.json");
    fs::write(&path, Value::from(vec![rung]).to_string()).unwrap();
    path
}

/// The encoder got pictures in the board's own memory, and nothing else.
fn stayed_there(rig: &Rig) {
    let lines = rig.trace("nvv4l2h264enc");
    let taken: Vec<_> = lines.iter().filter(|line| line.starts_with("takes")).collect();
    assert!(!taken.is_empty() && taken.iter().all(|line| line.contains("(memory:NVMM)")), "{taken:?}");
}

fn well_done(rig: &Rig, clip: &std::path::Path, ladder: &std::path::Path) {
    let done = rig.transcode_of(clip, ladder, "");
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), rig.whole_trace());
    stayed_there(rig);
}

#[test]
fn a_turned_picture_is_set_upright_by_the_boards_scaler() {
    let rig = Rig::new(ORIN);
    rig.clip_of("lying.mp4", "640x360", "0", "2");
    rig.ffmpeg(&["-i", "lying.mp4", "-c", "copy", "-metadata:s:v:0", "rotate=90", "turned.mp4"]);
    // In one piece: the turn is in MP4's header.
    let mut command = rig.worker("");
    command.arg("transcode").arg(rig.path("turned.mp4")).arg("-o").arg(rig.path("out"));
    command.arg("--ladder").arg(one_rung(&rig, 320, 320, json!({}))).arg("--whole");
    let done = rig.run(&mut command);
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), rig.whole_trace());
    stayed_there(&rig);
    assert_eq!(rig.size(&rig.path("out/a.ts")), (180, 320));
    let turns = rig.trace("nvvidconv").into_iter().any(|line| line.contains("turn: Some"));
    assert!(turns, "{}", rig.whole_trace());
}

#[test]
fn a_rung_of_half_the_rate_gets_every_second_picture_without_a_copy() {
    let rig = Rig::new(ORIN);
    let clip = rig.clip();
    well_done(&rig, &clip, &one_rung(&rig, 320, 180, json!({"fps": "15"})));
    for segment in 0..3 {
        let frames = rig.frames(&rig.path(&format!("out/a/{segment}.ts")));
        assert_eq!(frames.len(), 30);
        assert!(frames.windows(2).all(|two| two[1].0 - two[0].0 == 6000), "{frames:?}");
    }
}

#[test]
fn pictures_of_another_size_in_the_middle_come_out_in_the_same_size() {
    let rig = Rig::new(ORIN);
    let mut both = fs::read(rig.clip_of("first.ts", "640x360", "0", "1")).unwrap();
    both.extend(fs::read(rig.clip_of("second.ts", "480x270", "1", "1")).unwrap());
    fs::write(rig.path("both.ts"), both).unwrap();
    well_done(&rig, &rig.path("both.ts"), &one_rung(&rig, 320, 180, json!({})));
    assert_eq!(rig.frames(&rig.path("out/a/0.ts")).len(), 60);
    assert_eq!(rig.size(&rig.path("out/a/0.ts")), (320, 180));
}

#[test]
fn of_a_ladder_with_still_pictures_only_those_that_are_due_leave_the_boards_memory() {
    let rig = Rig::new(ORIN);
    let ladder = json!([
        {"name": "thumbs", "codec": "jpeg", "width": 160, "height": 90, "rate": {"quality": 11}, "gop": "segment",
         "container": "jpeg", "tiles": {"columns": 2, "rows": 1, "every": 1000}},
        {"name": "a", "codec": "h264", "width": 320, "height": 180, "rate": {"bitrate": 500_000}, "gop": "segment",
         "container": "ts"},
    ]);
    fs::write(rig.path("both.json"), ladder.to_string()).unwrap();
    let clip = rig.clip();
    well_done(&rig, &clip, &rig.path("both.json"));
    for segment in 0..3 {
        assert_eq!(rig.frames(&rig.path(&format!("out/a/{segment}.ts"))).len(), 60);
        assert_eq!(rig.size(&rig.path(&format!("out/thumbs/{segment}.jpg"))), (320, 90));
    }
    // Of 60 pictures of a segment two are due.
    let carried = rig.trace("nvvidconv").into_iter().any(|line| line == "stops in=6 out=6");
    assert!(carried, "{}", rig.whole_trace());
}
