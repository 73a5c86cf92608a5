//! The engine on real input: exact frames, exact times, exact sizes, and clear answers to bad input.

use headwater_pipelines::engine::Engine;
use headwater_pipelines::es::Rotation;
use headwater_pipelines::survey;
use headwater_protocol::{Code, Codec, Container, FrameRate, Gop, Ladder, Millis};

mod media;
mod rig;
use media::demux;
use rig::{Done, Rig, engine, rendition, run, run_as};

const X264: &str = "-c:v libx264 -preset ultrafast -g 60";

fn two() -> Engine {
    engine(vec![rendition("a", 320, 180), rendition("b", 160, 90)])
}

fn sizes(rig: &Rig, done: &Done) -> Vec<(u32, u32)> {
    done.outputs
        .iter()
        .zip(&done.report.renditions)
        .map(|(bytes, report)| {
            let frames = rig.frames(bytes);
            assert!(frames.iter().all(|frame| frame.width == frames[0].width));
            assert_eq!((report.width.0, report.height.0), (frames[0].width, frames[0].height));
            assert_eq!(report.frames, frames.len() as u64);
            (frames[0].width, frames[0].height)
        })
        .collect()
}

/// Every rendition has exactly the input's frames at exactly the input's times, and starts with a keyframe.
fn assert_true_to(rig: &Rig, input: &[u8], done: &Done) {
    let mut want = rig.times(input);
    want.sort_unstable();
    for bytes in &done.outputs {
        let frames = rig.frames(bytes);
        assert_eq!(frames.iter().map(|frame| frame.pts).collect::<Vec<_>>(), want);
        assert!(frames[0].key);
    }
}

#[test]
fn frames_and_times_are_the_inputs_on_every_rendition() {
    let rig = Rig::new();
    let input = rig.clip("640x360", 2.0, &format!("{X264} -bf 0"), "in.ts");
    let done = run(&mut two(), &input).unwrap();
    assert_true_to(&rig, &input, &done);
    assert_eq!(sizes(&rig, &done), [(320, 180), (160, 90)]);
    let video = done.report.input.video.clone().unwrap();
    assert_eq!((video.frames, video.decoded, video.pixels), (60, 60, 60 * 640 * 360));
    assert_eq!(video.fps.unwrap().to_string(), "30");
    assert_eq!(done.report.input.duration, Millis(2000));
    assert_eq!(done.report.renditions[0].keyframes, 1);
    assert_eq!(done.report.renditions[0].first_pts as i64, rig.times(&input)[0]);
}

#[test]
fn reordered_frames_and_hevc_are_read() {
    let rig = Rig::new();
    let b_frames = rig.clip("640x360", 2.0, "-c:v libx264 -preset veryfast -bf 3 -g 60", "b.ts");
    assert_true_to(&rig, &b_frames, &run(&mut two(), &b_frames).unwrap());
    let hevc =
        rig.clip("640x360", 1.0, "-c:v libx265 -preset ultrafast -x265-params log-level=error", "hevc.ts");
    assert_true_to(&rig, &hevc, &run(&mut two(), &hevc).unwrap());
}

#[test]
fn odd_rates_keep_their_ticks() {
    let rig = Rig::new();
    let input = rig.ffmpeg(
        "-f lavfi -i testsrc2=s=320x180:r=30000/1001 -t 2 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -bf 0 \
         -output_ts_offset 26000 in.ts",
    );
    let done = run(&mut two(), &input).unwrap();
    assert_true_to(&rig, &input, &done);
    assert_eq!(done.report.input.video.unwrap().fps.unwrap().to_string(), "30000/1001");
}

#[test]
fn keyframes_come_as_asked() {
    let rig = Rig::new();
    let input = rig.clip("640x360", 2.0, X264, "in.ts");
    let mut every = rendition("every", 320, 180);
    every.gop = Gop::Every(Millis(500));
    let mut intra = rendition("intra", 160, 90);
    intra.gop = Gop::Intra;
    let done = run(&mut engine(vec![every, intra]), &input).unwrap();
    let keys: Vec<usize> = rig
        .frames(&done.outputs[0])
        .iter()
        .enumerate()
        .filter_map(|(at, frame)| frame.key.then_some(at))
        .collect();
    assert_eq!(keys, [0, 15, 30, 45]);
    assert!(rig.frames(&done.outputs[1]).iter().all(|frame| frame.key));
}

