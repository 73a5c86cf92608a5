//! Transport streams: read as ffprobe reads them, written so that ffprobe finds nothing to say.

mod media;

use headwater_pipelines::es::{AudioPacket, Ticks};
use headwater_protocol::{Code, Container};
use media::{Folder, Read, complaints, demux, demux_in, md5, pictures, probe, run};
use proptest::prelude::*;

const H264: &str = "-c:v libx264 -preset veryfast -g 30 -c:a aac -b:a 96k";
const NO_B: &str = "-c:v libx264 -preset veryfast -bf 0 -g 30 -c:a aac";
const OPEN: &str = "-c:v libx264 -preset veryfast -g 20 -x264-params open-gop=1:bframes=3 -c:a mp2";
const SLICES: &str = "-c:v libx264 -preset veryfast -x264-params slices=4:aud=1 -c:a ac3";
const HEVC: &str = "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=20 -c:a eac3";

fn inputs(folder: &Folder) -> Vec<std::path::PathBuf> {
    vec![
        folder.make("b.ts", H264),
        folder.make("no-b.ts", NO_B),
        folder.make("open.ts", OPEN),
        folder.make("slices.ts", SLICES),
        folder.make("hevc.ts", HEVC),
        folder.make("wrap.ts", &format!("{H264} -muxdelay 0 -output_ts_offset 95442.6")),
        folder.make("m2ts.ts", &format!("{H264} -c:a ac3 -mpegts_m2ts_mode 1")),
        folder.make("silent.ts", &format!("{H264} -an")),
    ]
}

#[test]
fn frames_and_their_times_are_those_that_ffprobe_reads() {
    let folder = Folder::new();
    for file in inputs(&folder) {
        let read = demux(&file);
        assert_eq!(read.packets(), probe(&file, "v:0"), "{}", file.display());
        assert_eq!(read.errors, 0, "{}", file.display());
    }
}

#[test]
fn pieces_of_any_size_give_the_same_items() {
    let folder = Folder::new();
    let bytes = std::fs::read(folder.make("in.ts", H264)).unwrap();
    let whole = demux_in(&bytes, bytes.len()).unwrap();
    for piece in [1, 187, 188, 1000, 4097] {
        assert_eq!(demux_in(&bytes, piece).unwrap().items.len(), whole.items.len(), "pieces of {piece}");
        assert_eq!(demux_in(&bytes, piece).unwrap().video, whole.video, "pieces of {piece}");
    }
}

#[test]
fn a_stream_written_again_has_the_same_packets_pictures_and_audio() {
    let folder = Folder::new();
    for file in inputs(&folder) {
        let copy = folder.write("copy.ts", &demux(&file).mux(Container::Ts));
        let name = file.display();
        assert_eq!(complaints(&copy), "", "{name}");
        assert_eq!(probe(&copy, "v:0"), probe(&file, "v:0"), "{name}");
        assert_eq!(pictures(&copy), pictures(&file), "{name}");
        if !name.to_string().contains("silent") {
            assert_eq!(probe(&copy, "a:0"), probe(&file, "a:0"), "{name}");
            let args = "-map 0:a -c copy -f md5";
            assert_eq!(md5(&copy, args), md5(&file, args), "{name}");
        }
    }
}

#[test]
fn the_service_is_called_headwater() {
    let folder = Folder::new();
    let copy = folder.write("copy.ts", &demux(&folder.make("in.ts", H264)).mux(Container::Ts));
    let tags =
        run("ffprobe", "-v error -show_entries program_tags=service_name,service_provider -of csv", &[&copy]);
    assert_eq!(tags.matches("Headwater").count(), 2, "{tags}");
}

/// A generator that is the same everywhere.
fn lost(seed: u64, percent: u64) -> impl FnMut() -> bool {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 100 < percent
    }
}

#[test]
fn three_percent_of_lost_packets_cost_no_more_than_in_ffmpeg() {
    let folder = Folder::new();
    for (name, options) in [("h264.ts", H264), ("slices.ts", SLICES), ("hevc.ts", HEVC)] {
        let bytes = std::fs::read(folder.make(name, options)).unwrap();
        for seed in 1..6 {
            let mut lost = lost(seed, 3);
            let left: Vec<u8> = bytes.chunks(188).filter(|_| !lost()).flatten().copied().collect();
            let damaged = folder.write("damaged.ts", &left);
            let read = demux_in(&left, 4096).unwrap();
            assert!(read.errors > 0);
            let copy = folder.write("copy.ts", &read.mux(Container::Ts));
            let (ours, theirs) = (pictures(&copy).len(), pictures(&damaged).len());
            assert!(ours >= theirs, "{name}, seed {seed}: {ours} pictures, ffmpeg has {theirs}");
        }
    }
}

#[test]
fn a_stream_cut_anywhere_gives_what_it_has() {
    let folder = Folder::new();
    let bytes = std::fs::read(folder.make("in.ts", H264)).unwrap();
    let whole = demux_in(&bytes, 65_536).unwrap().video.len();
    for percent in [3, 10, 50, 99] {
        let cut = &bytes[..bytes.len() * percent / 100];
        let read = demux_in(cut, 65_536).unwrap();
        assert!(read.video.len() <= whole && !read.tracks.is_empty(), "{percent} %");
    }
}

#[test]
fn bytes_between_packets_cost_only_what_they_hit() {
    let folder = Folder::new();
    let bytes = std::fs::read(folder.make("in.ts", H264)).unwrap();
    let whole = demux_in(&bytes, 65_536).unwrap().video.len();
    let middle = bytes.len() / 2;
    let torn =
        [b"GGGG not a packet".as_slice(), &bytes[..middle], &[0x47; 333], &bytes[middle + 50..]].concat();
    let read = demux_in(&torn, 4096).unwrap();
    assert!(read.video.len() + 2 >= whole && read.errors > 0, "{} of {whole}", read.video.len());
}

