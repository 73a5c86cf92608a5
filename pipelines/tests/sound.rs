//! Sound encoded anew over a whole file, judged by ffmpeg.

use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_pipelines::transcode::{Cut, Summary, transcode};
use headwater_protocol::{Aac, Audio, BitsPerSecond, Container, Hertz, Ladder, Opus, Rendition};

mod ear;
mod rig;
use ear::{Pcm, hear, lag, packets, snr};
use rig::{Rig, rendition};

const PICTURE: &str = "-f lavfi -i testsrc2=s=320x180:r=30";
/// Noise: no two places are alike.
const NOISE: &str = "-f lavfi -i anoisesrc=c=pink:r=48000:a=0.5:seed=7";
const VIDEO: &str = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -bf 0 -g 30";

fn aac(rate: u32) -> Audio {
    Audio::Aac(Aac { bitrate: BitsPerSecond(160_000), rate: Hertz(rate), channels: 2 })
}

fn opus() -> Audio {
    Audio::Opus(Opus { bitrate: BitsPerSecond(160_000), channels: 2 })
}

fn rung(name: &str, audio: Audio, container: Container) -> Rendition {
    Rendition { audio, container, ..rendition(name, 160, 90) }
}

fn make(rig: &Rig, name: &str, options: &str) -> PathBuf {
    rig.ffmpeg(&format!("{PICTURE} {NOISE} -t 4 {VIDEO} {options} {name}"));
    rig.path(name)
}

fn work(rig: &Rig, input: &Path, rungs: &[Rendition], cut: Cut) -> Summary {
    transcode(input, &rig.path("out"), &Ladder::new(rungs.to_vec()).unwrap(), cut).unwrap()
}

const SECOND: Cut = Cut::Segments(Duration::from_secs(1));

/// A segment's sound, rendition `name`.
fn segments(rig: &Rig, name: &str, extension: &str, count: u64) -> Vec<PathBuf> {
    (0..count).map(|number| rig.path(&format!("out/{name}/{number}.{extension}"))).collect()
}

/// The sound at several places is where the source has it, and nothing but coding noise differs.
fn assert_true_to(source: &Pcm, heard: &Pcm, places: &[f64], what: &str) {
    for place in places {
        assert_eq!(lag(source, heard, *place), 0, "{what} at {place} s");
        let snr = snr(&source.at(*place, 24_000, 0), &heard.at(*place, 24_000, 0));
        assert!(snr > 8.0, "{what} at {place} s: {snr:.1} dB");
    }
}

#[test]
fn sound_is_heard_where_it_was_in_every_container_and_codec() {
    let rig = Rig::new();
    let input = make(&rig, "in.ts", "-c:a aac -b:a 192k");
    let rungs = [
        rung("aac-ts", aac(48_000), Container::Ts),
        rung("aac-mp4", aac(48_000), Container::Mp4),
        rung("low", aac(32_000), Container::Mp4),
        rung("opus-ts", opus(), Container::Ts),
        rung("opus-mp4", opus(), Container::Mp4),
        rung("none", Audio::None, Container::Ts),
        rung("copy", Audio::Copy, Container::Ts),
    ];
    let summary = work(&rig, &input, &rungs, Cut::Whole);
    assert_eq!((summary.errors, summary.frames), (0, 120));
    let source = hear(&input, 0);
    let file = |one: &Rendition| rig.path(&format!("out/{}.{}", one.name, one.container.extension()));
    for one in &rungs[..5] {
        let heard = hear(&file(one), 0);
        assert_eq!(heard.channels, 2, "{}", one.name);
        assert_true_to(&source, &heard, &[1.5, 3.0, 4.5], one.name.as_str());
        // What runs the encoder in comes before, what fills its last frame after: a frame each at most.
        assert!((0.0..=0.033).contains(&(source.start - heard.start)), "{}: {}", one.name, heard.start);
        assert!((0.0..=0.033).contains(&(heard.end() - source.end())), "{}: {}", one.name, heard.end());
        let read = std::fs::read(file(one)).unwrap();
        assert_eq!(rig.times(&read), rig.times(&std::fs::read(&input).unwrap()), "{}", one.name);
    }
    assert!(rig.audio(&std::fs::read(file(&rungs[5])).unwrap()).is_empty());
    let md5 = |path: &Path| rig.audio_md5(&std::fs::read(path).unwrap());
    assert_eq!(md5(&file(&rungs[6])), md5(&input));
}

