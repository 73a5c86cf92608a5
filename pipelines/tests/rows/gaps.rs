//! Times that are missing, uneven, far apart, out of order or those of a single frame.

use bytes::Bytes;
use headwater_pipelines::es::Item;
use headwater_pipelines::nal;
use headwater_pipelines::split::split;
use headwater_protocol::{Codec, Container, FrameRate};

use crate::media::{Folder, demux, demux_in};
use crate::rig::{Rig, engine, rendition, run, run_as};
use crate::{PLAIN, REORDERED, each_video_pes};

fn two() -> headwater_pipelines::engine::Engine {
    engine(vec![rendition("a", 320, 180), rendition("b", 160, 90)])
}

fn in_order(mut times: Vec<i64>) -> Vec<i64> {
    times.sort_unstable();
    times
}

#[test]
fn pictures_shown_before_the_keyframe_they_come_after_are_the_first_in_the_output() {
    let folder = Folder::new();
    let rig = Rig::new();
    // A keyframe that starts afresh, with pictures after it that are shown before it.
    let x265 = "log-level=none:open-gop=0:radl=2:bframes=3:b-adapt=0:keyint=15:min-keyint=15:scenecut=0";
    let file = folder.make("in.ts", &format!("-c:v libx265 -preset veryfast -x265-params {x265} -an"));
    let mut segments = Vec::new();
    split(&file, std::time::Duration::from_millis(400), &mut |segment| {
        segments.push(segment);
        Ok(())
    })
    .unwrap();
    let mut led = 0;
    for segment in &segments {
        let frames = demux_in(&segment.bytes, 65_536).unwrap().video;
        let earliest = frames.iter().map(|frame| frame.pts).min().unwrap();
        led += u32::from(earliest < frames[0].pts);
        let done = run(&mut two(), &segment.bytes).unwrap();
        assert_eq!(done.report.renditions[0].first_pts as i64, earliest.0);
        assert_eq!(rig.times(&done.outputs[1]), in_order(frames.iter().map(|frame| frame.pts.0).collect()));
    }
    assert!(led > 0, "no segment has such pictures");
}

#[test]
fn what_leads_the_first_keyframe_of_a_stream_and_cannot_be_decoded_is_reported_as_lost() {
    let folder = Folder::new();
    let rig = Rig::new();
    let x265 = "log-level=none:open-gop=1:bframes=4:b-adapt=0:keyint=15:scenecut=0";
    let file = folder.make("in.ts", &format!("-c:v libx265 -preset veryfast -x265-params {x265} -an"));
    // From the second keyframe on, with all that comes after it.
    let mut read = demux(&file);
    let second = read.video.iter().enumerate().filter(|(_, frame)| frame.key).nth(1).unwrap().0;
    let from = read.video[second].clone();
    let leading = read.video[second..].iter().filter(|frame| frame.pts < from.pts).count() as u64;
    assert!(leading > 0);
    read.items.retain(|item| !matches!(item, Item::Video(frame) if frame.dts < from.dts));
    let done = run(&mut two(), &read.mux(Container::Ts)).unwrap();
    let video = done.report.input.video.unwrap();
    assert_eq!(video.frames - video.decoded, leading);
    assert_eq!(done.report.renditions[0].frames, video.decoded);
    assert_eq!(rig.times(&done.outputs[0])[0], from.pts.0);
}

#[test]
fn a_gap_stays_a_gap() {
    let rig = Rig::new();
    let mut input = rig.clip("320x180", 0.5, PLAIN, "one.ts");
    input.extend(rig.clip("320x180", 0.5, &format!("{PLAIN} -output_ts_offset 5.123"), "two.ts"));
    let done = run(&mut two(), &input).unwrap();
    let wanted = rig.times(&input);
    assert!(wanted.windows(2).any(|pair| pair[1] - pair[0] > 400_000));
    for bytes in &done.outputs {
        assert_eq!(rig.times(bytes), wanted);
    }
}

#[test]
fn segments_may_come_in_any_order_and_again() {
    let rig = Rig::new();
    let segments: Vec<Vec<u8>> = (0..4)
        .map(|at| {
            rig.clip(
                "320x180",
                0.4,
                &format!("{REORDERED} -output_ts_offset {}", f64::from(at) * 0.4),
                "in.ts",
            )
        })
        .collect();
    let mut engine = two();
    let mut first: [Option<(usize, Vec<u64>)>; 4] = Default::default();
    for at in [2, 0, 3, 0, 1, 2, 2, 3, 1] {
        let done = run(&mut engine, &segments[at]).unwrap();
        assert_eq!(rig.times(&done.outputs[0]), in_order(rig.times(&segments[at])), "segment {at}");
        assert_eq!(rig.times(&done.outputs[0]), rig.times(&done.outputs[1]), "segment {at}");
        let keys = done.report.renditions.iter().map(|report| report.keyframes).collect();
        let now = (done.report.input.video.unwrap().decoded as usize, keys);
        assert_eq!(*first[at].get_or_insert_with(|| now.clone()), now, "segment {at}");
    }
}

