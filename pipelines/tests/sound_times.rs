//! Sound encoded anew stays where it was when its clock or its format does something: holes, jumps, starts, turns.

use std::path::Path;

use headwater_pipelines::transcode::Cut;
use headwater_protocol::Container;

mod ear;
mod rig;
use ear::{
    NOISE, PICTURE, Pcm, SECOND, VIDEO, aac, assert_in_sync, hear, lag, loudness, make, opus, packets, rung,
    segments, work,
};
use rig::Rig;

#[test]
fn sound_that_comes_late_ends_early_and_has_a_hole_stays_in_its_place() {
    let rig = Rig::new();
    // Sound from 1 s to 5 s of 6 s of picture, without its packets between 2.4 s and 3.1 s.
    rig.ffmpeg(&format!(
        "{PICTURE} {NOISE} -filter_complex [1:a]atrim=0:4,asetpts=PTS+1/TB[a] -map 0:v -map [a] -t 6 {VIDEO} -c:a aac \
         -b:a 192k full.ts"
    ));
    rig.ffmpeg("-copyts -i full.ts -map 0 -c copy -bsf:a noise=drop=between(pts\\,342000\\,405000) -muxdelay 0 -f mpegts in.ts");
    let input = rig.path("in.ts");
    for cut in [Cut::Whole, SECOND] {
        let summary = work(&rig, &input, &[rung("a", aac(48_000), Container::Ts)], cut);
        let out = match cut {
            Cut::Whole => rig.path("out/a.ts"),
            Cut::Segments(_) => {
                assert_eq!(summary.segments, 6);
                let files = segments(&rig, "a", "ts", 6);
                rig.write(
                    "joined.ts",
                    &files.iter().flat_map(|f| std::fs::read(f).unwrap()).collect::<Vec<_>>(),
                )
            }
        };
        let heard = hear(&out, 0);
        assert_in_sync(&rig.path("full.ts"), &out, &[2.7, 5.0], "around the hole");
        assert!((2.3..2.401).contains(&heard.start) && (6.3..6.5).contains(&heard.end()), "{heard:?}");
        assert!(loudness(&heard, 3.9, 4.4) < 1e-4 && loudness(&heard, 3.0, 3.7) > 0.01);
        assert_eq!(rig.times(&std::fs::read(&out).unwrap()), rig.times(&std::fs::read(&input).unwrap()));
    }
}

#[test]
fn a_change_of_rate_and_channels_in_the_middle_keeps_the_place() {
    let rig = Rig::new();
    let half = |name: &str, more: &str| {
        rig.ffmpeg(&format!("{PICTURE} {NOISE} -t 2 {VIDEO} {more} -c:a aac -b:a 192k {name}"))
    };
    let (one, two) = (half("one.ts", ""), half("two.ts", "-ar 44100 -ac 2 -output_ts_offset 2"));
    let input = rig.write("in.ts", &[one, two].concat());
    work(&rig, &input, &[rung("a", aac(48_000), Container::Ts)], Cut::Whole);
    let out = rig.path("out/a.ts");
    assert_in_sync(&rig.path("one.ts"), &out, &[1.5, 2.8], "before");
    assert_in_sync(&rig.path("two.ts"), &out, &[3.6, 4.8], "after");
}

#[test]
fn the_clock_may_turn_over() {
    let rig = Rig::new();
    // 2^33 ticks are 95443.7 s; 1.4 s come on top.
    let input = make(&rig, "in.ts", "-output_ts_offset 95440.7 -c:a aac -b:a 192k");
    let rungs = [rung("a", aac(48_000), Container::Ts)];
    work(&rig, &input, &rungs, Cut::Whole);
    let whole: Vec<String> = packets(&rig.path("out/a.ts"), 0).into_iter().map(|one| one.1).collect();
    work(&rig, &input, &rungs, SECOND);
    let files = segments(&rig, "a", "ts", 4);
    let parts: Vec<_> = files.iter().map(|file| packets(file, 0)).collect();
    let all: Vec<String> = parts.concat().into_iter().map(|one| one.1).collect();
    assert_eq!(all, whole);
    for (file, part) in files.iter().zip(&parts).skip(1) {
        let first = rig.times(&std::fs::read(file).unwrap())[0];
        let apart = (part[0].0 - first).rem_euclid(1 << 33);
        assert!((0..1900).contains(&apart), "{file:?}: {} {first}", part[0].0);
    }
    let first = |file: &Path| rig.times(&std::fs::read(file).unwrap())[0].rem_euclid(1 << 33);
    assert!(first(&files[0]) > first(&files[3]), "the clock turned over");
}