#[test]
fn keyframes_come_as_asked_and_at_no_cut_of_the_scene() {
    let rig = Rig::new();
    let cut = "-vf negate=enable='mod(floor(t/0.7),2)',format=yuv420p";
    let input = rig.clip("320x180", 3.0, &format!("{cut} {X264} -bf 0"), "in.ts");
    let encoders = [
        ("x264enc", Codec::H264, Container::Ts),
        ("openh264enc", Codec::H264, Container::Ts),
        ("x265enc", Codec::Hevc, Container::Ts),
        ("av1enc", Codec::Av1, Container::Mp4),
    ];
    for (encoder, codec, container) in encoders {
        let mut one = rendition("a", 320, 180);
        (one.codec, one.container, one.gop) = (codec, container, Gop::Every(Millis(1000)));
        let (board, mut machine) = survey::board().unwrap();
        assert!(machine.elements.contains_key(encoder), "{encoder} is installed");
        for (other, _, _) in encoders.iter().filter(|(other, _, _)| *other != encoder) {
            machine.refused.insert((*other).to_owned(), "not the one that is tried".to_owned());
        }
        let mut engine = Engine::new(board, machine, Ladder::new(vec![one]).unwrap());
        let done = run(&mut engine, &input).unwrap_or_else(|fault| panic!("{encoder}: {fault}"));
        let frames = rig.frames(&done.outputs[0]);
        let keys: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].key).collect();
        assert_eq!((keys, frames.len()), (vec![0, 30, 60], 90), "{encoder}");
    }
}

#[test]
fn pictures_keep_their_shape() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    let mut shape = |input: &[u8]| sizes(&rig, &run(&mut engine, input).unwrap())[0];
    let portrait = rig.clip("360x640", 0.3, X264, "portrait.ts");
    assert_eq!(shape(&portrait), (180, 320));
    let squeezed = rig.clip("480x360", 0.3, &format!("-vf setsar=4/3 {X264}"), "sar.ts");
    assert_eq!(shape(&squeezed), (320, 180));
    let odd = rig.ffmpeg(
        "-f lavfi -i testsrc2=s=642x362:r=30 -t 0.3 -vf crop=641:361,format=yuv444p -c:v libx264 -preset ultrafast odd.ts",
    );
    assert_eq!(shape(&odd), (320, 180));
    let small = rig.clip("160x120", 0.3, X264, "small.ts");
    assert_eq!(shape(&small), (320, 240), "enlarged, since it was asked for");
}

#[test]
fn a_turned_phone_picture_is_set_upright() {
    let rig = Rig::new();
    rig.clip("640x360", 0.5, X264, "flat.mp4");
    let turned = rig.ffmpeg("-i flat.mp4 -c copy -metadata:s:v:0 rotate=90 turned.mp4");
    let mut mp4 = rendition("b", 320, 180);
    mp4.container = Container::Mp4;
    let done = run_as(&mut engine(vec![rendition("a", 320, 180), mp4]), Container::Mp4, &turned).unwrap();
    assert_eq!(sizes(&rig, &done), [(180, 320), (180, 320)]);
    // Upright already: a player must not turn it again.
    assert_eq!(
        demux(&rig.write("b.mp4", &done.outputs[1])).tracks[0].video.as_ref().unwrap().rotation,
        Rotation::None
    );
    assert_ne!(demux(&rig.path("turned.mp4")).tracks[0].video.as_ref().unwrap().rotation, Rotation::None);
}

#[test]
fn interlaced_pictures_become_progressive_ones_of_the_same_number() {
    let rig = Rig::new();
    let input = rig.ffmpeg(
        "-f lavfi -i testsrc2=s=640x360:r=50 -t 1 -vf interlace -pix_fmt yuv420p -c:v libx264 -preset ultrafast \
         -flags +ilme+ildct -x264opts tff=1 -bf 0 in.ts",
    );
    let done = run(&mut two(), &input).unwrap();
    assert_true_to(&rig, &input, &done);
}

#[test]
fn another_frame_rate_has_exact_times() {
    let rig = Rig::new();
    let input = rig.clip("640x360", 1.0, X264, "in.ts");
    let mut half = rendition("half", 320, 180);
    half.fps = Some(FrameRate::new(15, 1).unwrap());
    let mut double = rendition("double", 160, 90);
    double.fps = Some(FrameRate::new(60, 1).unwrap());
    let done = run(&mut engine(vec![half, double, rendition("same", 320, 180)]), &input).unwrap();
    let first = rig.times(&input)[0];
    let times = |rung: usize| rig.times(&done.outputs[rung]);
    assert_eq!(times(0), (0..15).map(|i| first + i * 6000).collect::<Vec<_>>());
    assert_eq!(times(1), (0..60).map(|i| first + i * 1500).collect::<Vec<_>>());
    assert_eq!(times(2).len(), 30);
}

