//! MP4: read as ffprobe reads it.

mod media;

use headwater_pipelines::es::{AudioFormat, Rotation};
use headwater_protocol::{Code, Container};
use media::{Folder, Packet, WRAP, demux, demux_in, md5, pictures, probe, run};
use proptest::prelude::*;

const H264: &str = "-c:v libx264 -preset veryfast -g 30 -c:a aac -b:a 96k";
const HEVC: &str =
    "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=20 -tag:v hvc1 -c:a ac3";
const PIECES: &str = "-movflags frag_keyframe+empty_moov+default_base_moof";

fn inputs(folder: &Folder) -> Vec<std::path::PathBuf> {
    vec![
        folder.make("b.mp4", H264),
        folder.make("start.mp4", &format!("{H264} -movflags +faststart")),
        folder.make("no-b.mov", &format!("{H264} -bf 0")),
        folder.make("pieces.mp4", &format!("{H264} {PIECES}")),
        folder.make("negative.mp4", &format!("{H264} {PIECES}+negative_cts_offsets")),
        folder.make("hevc.mp4", HEVC),
        folder.make("ntsc.mp4", &format!("{H264} -r 30000/1001 -video_track_timescale 30000")),
        folder.make("mp3.mp4", "-c:v libx264 -preset veryfast -c:a libmp3lame"),
        folder.make("opus.mp4", "-c:v libx264 -preset veryfast -c:a libopus"),
        folder.make("late.mp4", &format!("{H264} -output_ts_offset 5")),
    ]
}

fn near(ours: &[Packet], theirs: &[Packet], name: &str) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    // ffprobe moves the presentation where offsets are negative, we move decoding: both start at their own.
    let moved = if name.contains("negative") { theirs[0].pts - ours[0].pts } else { 0 };
    for (ours, theirs) in ours.iter().zip(theirs) {
        let close = |a: i64, b: i64| ((a - b + WRAP / 2).rem_euclid(WRAP) - WRAP / 2).abs() <= 1;
        let same = close(ours.pts + moved, theirs.pts)
            && close(ours.dts + moved, theirs.dts)
            && ours.key == theirs.key;
        assert!(same, "{name}: {ours:?}, ffprobe has {theirs:?}");
    }
}

#[test]
fn frames_and_their_times_are_those_that_ffprobe_reads() {
    let folder = Folder::new();
    for file in inputs(&folder) {
        let read = demux(&file);
        let name = file.display().to_string();
        near(&read.packets(), &probe(&file, "v:0"), &name);
        let audio = probe(&file, "a:0");
        assert_eq!(read.audio.len(), audio.len(), "{name}");
        for (ours, theirs) in read.audio.iter().zip(&audio) {
            assert!(
                ((ours.pts.0 - theirs.pts + WRAP / 2).rem_euclid(WRAP) - WRAP / 2).abs() <= 1,
                "{name}: {:?} {theirs:?}",
                ours.pts
            );
        }
        assert_eq!(read.errors, 0, "{name}");
    }
}

#[test]
fn written_as_a_transport_stream_it_shows_the_same_pictures() {
    let folder = Folder::new();
    for file in inputs(&folder) {
        let copy = folder.write("copy.ts", &demux(&file).mux(Container::Ts));
        let name = file.display();
        assert_eq!(pictures(&copy), pictures(&file), "{name}");
        let sound = "-map 0:a -f md5";
        if matches!(demux(&file).tracks[0].audio[0], AudioFormat::Ac3 | AudioFormat::Mpeg) {
            let copy_of = "-map 0:a -c copy -f md5";
            assert_eq!(md5(&copy, copy_of), md5(&file, copy_of), "{name}");
        } else {
            assert!(md5(&copy, sound).starts_with("MD5="), "{name}");
        }
        assert_eq!(probe(&copy, "a:0").len(), demux(&file).audio.len(), "{name}");
    }
}

#[test]
fn a_turned_picture_says_so() {
    let folder = Folder::new();
    let file = folder.make("up.mp4", H264);
    // ffmpeg counts against the clock.
    for (degrees, wanted) in [
        (0, Rotation::None),
        (270, Rotation::Clockwise90),
        (180, Rotation::Half),
        (90, Rotation::Clockwise270),
    ] {
        let turned = folder.path("turned.mp4");
        let from = file.to_str().unwrap();
        let args = format!("-v error -y -i {from} -c copy -metadata:s:v:0 rotate={degrees}");
        run("ffmpeg", &args, &[&turned]);
        assert_eq!(demux(&turned).tracks[0].video.as_ref().unwrap().rotation, wanted, "{degrees}");
    }
}

#[test]
fn what_cannot_be_read_gets_a_sentence() {
    let folder = Folder::new();
    let good = std::fs::read(folder.make("in.mp4", H264)).unwrap();
    let mpeg4 = std::fs::read(folder.make("mpeg4.mp4", "-c:v mpeg4 -an")).unwrap();
    let cases: [(&[u8], Code, &str); 2] = [
        (&good[..good.len() / 2], Code::NotMedia, "moov"),
        (&mpeg4, Code::UnsupportedCodec, "MPEG-4 part 2"),
    ];
    for (bytes, code, word) in cases {
        let fault = demux_in(bytes, 1000).unwrap_err();
        assert_eq!(fault.code, code, "{fault}");
        assert!(fault.text.contains(word), "{fault}");
    }
}

#[test]
fn a_fragmented_file_cut_off_gives_what_it_has() {
    let folder = Folder::new();
    let good = std::fs::read(folder.make("in.mp4", &format!("{H264} {PIECES}"))).unwrap();
    let read = demux_in(&good[..good.len() * 3 / 4], 65_536).unwrap();
    assert!(!read.video.is_empty() && read.errors > 0);
}

fn sample() -> Vec<u8> {
    use std::sync::OnceLock;
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE
        .get_or_init(|| {
            std::fs::read(Folder::new().make("in.mp4", &format!("{H264} -t 0.3 -movflags +faststart")))
                .unwrap()
        })
        .clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_damage_makes_the_reader_panic(
        hits in proptest::collection::vec((0usize..3000, any::<u8>()), 1..40),
    ) {
        let mut bytes = sample();
        for (at, value) in hits {
            bytes[at] = value;
        }
        let _ = demux_in(&bytes, 65_536);
    }
}