#[test]
fn an_mp4_begins_at_zero_in_both_containers() {
    let rig = Rig::new();
    for options in ["-c:a aac -b:a 192k", "-c:a ac3 -b:a 256k"] {
        let input = make(&rig, "in.mp4", options);
        let rungs = [rung("t", aac(48_000), Container::Ts), rung("m", aac(44_100), Container::Mp4)];
        work(&rig, &input, &rungs, Cut::Whole);
        let source = hear(&input, 0);
        for (file, first) in [("t.ts", 1920), ("m.mp4", 0)] {
            let path = rig.path(&format!("out/{file}"));
            let video = rig.times(&std::fs::read(&path).unwrap());
            let heard = hear(&path, 0);
            assert!((video[0] - first).abs() <= 200, "{file}: {}", video[0]);
            // The same place from the first picture on.
            let shift = video[0] as f64 / if file == "t.ts" { 90_000.0 } else { f64::INFINITY };
            let heard = Pcm { start: heard.start - shift, ..heard };
            assert!((-1..=1).contains(&lag(&source, &heard, 1.0)), "{options} {file}");
            assert!((-1..=1).contains(&lag(&source, &heard, 0.0)), "{options} {file}");
        }
    }
}

#[test]
fn a_stream_from_zero_has_no_sound_before_it() {
    let rig = Rig::new();
    let input = make(&rig, "in.ts", "-muxdelay 0 -muxpreload 0 -c:a mp2 -b:a 256k");
    let start = hear(&input, 0).start;
    assert!(start < 0.021, "{start}");
    for (one, name) in [(aac(48_000), "aac"), (opus(), "opus")] {
        work(&rig, &input, &[rung(name, one, Container::Ts)], Cut::Whole);
        let out = rig.path(&format!("out/{name}.ts"));
        assert!(packets(&out, 0)[0].0 >= 0);
        assert_in_sync(&input, &out, &[start + 0.1, 3.0], name);
    }
}

#[test]
fn a_hole_of_more_than_ten_seconds_stays_one() {
    let rig = Rig::new();
    let part = |name: &str, more: &str| {
        rig.ffmpeg(&format!("{PICTURE} {NOISE} -t 2 {VIDEO} -c:a aac -b:a 192k {more} {name}"))
    };
    let (one, two) = (part("one.ts", ""), part("two.ts", "-output_ts_offset 14"));
    let input = rig.write("in.ts", &[one, two].concat());
    for cut in [Cut::Whole, SECOND] {
        work(&rig, &input, &[rung("a", aac(48_000), Container::Ts)], cut);
        let times: Vec<i64> = match cut {
            Cut::Whole => packets(&rig.path("out/a.ts"), 0).iter().map(|packet| packet.0).collect(),
            Cut::Segments(_) => {
                let files = segments(&rig, "a", "ts", 4);
                files.iter().flat_map(|file| packets(file, 0)).map(|packet| packet.0).collect()
            }
        };
        let holes: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).filter(|d| *d > 2000).collect();
        // From the end of the first sound to a frame before the second.
        assert!(matches!(holes[..], [one] if (1_060_000..1_080_001).contains(&one)), "{holes:?}");
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }
    let (two, heard) = (hear(&rig.path("two.ts"), 0), hear(&segments(&rig, "a", "ts", 4)[3], 0));
    assert_eq!(lag(&two, &heard, 16.5), 0);
}

#[test]
fn a_clock_that_goes_back_loses_no_sound_and_no_picture() {
    let rig = Rig::new();
    let one = rig.ffmpeg(&format!("{PICTURE} {NOISE} -t 2 {VIDEO} -c:a aac -b:a 192k one.ts"));
    let input = rig.write("in.ts", &[one.clone(), one].concat());
    let count = packets(&rig.path("one.ts"), 0).len();
    let summary = work(&rig, &input, &[rung("a", aac(48_000), Container::Ts)], Cut::Whole);
    assert_eq!((summary.frames, summary.renditions[0].frames), (120, 120));
    // One frame to run each of the two encoders in.
    assert_eq!(packets(&rig.path("out/a.ts"), 0).len(), 2 * (count + 1));
}

#[test]
fn sound_that_begins_in_a_later_segment_is_in_its_segments() {
    let rig = Rig::new();
    let silent = rig.ffmpeg(&format!("{PICTURE} -t 2 {VIDEO} silent.ts"));
    let sound = rig
        .ffmpeg(&format!("{PICTURE} {NOISE} -t 2 {VIDEO} -c:a aac -b:a 192k -output_ts_offset 2 sound.ts"));
    let input = rig.write("in.ts", &[silent, sound].concat());
    let summary = work(&rig, &input, &[rung("a", aac(48_000), Container::Ts)], SECOND);
    assert_eq!(summary.segments, 4);
    let files = segments(&rig, "a", "ts", 4);
    let tracks: Vec<usize> =
        files.iter().map(|file| rig.audio(&std::fs::read(file).unwrap()).len()).collect();
    assert_eq!(tracks, [0, 0, 1, 1]);
    let joined: Vec<u8> = files[2..].iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    assert_in_sync(&rig.path("sound.ts"), &rig.write("joined.ts", &joined), &[3.5, 4.8], "sound");
}