#[test]
fn one_frame_in_is_one_frame_out() {
    let rig = Rig::new();
    let input = rig.ffmpeg(
        "-f lavfi -i testsrc2=s=640x360:r=30 -frames:v 1 -pix_fmt yuv420p -c:v libx264 -preset ultrafast in.ts",
    );
    assert_true_to(&rig, &input, &run(&mut two(), &input).unwrap());
}

#[test]
fn few_frames_come_out_whole_though_they_are_reordered() {
    let rig = Rig::new();
    let mut engine = two();
    for count in 1..=10 {
        let input = rig.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=320x180:r=30 -frames:v {count} -pix_fmt yuv420p -c:v libx264 -preset veryfast \
             -x264-params bframes=3:b-adapt=0 in.ts"
        ));
        let done = run(&mut engine, &input).unwrap();
        assert_true_to(&rig, &input, &done);
        assert_eq!(rig.times(&done.outputs[0]).len(), count);
    }
}

#[test]
fn a_change_of_size_in_the_middle_keeps_the_output_size() {
    let rig = Rig::new();
    let mut input = rig.clip("640x360", 0.5, &format!("{X264} -bf 0"), "one.ts");
    let second = rig.clip("320x240", 0.5, &format!("{X264} -bf 0 -output_ts_offset 0.5"), "two.ts");
    input.extend(second);
    let done = run(&mut two(), &input).unwrap();
    assert_eq!(sizes(&rig, &done), [(320, 180), (160, 90)]);
    assert_eq!(done.report.renditions[0].frames, 30);
}

#[test]
fn audio_is_carried_over_byte_for_byte() {
    let rig = Rig::new();
    let input = rig.ffmpeg(
        "-f lavfi -i testsrc2=s=640x360:r=30 -f lavfi -i sine=440 -t 2 -pix_fmt yuv420p -c:v libx264 -preset \
         ultrafast -g 60 -c:a aac in.ts",
    );
    let done = run(&mut two(), &input).unwrap();
    assert_eq!(done.report.input.audio_streams, 1);
    for bytes in &done.outputs {
        assert_eq!(rig.audio_md5(bytes), rig.audio_md5(&input));
    }
}

#[test]
fn pictures_look_like_the_source() {
    let rig = Rig::new();
    let input = rig.clip("640x360", 1.0, "-c:v libx264 -preset veryfast -crf 18", "in.ts");
    let done = run(&mut two(), &input).unwrap();
    let ssim = rig.ssim(&done.outputs[0], &input, 320, 180);
    assert!(ssim > 0.9, "SSIM {ssim}");
}

#[test]
fn bad_input_is_answered_by_its_name_and_the_next_segment_works() {
    let rig = Rig::new();
    let mut engine = two();
    let good = rig.clip("640x360", 0.3, X264, "good.ts");
    let tail = {
        // What lies behind the first keyframe only.
        let long = rig.clip("640x360", 1.0, "-c:v libx264 -preset ultrafast -g 300 -bf 0", "long.ts");
        let keyed = rig.frames(&long).iter().filter(|frame| frame.key).count();
        assert_eq!(keyed, 1);
        let head = long.len() / 2 / 188 * 188;
        [&long[..188 * 3], &long[head..]].concat()
    };
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("nothing", Vec::new(), Code::EmptyInput),
        ("text", b"hello, this is not a video\n".repeat(50), Code::NotMedia),
        ("no keyframe", tail, Code::NoKeyframe),
    ];
    for (what, input, code) in cases {
        let fault = run(&mut engine, &input).map(|done| done.report).expect_err(what);
        assert_eq!(fault.code, code, "{what}: {fault}");
        let done = run(&mut engine, &good).unwrap_or_else(|fault| panic!("after {what}: {fault}"));
        assert_true_to(&rig, &good, &done);
    }
}

#[test]
fn damaged_input_gives_what_is_left_and_says_so() {
    let rig = Rig::new();
    let input = rig.clip("640x360", 2.0, &format!("{X264} -bf 0"), "in.ts");
    let mut engine = two();
    let cut = &input[..input.len() / 2];
    let done = run(&mut engine, cut).unwrap();
    let frames = done.report.renditions[0].frames;
    assert!((10..60).contains(&frames), "{frames} frames");
    // One packet in fifty is gone.
    let holes: Vec<u8> = input
        .chunks(188)
        .enumerate()
        .filter(|(at, _)| at % 50 != 49)
        .flat_map(|(_, packet)| packet.iter().copied())
        .collect();
    let done = run(&mut engine, &holes).unwrap();
    assert!(done.report.input.errors > 0);
    assert!(done.report.renditions[0].frames > 30, "{} frames", done.report.renditions[0].frames);
    assert_true_to(&rig, &input, &run(&mut engine, &input).unwrap());
}