#[test]
fn a_late_program_table_loses_nothing_before_it() {
    let folder = Folder::new();
    let bytes = std::fs::read(folder.make("in.ts", H264)).unwrap();
    let whole = demux_in(&bytes, 65_536).unwrap().video;
    let tables = |p: &&[u8]| matches!((p[1] & 0x1f, p[2]), (0, 0 | 0x11) | (0x10, 0));
    let late: Vec<&[u8]> = bytes.chunks(188).collect();
    let (first, rest): (Vec<&[u8]>, Vec<&[u8]>) = late[..20].iter().partition(|p| tables(p));
    let late = [rest, first, late[20..].to_vec()].concat().concat();
    assert_eq!(demux_in(&late, 4096).unwrap().video, whole);
}

#[test]
fn video_without_frames_and_programs_without_video_are_told_apart() {
    let folder = Folder::new();
    let bytes = std::fs::read(folder.make("in.ts", H264)).unwrap();
    let empty: Vec<u8> =
        bytes.chunks(188).filter(|p| (p[1] & 0x1f, p[2]) != (1, 0)).flatten().copied().collect();
    let read = demux_in(&empty, 4096).unwrap();
    assert!(read.tracks[0].video.is_some() && read.video.is_empty() && !read.audio.is_empty());
    let radio = demux(&folder.make("radio.ts", "-map 1:a -c:a aac"));
    assert!(radio.tracks[0].video.is_none() && !radio.audio.is_empty());
}

#[test]
fn what_is_no_video_gets_a_sentence() {
    let folder = Folder::new();
    let mpeg2 = std::fs::read(folder.make("mpeg2.ts", "-c:v mpeg2video -an")).unwrap();
    let flv = std::fs::read(folder.make("in.flv", &format!("{H264} -ar 44100"))).unwrap();
    let cases: [(&[u8], Code, &str); 6] = [
        (b"", Code::EmptyInput, "empty"),
        (b"hello, this is text\n", Code::NotMedia, "plain text"),
        (&[0x80; 5000], Code::NotMedia, "neither"),
        (&flv, Code::NotMedia, "Flash"),
        (&mpeg2, Code::UnsupportedCodec, "MPEG-1/2"),
        (&mpeg2[188 * 8..188 * 12], Code::NotMedia, "no program table"),
    ];
    for (bytes, code, word) in cases {
        let fault = demux_in(bytes, 1000).unwrap_err();
        assert_eq!(fault.code, code, "{fault}");
        assert!(fault.text.contains(word), "{fault}");
    }
}

#[test]
fn several_pictures_in_one_pes_are_several_frames() {
    // Without alignment ffmpeg's muxer is given three access units as one packet by way of a raw stream.
    let folder = Folder::new();
    let file = folder.make("in.ts", NO_B);
    let mut read = demux(&file);
    let before = read.packets();
    let merged: Vec<_> = read
        .video
        .chunks(3)
        .map(|three| {
            let mut first = three[0].clone();
            first.data = three.iter().flat_map(|f| f.data.to_vec()).collect();
            first
        })
        .collect();
    read.items.retain(|item| !matches!(item, headwater_pipelines::es::Item::Video(_)));
    read.items.extend(merged.into_iter().map(headwater_pipelines::es::Item::Video));
    let again = demux_in(&read.mux(Container::Ts), 4096).unwrap();
    assert_eq!(again.packets(), before);
}

#[test]
fn sound_without_a_time_of_its_own_goes_on_where_the_last_ended() {
    let folder = Folder::new();
    let mut bytes = std::fs::read(folder.make("in.ts", H264)).unwrap();
    let before = demux_in(&bytes, 4096).unwrap();
    let starts = bytes.as_chunks_mut::<188>().0.iter_mut().filter(|p| (p[1] & 0x5f, p[2]) == (0x41, 1));
    for packet in starts.skip(1).step_by(2) {
        let adaptation = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
        let pes = &mut packet[4 + adaptation..];
        assert_ne!((pes[4], pes[5]), (0, 0), "its length is known");
        pes[7] = 0;
        pes[9..14].fill(0xff);
    }
    let after = demux_in(&bytes, 4096).unwrap();
    let times = |packets: &[AudioPacket]| packets.iter().map(|packet| packet.pts).collect::<Vec<_>>();
    let wanted: Vec<Ticks> = times(&before.audio).into_iter().step_by(2).collect();
    assert!(wanted.len() > 3);
    assert_eq!(times(&after.audio), wanted);
    let sound = |read: &Read| read.audio.iter().flat_map(|packet| packet.data.to_vec()).collect::<Vec<u8>>();
    assert_eq!((sound(&after), after.errors), (sound(&before), 0));
}

fn sample() -> Vec<u8> {
    use std::sync::OnceLock;
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE
        .get_or_init(|| std::fs::read(Folder::new().make("in.ts", &format!("{SLICES} -t 0.5"))).unwrap())
        .clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000), piece in 1usize..500) {
        let _ = demux_in(&bytes, piece);
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut bytes = sample();
        for (at, value) in hits {
            let len = bytes.len();
            bytes[at.index(len)] = value;
        }
        for cut in cuts {
            let at = cut.index(bytes.len());
            bytes.remove(at);
        }
        let _ = demux_in(&bytes, 999);
    }
}
