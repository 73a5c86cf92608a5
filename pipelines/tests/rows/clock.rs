//! The 90 kHz clock: exact, through the wrap, the same on all renditions and in both containers, for ever.

use bytes::BytesMut;
use headwater_pipelines::es::{AudioPacket, Frame, Item, Rotation, Ticks};
use headwater_pipelines::mux::{MuxVideo, Muxer};
use headwater_protocol::Container;

use crate::media::{Folder, WRAP, demux, demux_in, probe};
use crate::rig::{Rig, engine, rendition, run};
use crate::{PLAIN, REORDERED};

/// A little more than a second before the 33 bits are used up.
const NEAR_WRAP: &str = "-muxdelay 0 -output_ts_offset 95442.6";

fn sorted(mut times: Vec<i64>) -> Vec<i64> {
    times.sort_unstable();
    times
}

#[test]
fn the_offset_of_sound_to_picture_is_the_inputs_to_the_tick() {
    let folder = Folder::new();
    let mut mp4 = rendition("mp4", 160, 90);
    mp4.container = Container::Mp4;
    let mut engine = engine(vec![rendition("ts", 160, 90), mp4]);
    // Sound later, sound earlier, and neither on a round number.
    for (name, options) in [
        ("later.ts", "-af adelay=58.667 -output_ts_offset 102.0003"),
        ("earlier.ts", "-vf setpts=PTS+0.0413/TB -output_ts_offset 7.77"),
        ("usual.ts", "-bf 2"),
    ] {
        let file = folder.make(name, &format!("{PLAIN} {options} -c:a mp2"));
        let done = run(&mut engine, &std::fs::read(&file).unwrap()).unwrap();
        let first = |file: &std::path::Path| {
            let video = sorted(probe(file, "v:0").iter().map(|packet| packet.pts).collect());
            let audio: Vec<i64> = probe(file, "a:0").iter().map(|packet| packet.pts).collect();
            (video, audio)
        };
        let wanted = first(&file);
        assert_eq!(first(&folder.write("out.ts", &done.outputs[0])), wanted, "{name}");
        let (video, audio) = first(&folder.write("out.mp4", &done.outputs[1]));
        assert_eq!(video, wanted.0, "{name}");
        // MP4 counts samples: half of one is a tick.
        assert!((audio[0] - wanted.1[0]).abs() <= 1, "{name}: {} {}", audio[0], wanted.1[0]);
        assert_eq!(audio.len(), wanted.1.len());
    }
}

#[test]
fn the_wrap_of_33_bits_inside_a_segment_is_passed_in_pictures_sound_and_decoding_times() {
    let folder = Folder::new();
    for (name, options) in [("plain.ts", PLAIN), ("reordered.ts", REORDERED)] {
        let file = folder.make(name, &format!("{options} -c:a aac {NEAR_WRAP}"));
        let input = probe(&file, "v:0");
        assert!(input.iter().any(|p| p.pts > WRAP / 2) && input.iter().any(|p| p.pts < WRAP / 2), "it wraps");
        let mut mp4 = rendition("mp4", 160, 90);
        mp4.container = Container::Mp4;
        let mut gated = rendition("gated", 160, 90);
        gated.fps = Some(headwater_protocol::FrameRate::new(15, 1).unwrap());
        let mut engine = engine(vec![rendition("ts", 320, 180), mp4, gated]);
        let done = run(&mut engine, &std::fs::read(&file).unwrap()).unwrap();
        // Ahead of the first frame, wherever that is.
        let first = input.iter().map(|p| p.pts).filter(|pts| *pts > WRAP / 2).min().unwrap();
        let ahead =
            |times: Vec<i64>| sorted(times.iter().map(|pts| (pts - first).rem_euclid(WRAP)).collect());
        let wanted = ahead(input.iter().map(|p| p.pts).collect());
        let ts = folder.write("out.ts", &done.outputs[0]);
        let video: Vec<i64> = probe(&ts, "v:0").iter().map(|p| p.pts).collect();
        assert_eq!(ahead(video), wanted, "{name}");
        assert!(probe(&ts, "v:0").iter().all(|p| p.pts == p.dts));
        assert_eq!(probe(&ts, "a:0"), probe(&file, "a:0"), "{name}");
        let mp4 = folder.write("out.mp4", &done.outputs[1]);
        assert_eq!(ahead(probe(&mp4, "v:0").iter().map(|p| p.pts).collect()), wanted, "{name}");
        let gated = folder.write("gated.ts", &done.outputs[2]);
        let gated = ahead(probe(&gated, "v:0").iter().map(|p| p.pts).collect());
        assert_eq!(gated, (0..30).map(|at| at * 6000).collect::<Vec<_>>(), "{name}");
        assert_eq!(done.report.input.duration.0, 2000, "{name}");
    }
}