#[test]
fn segments_put_together_are_the_one_encode_of_the_whole() {
    let rig = Rig::new();
    let input = make(&rig, "in.ts", "-c:a aac -b:a 192k");
    let rungs = |container| [rung("aac", aac(48_000), container), rung("opus", opus(), container)];
    work(&rig, &input, &rungs(Container::Ts), Cut::Whole);
    for name in ["aac", "opus"] {
        let whole = packets(&rig.path(&format!("out/{name}.ts")), 0);
        for (container, extension) in [(Container::Ts, "ts"), (Container::Mp4, "mp4")] {
            let summary = work(&rig, &input, &rungs(container), SECOND);
            assert_eq!(summary.segments, 4);
            let files = segments(&rig, name, extension, 4);
            let parts: Vec<_> = files.iter().map(|file| packets(file, 0)).collect();
            assert!(parts.iter().all(|part| (40..60).contains(&part.len())), "{name} {extension}");
            let all = parts.concat();
            let times = |list: &[(i64, String)]| list.iter().map(|one| one.0).collect::<Vec<_>>();
            if extension == "ts" || name == "opus" {
                // AAC has a header on each frame in one container and none in the other.
                assert!(
                    all.iter().map(|one| &one.1).eq(whole.iter().map(|one| &one.1)),
                    "{name} {extension}"
                );
            }
            let apart = times(&all).iter().zip(times(&whole)).map(|(a, b)| (a - b).abs()).max();
            assert!(all.len() == whole.len() && apart <= Some(1), "{name} {extension}: {apart:?}");
            // Each packet is in the segment with the pictures of its time.
            for (file, part) in files.iter().zip(&parts).skip(1) {
                let first = rig.times(&std::fs::read(file).unwrap())[0];
                assert!(
                    (0..1900).contains(&(part[0].0 - first)),
                    "{name} {extension}: {} {first}",
                    part[0].0
                );
            }
        }
    }
    // And as a player hears it.
    let files = segments(&rig, "aac", "ts", 4);
    work(&rig, &input, &rungs(Container::Ts), SECOND);
    let bytes: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    let joined = hear(&rig.write("joined.ts", &bytes), 0);
    let whole = hear(&rig.path("out/aac.ts"), 0);
    assert_eq!((joined.start, &joined.samples), (whole.start, &whole.samples));
}

#[test]
fn every_form_of_sound_is_read() {
    let rig = Rig::new();
    let six = "-af pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0";
    for (name, options) in [
        ("aac.ts", "-c:a aac -b:a 192k".to_owned()),
        ("aac.mp4", "-c:a aac -b:a 192k".to_owned()),
        ("slow.mp4", "-ar 44100 -c:a aac -b:a 192k".to_owned()),
        ("six.ts", format!("{six} -c:a aac -b:a 384k")),
        ("slow.ts", "-ar 44100 -c:a aac -b:a 192k".to_owned()),
        ("mp3.ts", "-c:a libmp3lame -b:a 192k".to_owned()),
        ("mp3.mp4", "-ar 44100 -c:a libmp3lame -b:a 192k".to_owned()),
        ("mp2.ts", "-c:a mp2 -b:a 256k".to_owned()),
        ("ac3.ts", "-c:a ac3 -b:a 256k".to_owned()),
        ("eac3.ts", "-c:a eac3 -b:a 256k".to_owned()),
        ("six.mp4", format!("{six} -c:a ac3 -b:a 448k")),
        ("opus.mp4", "-c:a libopus -b:a 192k".to_owned()),
        ("opus.ts", "-c:a libopus -b:a 192k".to_owned()),
    ] {
        let input = make(&rig, name, &options);
        let summary = work(&rig, &input, &[rung("a", aac(48_000), Container::Mp4)], Cut::Whole);
        assert_eq!((summary.errors, summary.frames), (0, 120), "{name}");
        let (source, heard) = (hear(&input, 0), hear(&rig.path("out/a.mp4"), 0));
        let begin = source.start.max(0.0);
        if name.starts_with("six") {
            // Mixed down, it has another loudness.
            assert_eq!(lag(&source, &heard, begin + 1.0), 0, "{name}");
        } else {
            assert_true_to(&source, &heard, &[begin + 0.5, begin + 3.0], name);
        }
    }
}

/// Sound of the source at `place` is at the same place in rendition `a`.
fn assert_in_sync(source: &Path, heard: &Path, places: &[f64], what: &str) {
    let (source, heard) = (hear(source, 0), hear(heard, 0));
    for place in places {
        assert_eq!(lag(&source, &heard, *place), 0, "{what} at {place} s");
    }
}

