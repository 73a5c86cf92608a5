//! Files cut into segments: nothing lost, nothing doubled, each piece by itself.

mod media;
mod rig;

use std::io;
use std::path::Path;
use std::time::Duration;

use headwater_pipelines::split::{SplitSegment, SplitSummary, inspect, split};
use headwater_protocol::{Code, Container, Fault, Millis};
use media::{Folder, WRAP, md5, pictures, probe};
use rig::{Rig, engine, rendition, run};

const H264: &str = "-c:v libx264 -preset veryfast -g 15 -c:a aac -b:a 96k";

fn cut(file: &Path, target: u64) -> Result<(Vec<SplitSegment>, SplitSummary), Fault> {
    let mut segments = Vec::new();
    let summary = split(file, Duration::from_millis(target), &mut |segment| {
        segments.push(segment);
        Ok(())
    })?;
    Ok((segments, summary))
}

#[test]
fn the_pieces_together_are_the_file() {
    let folder = Folder::new();
    let files = [
        folder.make("in.ts", H264),
        folder.make("in.mp4", H264),
        folder.make("pieces.mp4", &format!("{H264} -movflags frag_keyframe+empty_moov")),
        folder.make(
            "hevc.mp4",
            "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=15:open-gop=0 -c:a ac3",
        ),
    ];
    for file in files {
        let name = file.display();
        let (segments, summary) = cut(&file, 500).unwrap();
        assert_eq!((summary.frames, summary.errors), (60, 0), "{name}");
        assert_eq!(summary.duration, Millis(2000), "{name}");
        assert_eq!(segments.iter().map(|s| s.duration.0).sum::<u64>(), 2000, "{name}");
        assert_eq!(segments.len() as u64, summary.segments, "{name}");
        let whole =
            folder.write("whole.ts", &segments.iter().flat_map(|s| s.bytes.to_vec()).collect::<Vec<u8>>());
        assert_eq!(pictures(&whole), pictures(&file), "{name}");
        let (ours, theirs) = (probe(&whole, "v:0"), probe(&file, "v:0"));
        let shift = ours[0].pts - theirs[0].pts;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!(
                ((ours.pts - theirs.pts - shift + WRAP / 2).rem_euclid(WRAP) - WRAP / 2).abs() <= 1,
                "{name}"
            );
        }
        assert_eq!(probe(&whole, "a:0").len(), probe(&file, "a:0").len(), "{name}");
        if name.to_string().ends_with("ts") {
            let args = "-map 0:a -c copy -f md5";
            assert_eq!(md5(&whole, args), md5(&file, args), "{name}");
        }
        for segment in &segments[..segments.len() - 1] {
            assert!(segment.duration.0 >= 500, "{name}: {segment:?}");
        }
        for segment in &segments {
            let piece = folder.write("piece.ts", &segment.bytes);
            let packets = probe(&piece, "v:0");
            assert!(packets[0].key && packets.len() as u64 == segment.frames, "{name}");
            assert_eq!(packets[0].pts, segment.start.0.rem_euclid(WRAP), "{name}");
            assert_eq!(pictures(&piece).len() as u64, segment.frames, "{name}");
        }
    }
}