#[test]
fn all_renditions_have_the_same_times_in_both_containers() {
    let rig = Rig::new();
    let input = rig.clip("320x180", 1.5, &format!("{REORDERED} -output_ts_offset 1234.5"), "in.ts");
    let mut mp4 = rendition("mp4", 240, 136);
    mp4.container = Container::Mp4;
    let mut hevc = rendition("hevc", 160, 90);
    hevc.codec = headwater_protocol::Codec::Hevc;
    let done = run(&mut engine(vec![rendition("ts", 320, 180), mp4, hevc]), &input).unwrap();
    let wanted = sorted(rig.times(&input));
    for bytes in &done.outputs {
        assert_eq!(rig.times(bytes), wanted);
    }
    for report in &done.report.renditions {
        assert_eq!((report.frames, report.first_pts as i64), (wanted.len() as u64, wanted[0]));
    }
}

/// Two seconds at 30000/1001 frames a second.
const SEGMENT: i64 = 60 * 3003;

/// Ten thousand segments of two seconds, the wrap in their middle, through the writers and readers of both containers.
#[test]
fn no_tick_is_lost_over_ten_thousand_segments_and_the_wrap() {
    let folder = Folder::new();
    let read = demux(&folder.make("in.ts", &format!("{REORDERED} -t 0.2 -c:a ac3")));
    let tracks = &read.tracks[0];
    let codec = tracks.video.as_ref().unwrap().codec;
    let (base, start) = (read.video[0].pts.0, WRAP - 5_000 * SEGMENT);
    let items = |shift: i64| {
        let video = read.video.iter().map(move |frame| {
            Item::Video(Frame {
                pts: Ticks(frame.pts.0 + shift),
                dts: Ticks(frame.dts.0 + shift),
                ..frame.clone()
            })
        });
        let audio = read.audio.iter().map(move |packet| {
            Item::Audio(AudioPacket { pts: Ticks(packet.pts.0 + shift), ..packet.clone() })
        });
        video.chain(audio)
    };
    for number in 0..10_000 {
        let shift = start + number * SEGMENT - base;
        // Each tenth is enough for MP4, which does the same sums in 64 bits.
        let containers =
            if number % 10 == 0 { &[Container::Ts, Container::Mp4][..] } else { &[Container::Ts] };
        for container in containers {
            let video = MuxVideo { codec, width: 320, height: 180, fps: None, rotation: Rotation::None };
            let mut muxer = Muxer::new(*container, video, &tracks.audio);
            let mut out = BytesMut::new();
            for item in items(shift) {
                match item {
                    Item::Video(frame) => muxer.video(&frame, &mut out),
                    Item::Audio(packet) => muxer.audio(&packet, &mut out),
                    Item::Tracks(_) => {}
                }
            }
            muxer.finish(&mut out);
            let again = demux_in(&out, 1 << 20).unwrap();
            assert_eq!((again.video.len(), again.errors), (read.video.len(), 0), "segment {number}");
            for (frame, first) in again.video.iter().zip(&read.video) {
                let off = |time: i64, first: i64| (time - first - shift).rem_euclid(WRAP);
                assert_eq!(off(frame.pts.0, first.pts.0), 0, "segment {number}");
                assert_eq!(off(frame.dts.0, first.dts.0), 0, "segment {number}");
            }
            let heard = (again.audio[0].pts.0 - read.audio[0].pts.0 - shift).rem_euclid(WRAP);
            assert!(heard == 0 || (*container == Container::Mp4 && heard.min(WRAP - heard) <= 1), "{heard}");
        }
    }
}

#[test]
fn segments_one_after_the_other_join_to_the_tick_and_stay_warm() {
    let folder = Folder::new();
    let file = folder.make("in.ts", &format!("{PLAIN} -t 0.2 -c:a ac3"));
    let read = demux(&file);
    let mut engine = engine(vec![rendition("a", 160, 90)]);
    let (count, length) = (read.video.len() as i64, 3000 * read.video.len() as i64);
    let start = WRAP - 20 * length;
    let mut expected = start;
    for number in 0..40 {
        let mut moved = demux_in(&std::fs::read(&file).unwrap(), 1 << 20).unwrap();
        let shift = start + number * length - read.video[0].pts.0;
        for item in &mut moved.items {
            match item {
                Item::Video(frame) => (frame.pts.0, frame.dts.0) = (frame.pts.0 + shift, frame.dts.0 + shift),
                Item::Audio(packet) => packet.pts.0 += shift,
                Item::Tracks(_) => {}
            }
        }
        let done = run(&mut engine, &moved.mux(Container::Ts)).unwrap();
        assert_eq!(done.report.warm, number > 0);
        let again = demux_in(&done.outputs[0], 1 << 20).unwrap();
        assert_eq!(again.video.len() as i64, count, "segment {number}");
        for frame in again.video {
            assert_eq!(frame.pts.0.rem_euclid(WRAP), expected.rem_euclid(WRAP), "segment {number}");
            expected += 3000;
        }
    }
}