#[test]
fn a_worker_stays_warm_until_the_picture_changes() {
    let rig = Rig::new();
    let mut engine = two();
    let wide = rig.clip("640x360", 0.3, X264, "wide.ts");
    let tall = rig.clip("360x640", 0.3, X264, "tall.ts");
    let mut warm = |input: &[u8]| run(&mut engine, input).unwrap().report.warm;
    assert_eq!([warm(&wide), warm(&wide), warm(&tall), warm(&tall)], [false, true, false, true]);
}

#[test]
fn a_worker_warmed_beforehand_is_warm_for_its_first_segment() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    engine.prewarm().unwrap();
    let usual = rig.clip("1920x1080", 0.2, &format!("{X264} -bf 0"), "usual.ts");
    let done = run(&mut engine, &usual).unwrap();
    assert!(done.report.warm);
    assert_true_to(&rig, &usual, &done);
}

#[test]
fn every_usual_rate_becomes_another_with_exact_times_and_the_same_count_on_all_renditions() {
    let rig = Rig::new();
    let cases: [(&str, f64, (u32, u32), u64); 4] = [
        ("30", 1.0, (25, 1), 25),
        ("25", 1.0, (30, 1), 30),
        ("60", 1.0, (30, 1), 30),
        ("24000/1001", 1.001, (30, 1), 30),
    ];
    for (rate, seconds, (num, den), count) in cases {
        let input = rig.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=320x180:r={rate} -t {seconds} -pix_fmt yuv420p {X264} -bf 0 in.ts"
        ));
        let other = |name: &str, width, height| {
            let mut one = rendition(name, width, height);
            one.fps = Some(FrameRate::new(num, den).unwrap());
            one
        };
        let done = run(&mut engine(vec![other("a", 320, 180), other("b", 160, 90)]), &input).unwrap();
        let first = rig.times(&input)[0];
        let step = 90_000 * i64::from(den) / i64::from(num);
        let want: Vec<i64> = (0..count as i64).map(|at| first + at * step).collect();
        for bytes in &done.outputs {
            assert_eq!(rig.times(bytes), want, "{rate} to {num}/{den}");
        }
    }
}

#[test]
fn a_change_of_rate_in_the_middle_keeps_each_frame_or_gives_an_even_rate() {
    let rig = Rig::new();
    let mut input = rig.clip("320x180", 0.5, &format!("{X264} -bf 0"), "one.ts");
    input.extend(rig.clip(
        "320x180",
        0.5,
        &format!("-vf fps=60 {X264} -bf 0 -output_ts_offset 0.5"),
        "two.ts",
    ));
    let mut even = rendition("even", 160, 90);
    even.fps = Some(FrameRate::new(30, 1).unwrap());
    let done = run(&mut engine(vec![rendition("all", 320, 180), even]), &input).unwrap();
    let times = |rung: usize| rig.times(&done.outputs[rung]);
    assert_eq!(times(0), rig.times(&input));
    assert_eq!(times(0).len(), 45);
    assert_eq!(times(1), (0..30).map(|at| times(0)[0] + at * 3000).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_is_too_long_is_refused_while_everything_is_at_work() {
    let rig = Rig::new();
    let mut input = rig.clip("320x180", 0.5, &format!("{X264} -bf 0"), "one.ts");
    let good = input.clone();
    input.extend(rig.clip("320x180", 0.2, &format!("{X264} -bf 0 -output_ts_offset 400"), "two.ts"));
    let mut filled = rendition("b", 160, 90);
    filled.fps = Some(FrameRate::new(25, 1).unwrap());
    let mut engine = engine(vec![rendition("a", 320, 180), filled]);
    // Often, for it ends at another place each time.
    for _ in 0..12 {
        let fault = run(&mut engine, &input).map(|done| done.report).expect_err("400 s");
        assert_eq!(fault.code, Code::TooLarge, "{fault}");
    }
    run(&mut engine, &good).unwrap();
}

#[test]
fn a_clock_that_goes_back_costs_no_frame_and_no_order() {
    let rig = Rig::new();
    let one = rig.clip("320x180", 0.5, &format!("{X264} -bf 0"), "one.ts");
    let done = run(&mut two(), &[one.clone(), one].concat()).unwrap();
    let times = rig.times(&done.outputs[0]);
    assert_eq!(times, (0..30).map(|at| times[0] + at * 3000).collect::<Vec<_>>());
}

#[test]
fn frames_without_timestamps_are_shown_in_order() {
    let rig = Rig::new();
    let mut input = rig.clip("320x180", 1.0, "-c:v libx264 -preset veryfast -bf 3 -g 60", "b.ts");
    let mut seen = false;
    for packet in input.as_chunks_mut::<188>().0 {
        let adaptation = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
        if (packet[1] & 0x5f, packet[2]) != (0x41, 0) {
            continue;
        }
        // The first one keeps its times.
        let pes = &mut packet[4 + adaptation..];
        if std::mem::replace(&mut seen, true) {
            pes[7] = 0;
            let end = 9 + usize::from(pes[8]);
            pes[9..end].fill(0xff);
        }
    }
    let done = run(&mut two(), &input).unwrap();
    let times = rig.times(&done.outputs[0]);
    assert_eq!(times.len(), 30);
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
}

#[test]
fn a_segment_with_sound_but_no_frame_is_handed_on_as_it_is() {
    let rig = Rig::new();
    let input = rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=440 -t 0.5 -pix_fmt yuv420p {X264} -c:a aac in.ts"
    ));
    let silent = |packet: &&[u8]| (packet[1] & 0x1f, packet[2]) != (1, 0);
    let sound: Vec<u8> = input.chunks(188).filter(silent).flatten().copied().collect();
    let mut engine = two();
    for _ in 0..2 {
        let done = run(&mut engine, &sound).unwrap();
        assert!(done.report.input.video.is_none());
        for (bytes, report) in done.outputs.iter().zip(&done.report.renditions) {
            assert!(report.copied && *bytes == sound);
            assert_eq!((report.frames, report.bytes), (0, sound.len() as u64));
        }
        assert_eq!(run(&mut engine, &input).unwrap().report.renditions[0].frames, 15);
    }
}

