//! Fragmented MP4 as written: read by ffprobe, decoded by ffmpeg, and back again.

mod media;

use headwater_protocol::Container;
use media::{Folder, Packet, WRAP, complaints, demux, demux_in, pictures, probe, run};

const H264: &str = "-c:v libx264 -preset veryfast -g 30 -c:a aac -b:a 96k";

fn inputs(folder: &Folder) -> Vec<std::path::PathBuf> {
    vec![
        folder.make("b.ts", H264),
        folder.make("no-b.ts", "-c:v libx264 -preset veryfast -bf 0 -g 30 -c:a mp2"),
        folder.make("mp3.ts", "-c:v libx264 -preset veryfast -c:a libmp3lame"),
        folder.make("ac3.ts", "-c:v libx264 -preset veryfast -c:a ac3"),
        folder.make(
            "hevc.ts",
            "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=20 -c:a eac3",
        ),
        folder.make("opus.mp4", "-c:v libx264 -preset veryfast -c:a libopus"),
        folder.make("silent.ts", &format!("{H264} -an")),
        folder.make("late.ts", &format!("{H264} -output_ts_offset 7000")),
    ]
}

fn near(ours: &[Packet], theirs: &[Packet], ticks: i64, name: &str) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        let close = |a: i64, b: i64| ((a - b + WRAP / 2).rem_euclid(WRAP) - WRAP / 2).abs() <= ticks;
        assert!(close(ours.pts, theirs.pts) && close(ours.dts, theirs.dts), "{name}: {ours:?} {theirs:?}");
        assert_eq!(ours.key, theirs.key, "{name}");
    }
}

#[test]
fn ffprobe_reads_the_packets_that_went_in() {
    let folder = Folder::new();
    for file in inputs(&folder) {
        let name = file.display().to_string();
        let read = demux(&file);
        let copy = folder.write("copy.mp4", &read.mux(Container::Mp4));
        assert_eq!(complaints(&copy), "", "{name}");
        near(&probe(&copy, "v:0"), &read.packets(), 0, &name);
        assert_eq!(pictures(&copy), pictures(&file), "{name}");
        if !read.audio.is_empty() {
            // MP4's clock is that of the samples: half a sample or a tick off.
            near(&probe(&copy, "a:0"), &probe(&file, "a:0"), 2, &name);
            let sound = "-map 0:a -f md5";
            assert_eq!(media::md5(&copy, sound).len(), media::md5(&file, sound).len(), "{name}");
        }
    }
}

#[test]
fn a_file_of_one_track_alone_has_the_brand_of_cmaf() {
    let folder = Folder::new();
    for (more, is_cmaf) in [("", false), (" -an", true)] {
        let bytes = demux(&folder.make("in.ts", &format!("{H264}{more}"))).mux(Container::Mp4);
        let size = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        let mut brands = bytes[16..size].chunks(4);
        assert_eq!(brands.any(|brand| brand == b"cmfc"), is_cmaf, "{more}");
    }
}

#[test]
fn back_in_a_transport_stream_nothing_has_changed() {
    let folder = Folder::new();
    for file in inputs(&folder) {
        let name = file.display().to_string();
        let read = demux(&file);
        let again = demux_in(&read.mux(Container::Mp4), 65_536).unwrap();
        assert_eq!(again.packets(), read.packets(), "{name}");
        let copy = folder.write("again.ts", &again.mux(Container::Ts));
        assert_eq!(pictures(&copy), pictures(&file), "{name}");
        if name.ends_with("ac3.ts") || name.ends_with("mp3.ts") || name.ends_with("/b.ts") {
            let bytes = "-map 0:a -c copy -f md5";
            assert_eq!(media::md5(&copy, bytes), media::md5(&file, bytes), "{name}");
        }
    }
}

#[test]
fn there_is_a_fragment_per_keyframe() {
    let folder = Folder::new();
    let out = demux(&folder.make("in.ts", H264)).mux(Container::Mp4);
    assert_eq!(out.windows(4).filter(|w| w == b"moof").count(), 2);
    let copy = folder.write("copy.mp4", &out);
    let entry =
        "-v error -select_streams v -show_entries stream=codec_tag_string,width,height,time_base -of csv=p=0";
    assert_eq!(run("ffprobe", entry, &[&copy]).trim(), "avc1,320,180,1/90000");
}

#[test]
fn what_begins_before_zero_still_begins_there() {
    // The encoder's first audio frame and the first frames' decoding lie before 0.
    let folder = Folder::new();
    let file = folder.make("in.mp4", H264);
    let read = demux(&file);
    assert!(read.audio[0].pts.0 < 0 && read.video[0].dts.0 < 0);
    let copy = folder.write("copy.mp4", &read.mux(Container::Mp4));
    assert_eq!(complaints(&copy), "");
    assert_eq!(pictures(&copy), pictures(&file));
    let again = demux(&copy);
    assert_eq!(again.packets(), read.packets());
    assert_eq!(again.audio[0].pts, read.audio[0].pts);
    near(&probe(&copy, "a:0"), &probe(&file, "a:0"), 2, "audio");
}