/// Open groups of pictures: some pictures that are shown before a keyframe are decoded after it and refer to what
/// is before it too.
#[test]
fn open_groups_are_cut_without_losing_or_doubling_a_picture() {
    let folder = Folder::new();
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 160, 90)]);
    let x264 =
        "-c:v libx264 -preset veryfast -x264-params open-gop=1:bframes=3:b-adapt=0:keyint=15:scenecut=0";
    let x265 = "-c:v libx265 -preset veryfast -x265-params log-level=none:open-gop=1:bframes=4:b-adapt=0:keyint=15:scenecut=0";
    let files = [
        folder.make("h264.ts", &format!("{x264} -c:a mp2")),
        folder.make("h264.mp4", &format!("{x264} -an")),
        folder.make("hevc.ts", &format!("{x265} -c:a ac3")),
        folder.make("hevc.mp4", &format!("{x265} -tag:v hvc1 -c:a aac")),
        folder.make("hevc.mkv", &format!("{x265} -an")),
    ];
    for file in files {
        let name = file.display();
        let (segments, summary) = cut(&file, 400).unwrap();
        assert_eq!((summary.frames, segments.len()), (60, 4), "{name}");
        let mut times = Vec::new();
        let mut copies = 0;
        for segment in &segments {
            let done = run(&mut engine, &segment.bytes).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            let video = done.report.input.video.unwrap();
            assert_eq!((video.frames, video.decoded), (segment.frames, segment.frames), "{name}");
            times.extend(rig.times(&done.outputs[0]));
            let packets = probe(&folder.write("piece.ts", &segment.bytes), "v:0").len() as u64;
            copies += packets - segment.frames;
        }
        assert_eq!(copies, 3, "{name}: a keyframe is there once more at each cut");
        let mut wanted: Vec<i64> = rig.times(&std::fs::read(&file).unwrap());
        wanted.sort_unstable();
        assert_eq!(times.len(), 60, "{name}");
        let even = times.windows(2).all(|pair| (2880..=3060).contains(&(pair[1] - pair[0])));
        assert!(even, "{name}: {times:?}");
        if name.to_string().ends_with("ts") {
            assert_eq!(times, wanted, "{name}");
        }
    }
}

#[test]
fn audio_goes_with_the_video_of_its_time() {
    let folder = Folder::new();
    let (segments, _) = cut(&folder.make("in.mp4", H264), 500).unwrap();
    assert_eq!(segments.len(), 4);
    for pair in segments.windows(2) {
        let audio = probe(&folder.write("piece.ts", &pair[0].bytes), "a:0");
        assert!(audio.iter().all(|packet| packet.pts < pair[1].start.0));
        let audio = probe(&folder.write("piece.ts", &pair[1].bytes), "a:0");
        assert!(audio.iter().all(|packet| packet.pts >= pair[1].start.0));
    }
}

#[test]
fn a_look_tells_length_and_kind() {
    let folder = Folder::new();
    for (name, container) in [("in.ts", Container::Ts), ("in.mp4", Container::Mp4)] {
        let file = folder.make(name, H264);
        let renamed = folder.write("what.bin", &std::fs::read(&file).unwrap());
        let found = inspect(&renamed).unwrap();
        assert_eq!((found.container, found.bytes), (container, std::fs::metadata(&file).unwrap().len()));
        assert_eq!((found.duration, found.tracks.audio.len()), (Some(Millis(1967)), 1));
    }
}

#[test]
fn what_cannot_be_cut_gets_a_sentence() {
    let folder = Folder::new();
    let radio = folder.make("radio.ts", "-map 1:a -c:a aac");
    let cases = [
        (folder.make("in.flv", &format!("{H264} -ar 44100")), Code::NotMedia, "remux"),
        (folder.write("text.ts", b"hello\n"), Code::NotMedia, "text"),
        (folder.write("empty.mp4", b""), Code::EmptyInput, "empty"),
        (radio, Code::NoVideo, "no video"),
        (folder.path("missing.ts"), Code::FetchFailed, "missing.ts"),
    ];
    for (file, code, word) in cases {
        let fault = cut(&file, 500).unwrap_err();
        assert_eq!(fault.code, code, "{fault}");
        assert!(fault.text.contains(word), "{fault}");
    }
}

#[test]
fn a_sink_that_fails_ends_the_work() {
    let folder = Folder::new();
    let mut calls = 0;
    let result = split(&folder.make("in.ts", H264), Duration::from_millis(500), &mut |_| {
        calls += 1;
        Err(io::Error::other("full"))
    });
    assert_eq!((result.unwrap_err().code, calls), (Code::Storage, 1));
}