#[test]
fn sound_alone_is_handed_on_if_it_is_no_longer_than_a_segment_may_be() {
    let rig = Rig::new();
    let sound =
        |at: u32| rig.ffmpeg(&format!("-f lavfi -i sine -t 0.5 -c:a aac -output_ts_offset {at} in.ts"));
    let upto = |last| [sound(0), sound(last)].concat();
    let mut engine = two();
    let fault = run(&mut engine, &upto(302)).map(|done| done.report).expect_err("302 s");
    assert_eq!(
        (fault.code, fault.text.as_str()),
        (Code::TooLarge, "the segment is longer than 300 s; cut it")
    );
    let long = upto(299);
    let done = run(&mut engine, &long).unwrap();
    assert!(done.report.renditions.iter().all(|report| report.copied));
    assert!(done.outputs.iter().all(|bytes| *bytes == long));
}

#[test]
fn every_audio_track_is_carried_over_wherever_it_begins() {
    let rig = Rig::new();
    let input = rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -f lavfi -i sine=f=880 -t 1 -filter_complex \
         [1:a]pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0[s];[2:a]asetpts=PTS+0.4/TB[l] -map 0:v -map [s] -map [l] \
         -pix_fmt yuv420p {X264} -c:a aac in.ts"
    ));
    let mut mp4 = rendition("b", 160, 90);
    mp4.container = Container::Mp4;
    let done = run(&mut engine(vec![rendition("a", 320, 180), mp4]), &input).unwrap();
    assert_eq!(done.report.input.audio_streams, 2);
    let (ts, mp4) = (rig.audio(&done.outputs[0]), rig.audio(&done.outputs[1]));
    assert_eq!(ts, rig.audio(&input));
    let channels: Vec<u64> = ts.iter().map(|track| track.channels).collect();
    assert_eq!(channels, [6, 1]);
    for (ours, theirs) in mp4.iter().zip(&ts) {
        assert_eq!((ours.channels, ours.packets), (theirs.channels, theirs.packets));
        assert!((ours.start - theirs.start).abs() < 0.001, "{ours:?} {theirs:?}");
    }
}

#[test]
fn an_mp4_whose_sound_begins_before_zero_is_written_as_a_stream_from_zero() {
    let rig = Rig::new();
    let input = rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -t 0.5 -pix_fmt yuv420p {X264} -c:a aac in.mp4"
    ));
    let mut mp4 = rendition("b", 160, 90);
    mp4.container = Container::Mp4;
    let done = run_as(&mut engine(vec![rendition("a", 320, 180), mp4]), Container::Mp4, &input).unwrap();
    // 1024 samples of 48 kHz.
    assert_eq!(rig.audio(&done.outputs[0])[0].start, 0.0);
    assert_eq!(rig.times(&done.outputs[0])[0], 1920);
    assert_eq!(done.report.renditions[0].first_pts, 1920);
    assert_eq!(rig.times(&done.outputs[1])[0], 0);
}
