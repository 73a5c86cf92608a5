//! Damage: what is there is used, what is lost is reported.

use headwater_protocol::Code;

use crate::PLAIN;
use crate::media::{Folder, pictures};
use crate::rig::{Rig, engine, rendition, run};

/// A generator that is the same everywhere: numbers below 1000.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 1000
    }
}

#[test]
fn frames_before_the_first_keyframe_are_lost_and_reported() {
    let rig = Rig::new();
    let input =
        rig.clip("320x180", 2.0, "-c:v libx264 -preset ultrafast -bf 0 -g 30 -sc_threshold 0", "in.ts");
    // The tables, then from somewhere in the first group on.
    let frames = rig.times(&input);
    let from = input.len() / 4 / 188 * 188;
    let cut = [&input[..188 * 3], &input[from..]].concat();
    let done = run(&mut engine(vec![rendition("a", 160, 90)]), &cut).unwrap();
    let video = done.report.input.video.unwrap();
    assert_eq!((video.decoded, done.report.renditions[0].frames), (30, 30));
    assert!(video.frames > 30, "{} frames came", video.frames);
    assert_eq!(rig.times(&done.outputs[0]), frames[30..]);
}

#[test]
fn with_three_percent_of_packets_lost_as_much_is_decoded_as_by_ffmpeg() {
    let folder = Folder::new();
    let mut engine = engine(vec![rendition("a", 160, 90)]);
    let kinds = [
        ("h264.ts", "-c:v libx264 -preset veryfast -b:v 1M -g 60 -bf 0 -an"),
        ("slices.ts", "-c:v libx264 -preset veryfast -b:v 1M -g 30 -x264-params slices=4 -an"),
        ("hevc.ts", "-c:v libx265 -preset ultrafast -b:v 1M -x265-params log-level=none:keyint=30 -an"),
    ];
    for (name, options) in kinds {
        let bytes = std::fs::read(folder.make(name, options)).unwrap();
        for seed in 1..8 {
            let mut number = numbers(seed);
            let left: Vec<u8> = bytes.chunks(188).filter(|_| number() >= 30).flatten().copied().collect();
            let theirs = pictures(&folder.write("damaged.ts", &left)).len() as u64;
            let done = run(&mut engine, &left).unwrap_or_else(|fault| panic!("{name}, seed {seed}: {fault}"));
            let video = done.report.input.video.clone().unwrap();
            assert!(video.decoded >= theirs, "{name}, seed {seed}: {} of {theirs}", video.decoded);
            assert!(done.report.input.errors > 0, "{name}, seed {seed}");
            assert_eq!(done.report.renditions[0].frames, video.decoded, "{name}, seed {seed}");
        }
    }
}

#[test]
fn broken_bytes_in_pictures_cost_pictures_and_no_segment() {
    let folder = Folder::new();
    let mut engine = engine(vec![rendition("a", 160, 90), rendition("b", 320, 180)]);
    let bytes = std::fs::read(folder.make("in.ts", &format!("{PLAIN} -an"))).unwrap();
    for seed in 1..6 {
        let mut number = numbers(seed);
        let mut broken = bytes.clone();
        // One packet in twenty has a broken byte; the tables are left alone.
        for packet in broken.as_chunks_mut::<188>().0.iter_mut().skip(6) {
            if number() < 50 {
                packet[100 + number() as usize % 80] ^= 0xa5;
            }
        }
        let done = run(&mut engine, &broken).unwrap();
        let video = done.report.input.video.unwrap();
        assert!((30..=60).contains(&video.decoded), "seed {seed}: {} of {}", video.decoded, video.frames);
        for report in &done.report.renditions {
            assert_eq!(report.frames, video.decoded, "seed {seed}");
        }
    }
}

#[test]
fn a_segment_cut_off_anywhere_is_used_as_far_as_it_goes() {
    let folder = Folder::new();
    let mut engine = engine(vec![rendition("a", 160, 90)]);
    for (name, options) in
        [("in.ts", ""), ("in.mkv", ""), ("in.mp4", "-movflags frag_keyframe+empty_moov -g 15")]
    {
        let bytes = std::fs::read(folder.make(name, &format!("{PLAIN} {options} -c:a aac"))).unwrap();
        let mut before = 0;
        for percent in [20, 40, 70, 95, 100] {
            let cut = &bytes[..bytes.len() * percent / 100];
            let done = run(&mut engine, cut).unwrap_or_else(|fault| panic!("{name} {percent} %: {fault}"));
            let frames = done.report.renditions[0].frames;
            assert!(frames >= before && frames > 0, "{name} {percent} %: {frames} after {before}");
            before = frames;
        }
        assert_eq!(before, 60, "{name}");
    }
}

#[test]
fn garbage_gets_a_sentence_and_the_worker_stays_warm() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 160, 90)]);
    let good = rig.clip("320x180", 0.2, PLAIN, "good.ts");
    run(&mut engine, &good).unwrap();
    let mut number = numbers(7);
    let noise: Vec<u8> = (0..50_000).map(|_| number() as u8).collect();
    let cases = [
        (noise, Code::NotMedia),
        (vec![0; 10_000], Code::NotMedia),
        (Vec::new(), Code::EmptyInput),
        (vec![0x47; 188 * 100], Code::NotMedia),
    ];
    for (input, code) in cases {
        let fault = run(&mut engine, &input).map(|done| done.report).unwrap_err();
        assert_eq!(fault.code, code, "{fault}");
        assert!(!fault.text.is_empty());
        assert_eq!(run(&mut engine, &good).unwrap().report.renditions[0].frames, 6);
    }
}
