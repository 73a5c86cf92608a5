//! Sound encoded anew over a whole file, judged by ffmpeg.

use std::path::Path;

use headwater_pipelines::transcode::Cut;
use headwater_protocol::{Audio, Container, Rendition};

mod ear;
mod rig;
use ear::{
    NOISE, PICTURE, SECOND, VIDEO, aac, assert_in_sync, assert_true_to, hear, lag, make, opus, packets, rung,
    segments, snr, work,
};
use rig::Rig;

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