#[test]
fn without_decoding_times_each_frame_keeps_its_own() {
    let rig = Rig::new();
    let mut input = rig.clip("320x180", 1.0, REORDERED, "in.ts");
    let wanted = in_order(rig.times(&input));
    let mut changed = 0;
    each_video_pes(&mut input, |_, pes| {
        if pes[7] & 0xc0 == 0xc0 {
            changed += 1;
            pes[7] &= !0x40;
            pes[9] = 0x20 | (pes[9] & 0x0f);
            pes[14..19].fill(0xff);
        }
    });
    assert!(changed > 10);
    let done = run(&mut two(), &input).unwrap();
    for bytes in &done.outputs {
        assert_eq!(rig.times(bytes), wanted);
    }
}

#[test]
fn times_that_are_missing_now_and_then_are_filled_in() {
    let rig = Rig::new();
    let mut input = rig.clip("320x180", 1.0, PLAIN, "in.ts");
    let wanted = rig.times(&input);
    each_video_pes(&mut input, |number, pes| {
        if number % 3 != 0 {
            pes[7] = 0;
            let end = 9 + usize::from(pes[8]);
            pes[9..end].fill(0xff);
        }
    });
    let done = run(&mut two(), &input).unwrap();
    for bytes in &done.outputs {
        assert_eq!(rig.times(bytes), wanted);
    }
}

#[test]
fn messages_beside_the_pictures_are_not_needed() {
    let folder = Folder::new();
    let rig = Rig::new();
    let mut read = demux(&folder.make("in.ts", &format!("{REORDERED} -an")));
    let wanted = in_order(read.video.iter().map(|frame| frame.pts.0).collect());
    let mut gone = 0;
    for item in &mut read.items {
        let Item::Video(frame) = item else { continue };
        let kept: Vec<u8> = nal::units(&frame.data)
            .filter(|unit| {
                let sei = nal::kind(Codec::H264, unit) == nal::Kind::Sei;
                gone += u32::from(sei);
                !sei
            })
            .flat_map(|unit| [&[0, 0, 0, 1], unit].concat())
            .collect();
        frame.data = Bytes::from(kept);
    }
    assert!(gone > 0);
    let done = run(&mut two(), &read.mux(Container::Ts)).unwrap();
    assert_eq!(rig.times(&done.outputs[0]), wanted);
}

#[test]
fn uneven_frames_keep_their_times_and_become_even_where_a_rate_is_asked() {
    let rig = Rig::new();
    // Frames 0 1 2 5 7 8 11 … of 30 a second.
    let options = "-vf select='not(mod(n,5))+not(mod(n,7))+not(mod(n,3)*mod(n,4))' -vsync vfr";
    for (name, codec) in [("in.ts", PLAIN), ("in.mp4", REORDERED)] {
        let input = rig.clip("320x180", 2.0, &format!("{options} {codec}"), name);
        let wanted = in_order(rig.times(&input));
        let steps: std::collections::BTreeSet<i64> =
            wanted.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.len() > 1, "{steps:?}");
        let mut even = rendition("even", 160, 90);
        even.fps = Some(FrameRate::new(25, 1).unwrap());
        let mut mp4 = rendition("mp4", 160, 90);
        mp4.container = Container::Mp4;
        let hint = if name.ends_with("ts") { Container::Ts } else { Container::Mp4 };
        let done = run_as(&mut engine(vec![rendition("all", 320, 180), mp4, even]), hint, &input).unwrap();
        let times: Vec<Vec<i64>> = done.outputs.iter().map(|bytes| rig.times(bytes)).collect();
        assert_eq!(times[0], times[1], "{name}");
        assert_eq!(times[0].len(), wanted.len(), "{name}");
        if name.ends_with("ts") {
            assert_eq!(times[0], wanted);
        }
        assert!(times[2].windows(2).all(|pair| pair[1] - pair[0] == 3600), "{name}: {:?}", times[2]);
        let span = times[2].last().unwrap() + 3600 - times[2][0];
        assert!((span - 180_000).abs() <= 12_000, "{name}: {span}");
    }
}

#[test]
fn a_flood_of_single_frames_gives_one_for_one_from_a_warm_worker() {
    let rig = Rig::new();
    let input = rig
        .ffmpeg(&format!("-f lavfi -i testsrc2=s=320x180:r=30 -frames:v 1 -pix_fmt yuv420p {PLAIN} in.ts"));
    let wanted = rig.times(&input);
    let mut engine = two();
    for number in 0..50 {
        let done = run(&mut engine, &input).unwrap();
        assert_eq!(done.report.warm, number > 0);
        for (bytes, report) in done.outputs.iter().zip(&done.report.renditions) {
            assert_eq!((report.frames, report.keyframes), (1, 1));
            let frames = demux_in(bytes, 65_536).unwrap().video;
            assert_eq!(frames.iter().map(|frame| frame.pts.0).collect::<Vec<_>>(), wanted);
        }
    }
}
