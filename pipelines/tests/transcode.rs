//! `headwater-worker transcode`: files for users.

use std::path::Path;
use std::process::{Command, Output};

mod rig;
use rig::Rig;

fn transcode(rig: &Rig, input: &Path, more: &[&str]) -> Output {
    let ladder = r#"[{"name":"a","width":320,"height":180,"bitrate":200000,"fps":0,"gop":"1"}]"#;
    Command::new(env!("CARGO_BIN_EXE_headwater-worker"))
        .arg("transcode")
        .arg(input)
        .arg("-o")
        .arg(rig.path("out"))
        .arg("-l")
        .arg(rig.write("ladder.json", ladder.as_bytes()))
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn an_input_without_a_frame_is_an_error_and_leaves_no_file() {
    let rig = Rig::new();
    let input = rig.ffmpeg(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=440 -t 0.3 -pix_fmt yuv420p -c:v libx264 -preset \
         ultrafast -c:a aac in.ts",
    );
    let silent = |packet: &&[u8]| (packet[1] & 0x1f, packet[2]) != (1, 0);
    let sound: Vec<u8> = input.chunks(188).filter(silent).flatten().copied().collect();
    let sound = rig.write("sound.ts", &sound);
    for more in [&[][..], &["--whole"]] {
        let output = transcode(&rig, &sound, more);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("no_frames"), "{more:?}: {text}");
        assert_eq!(std::fs::read_dir(rig.path("out")).unwrap().count(), 0, "{more:?}");
    }
    let output = transcode(&rig, &rig.path("in.ts"), &["--whole"]);
    assert_eq!(output.status.code(), Some(0));
    let files: Vec<_> = std::fs::read_dir(rig.path("out")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["a.ts"]);
}

#[test]
fn a_video_that_a_phone_held_upright_stays_upright_in_every_segment() {
    let rig = Rig::new();
    rig.ffmpeg(
        "-f lavfi -i testsrc2=s=320x180:r=30 -t 2 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 30 \
         -keyint_min 30 flat.mp4",
    );
    rig.ffmpeg("-i flat.mp4 -c copy -metadata:s:v:0 rotate=90 turned.mp4");
    let output = transcode(&rig, &rig.path("turned.mp4"), &["--segment", "1", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["segments"], 2);
    let one = &summary["renditions"][0];
    assert_eq!((one["width"].as_u64(), one["height"].as_u64()), (Some(180), Some(320)));
}

#[test]
fn a_ladder_file_may_ask_for_encoded_sound() {
    let rig = Rig::new();
    rig.ffmpeg(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=440 -t 1 -pix_fmt yuv420p -c:v libx264 -preset \
         ultrafast -c:a mp2 in.ts",
    );
    let ladder = "[[rendition]]\nname = 'a'\nwidth = 320\nheight = 180\nbitrate = '200k'\n\
                  audio = { opus = { bitrate = '64k', channels = 1 } }\n";
    let output = Command::new(env!("CARGO_BIN_EXE_headwater-worker"))
        .arg("transcode")
        .arg(rig.path("in.ts"))
        .arg("-o")
        .arg(rig.path("out"))
        .arg("-l")
        .arg(rig.write("ladder.toml", ladder.as_bytes()))
        .args(["--container", "mp4"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let sound = rig.audio(&std::fs::read(rig.path("out/a/0.mp4")).unwrap());
    assert_eq!(sound.iter().map(|track| track.channels).collect::<Vec<_>>(), [1]);
    let help =
        Command::new(env!("CARGO_BIN_EXE_headwater-worker")).args(["transcode", "--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("audio = \"none\""));
}