fn loudness(heard: &Pcm, from: f64, to: f64) -> f64 {
    let samples = heard.at(from, ((to - from) * 48_000.0) as usize, 0);
    (samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
}

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

#[test]
fn a_tone_has_no_click_anywhere() {
    let rig = Rig::new();
    for rate in [44_100, 48_000] {
        let input = rig.path("in.ts");
        rig.ffmpeg(&format!(
            "{PICTURE} -f lavfi -i sine=440:r={rate} -t 4 {VIDEO} -af volume=12dB -c:a aac -b:a 192k in.ts"
        ));
        work(
            &rig,
            &input,
            &[rung("aac", aac(48_000), Container::Ts), rung("opus", opus(), Container::Ts)],
            SECOND,
        );
        let source = hear(&input, 0);
        for name in ["aac", "opus"] {
            let files = segments(&rig, name, "ts", 4);
            let bytes: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
            let heard = hear(&rig.write("joined.ts", &bytes), 0);
            let mut place = source.start + 0.1;
            while place < source.end() - 0.1 {
                let snr = snr(&source.at(place, 480, 0), &heard.at(place, 480, 0));
                // Half a sample apart, as rounded stamps may be, is 31 dB.
                assert!(snr > 20.0, "{name} of {rate} Hz at {place:.3} s: {snr:.1} dB");
                place += 0.01;
            }
        }
    }
}

#[test]
fn broken_sound_is_counted_and_costs_no_picture() {
    let rig = Rig::new();
    let mut bytes = std::fs::read(make(&rig, "good.ts", "-c:a aac -b:a 192k")).unwrap();
    // Every third packet with sound has noise behind its first bytes.
    let mut count = 0;
    for packet in bytes.as_chunks_mut::<188>().0 {
        if (packet[1], packet[2]) == (0x01, 0x01) {
            count += 1;
            if count % 3 == 0 {
                packet[20..]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(at, byte)| *byte ^= (at * 151 + count * 7) as u8);
            }
        }
    }
    let input = rig.write("in.ts", &bytes);
    let summary = work(&rig, &input, &[rung("a", aac(48_000), Container::Ts)], Cut::Whole);
    assert!(summary.errors > 0);
    assert_eq!((summary.frames, summary.renditions[0].frames), (120, 120));
    let (good, heard) = (hear(&rig.path("good.ts"), 0), hear(&rig.path("out/a.ts"), 0));
    assert!((good.end() - heard.end()).abs() < 0.1 && (good.start - heard.start).abs() < 0.1);
}

#[test]
fn a_file_without_sound_has_none_and_each_track_is_encoded() {
    let rig = Rig::new();
    let silent = rig.clip("320x180", 1.0, VIDEO, "silent.mp4");
    assert!(!silent.is_empty());
    let rungs = [rung("a", opus(), Container::Mp4)];
    for cut in [Cut::Whole, SECOND] {
        work(&rig, &rig.path("silent.mp4"), &rungs, cut);
    }
    assert!(rig.audio(&std::fs::read(rig.path("out/a.mp4")).unwrap()).is_empty());
    rig.ffmpeg(&format!(
        "{PICTURE} {NOISE} -f lavfi -i sine=r=48000 -map 0 -map 1 -map 2 -t 2 {VIDEO} -c:a:0 mp2 -c:a:1 aac both.ts"
    ));
    work(&rig, &rig.path("both.ts"), &rungs, Cut::Whole);
    for track in 0..2 {
        let (source, heard) = (hear(&rig.path("both.ts"), track), hear(&rig.path("out/a.mp4"), track));
        assert!((heard.end() - source.end()).abs() < 0.05, "track {track}");
    }
    assert_in_sync(&rig.path("both.ts"), &rig.path("out/a.mp4"), &[1.6, 2.9], "first track");
}

#[test]
fn sound_is_not_encoded_for_a_segment_alone() {
    let rig = Rig::new();
    let input = std::fs::read(make(&rig, "in.ts", "-c:a aac")).unwrap();
    let fault = rig::run(&mut rig::engine(vec![rung("a", opus(), Container::Ts)]), &input)
        .map(|done| done.report)
        .expect_err("alone");
    assert_eq!(fault.code, headwater_protocol::Code::BadLadder);
    assert!(fault.text.contains("only where the whole stream is seen"), "{fault}");
    let done = rig::run(&mut rig::engine(vec![rung("a", Audio::None, Container::Ts)]), &input).unwrap();
    assert!(rig.audio(&done.outputs[0]).is_empty());
}
