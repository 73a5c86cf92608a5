//! `thumbnails` and `storyboard` as a user runs them.

use std::path::Path;
use std::process::{Command, Output};

mod rig;
use rig::Rig;

/// How alike a JPEG of good quality and the source's frame are that ffmpeg scales in its own way.
const ALIKE: f64 = 0.9;

fn worker(folder: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headwater-worker"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap()
}

fn report(rig: &Rig, arguments: &str) -> serde_json::Value {
    let output = worker(&rig.path(""), arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn read(rig: &Rig, name: &str) -> Vec<u8> {
    std::fs::read(rig.path(name)).unwrap()
}

/// Twelve seconds with a keyframe each so many frames, of thirty a second.
fn clip(rig: &Rig, gop: u32, name: &str) -> Vec<u8> {
    rig.clip(
        "640x360",
        12.0,
        &format!("-c:v libx264 -preset veryfast -crf 16 -g {gop} -sc_threshold 0"),
        name,
    )
}

#[test]
fn thumbnails_are_keyframes_and_nothing_else_is_decoded() {
    let rig = Rig::new();
    for name in ["in.mp4", "in.ts"] {
        let input = clip(&rig, 60, name);
        let made = report(&rig, &format!("thumbnails {name} -o {name}.d --every 5s --width 320 --json"));
        assert_eq!(made["files"], serde_json::json!(["00001.jpg", "00002.jpg", "00003.jpg"]));
        assert_eq!((made["decoded"].as_u64(), made["frames"].as_u64()), (Some(3), Some(360)));
        // Due at 0, 5 and 10 s; keyframes are at each even second.
        for (file, seconds) in [("00001.jpg", 0.0), ("00002.jpg", 6.0), ("00003.jpg", 10.0)] {
            let picture = read(&rig, &format!("{name}.d/{file}"));
            assert_eq!(rig.image(&picture), ("mjpeg".to_owned(), 320, 180));
            let ssim = rig.still_ssim(&picture, &input, seconds, (320, 180), None);
            assert!(ssim > ALIKE, "{name} {file}: SSIM {ssim}");
        }
    }
}

/// Checks each cue of the storyboard in `folder`, one a second: its picture is the input's at that time. Gives their count
/// and the text.
fn cues(rig: &Rig, folder: &str, input: &[u8]) -> (u32, String) {
    let vtt = String::from_utf8(read(rig, &format!("{folder}/storyboard.vtt"))).unwrap();
    let mut cues = 0;
    for cue in vtt.split("\n\n").skip(1) {
        let (time, target) = cue.split_once('\n').unwrap();
        let seconds: f64 = time[6..12].parse().unwrap();
        assert_eq!(seconds, f64::from(cues));
        let (file, place) = target.trim().split_once("#xywh=").unwrap();
        let place: Vec<u32> = place.split(',').map(|number| number.parse().unwrap()).collect();
        assert_eq!(place[2..], [160, 90]);
        let sheet = read(rig, &format!("{folder}/{file}"));
        assert_eq!(rig.image(&sheet), ("mjpeg".to_owned(), 640, 180));
        let ssim = rig.still_ssim(&sheet, input, seconds, (160, 90), Some((place[0], place[1])));
        assert!(ssim > ALIKE, "{folder}, picture {cues}: SSIM {ssim}");
        cues += 1;
    }
    (cues, vtt)
}

#[test]
fn a_storyboard_has_every_second_where_keyframes_are_rare_and_says_where() {
    let rig = Rig::new();
    let input = clip(&rig, 180, "in.mp4");
    let made = report(&rig, "storyboard in.mp4 -o out --every 1s --columns 4 --rows 2 --width 160 --json");
    assert_eq!(made["files"], serde_json::json!(["sheet-001.jpg", "sheet-002.jpg"]));
    assert_eq!((made["pictures"].as_u64(), made["decoded"].as_u64()), (Some(12), Some(360)));
    let (cues, vtt) = cues(&rig, "out", &input);
    assert_eq!(cues, 12);
    assert!(vtt.ends_with("00:00:12.000\nsheet-002.jpg#xywh=480,0,160,90\n"), "{vtt}");
}

#[test]
fn files_of_newer_codecs_have_pictures_too() {
    let rig = Rig::new();
    // Alternate references, which are not shown, are in packets of their own in VP8, and in superframes in VP9.
    let vpx = "-deadline realtime -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 8 -b:v 1M";
    for (name, options) in [
        ("vp9.webm", format!("-c:v libvpx-vp9 {vpx}")),
        ("vp8.webm", format!("-c:v libvpx {vpx}")),
        ("av1.mp4", "-c:v libaom-av1 -cpu-used 8 -usage realtime -b:v 1M".to_owned()),
    ] {
        let input = rig.clip("320x180", 4.9, &format!("{options} -g 60"), name);
        let made = report(&rig, &format!("thumbnails {name} -o {name}.t --every 4s --width 160 --json"));
        assert_eq!(made["files"], serde_json::json!(["00001.jpg", "00002.jpg"]), "{name}");
        assert_eq!(made["decoded"], 2, "{name}");
        let ssim = rig.still_ssim(&read(&rig, &format!("{name}.t/00002.jpg")), &input, 4.0, (160, 90), None);
        assert!(ssim > ALIKE, "{name}: SSIM {ssim}");
        let made = report(
            &rig,
            &format!("storyboard {name} -o {name}.s --columns 4 --rows 2 --width 160 --every 1s --json"),
        );
        assert_eq!((made["pictures"].as_u64(), made["frames"].as_u64()), (Some(5), Some(147)), "{name}");
        assert_eq!(cues(&rig, &format!("{name}.s"), &input).0, 5, "{name}");
    }
}

#[test]
fn a_storyboard_of_open_groups_of_pictures_has_them_all() {
    let rig = Rig::new();
    for (name, options) in [
        ("x264.mp4", "-c:v libx264 -preset veryfast -x264-params open-gop=1:keyint=60:bframes=3:scenecut=0"),
        (
            "x265.mp4",
            "-c:v libx265 -preset ultrafast -x265-params log-level=error:open-gop=1:keyint=60:bframes=3:scenecut=0",
        ),
    ] {
        let input = rig.clip("320x180", 7.0, &format!("{options} -crf 12"), name);
        let made = report(
            &rig,
            &format!("storyboard {name} -o {name}.s --columns 4 --rows 2 --width 160 --every 1s --json"),
        );
        assert_eq!(made["pictures"], 7, "{name}");
        // All of the first six seconds but those shown right before the keyframes at 2, 4 and 6 s, which does for the rest.
        let decoded = made["decoded"].as_u64().unwrap();
        assert!((160..181).contains(&decoded), "{name}: {decoded}");
        assert_eq!(cues(&rig, &format!("{name}.s"), &input).0, 7, "{name}");
    }
}

#[test]
fn a_turned_phone_picture_is_upright() {
    let rig = Rig::new();
    clip(&rig, 60, "flat.mp4");
    rig.ffmpeg("-i flat.mp4 -c copy -metadata:s:v:0 rotate=90 turned.mp4");
    report(&rig, "thumbnails turned.mp4 -o out --width 320 --json");
    assert_eq!(rig.image(&read(&rig, "out/00001.jpg")), ("mjpeg".to_owned(), 180, 320));
}

#[test]
fn what_cannot_be_done_is_told_in_a_sentence() {
    let rig = Rig::new();
    rig.write("notes.ts", b"this is no video");
    let error = |arguments: &str| {
        let output = worker(&rig.path(""), arguments);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = error("thumbnails notes.ts -o out");
    assert!(text.contains("plain text"), "{text}");
    let text = error("thumbnails none.ts -o out");
    assert!(text.contains("none.ts"), "{text}");
    rig.clip("320x180", 0.5, "-c:v libx264 -preset ultrafast", "in.ts");
    let text = error("storyboard in.ts -o out --columns 100 --rows 100 --width 320");
    assert!(text.contains("make fewer or smaller tiles") || text.contains("16384"), "{text}");
    rig.write("file", b"");
    let text = error("thumbnails in.ts -o file");
    assert!(text.contains("file"), "{text}");
}
