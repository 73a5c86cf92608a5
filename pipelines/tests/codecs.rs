//! AV1, VP9, VP8 and Matroska: read, cut, transcoded; AV1 written.

mod media;
mod rig;

use std::path::Path;
use std::time::Duration;

use headwater_pipelines::es::AudioFormat;
use headwater_pipelines::split::{SplitSegment, split};
use headwater_protocol::{Code, Codec, Container, FrameRate, Gop, Millis};
use media::{Folder, WRAP, complaints, demux, demux_in, md5, pictures, probe};
use proptest::prelude::*;
use rig::{Rig, engine, rendition, run_as};

const H264: &str = "-c:v libx264 -preset veryfast -g 15 -c:a aac -b:a 96k";
const HEVC: &str = "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=15:open-gop=0 -c:a ac3";
const AV1: &str = "-c:v libaom-av1 -cpu-used 8 -usage realtime -row-mt 1 -g 15 -b:v 300k -c:a libopus";
const AV1_REORDERED: &str = "-t 1 -c:v libaom-av1 -cpu-used 8 -lag-in-frames 19 -g 15 -b:v 300k -c:a libopus";
/// Hidden alternate references, in superframes.
const VP9: &str = "-c:v libvpx-vp9 -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 12 -g 15 -b:v 300k -c:a libopus";
/// …and in packets of their own.
const VP8: &str =
    "-c:v libvpx -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 12 -g 30 -b:v 300k -c:a libopus";

fn newer(folder: &Folder) -> Vec<(Codec, std::path::PathBuf)> {
    vec![
        (Codec::Av1, folder.make("av1.mp4", AV1)),
        (Codec::Av1, folder.make("reordered.mp4", AV1_REORDERED)),
        (Codec::Av1, folder.make("pieces.mp4", &format!("{AV1} -movflags frag_keyframe+empty_moov"))),
        (Codec::Av1, folder.make("av1.mkv", AV1)),
        (Codec::Vp9, folder.make("vp9.mp4", VP9)),
        (Codec::Vp9, folder.make("vp9.webm", VP9)),
        (Codec::Vp8, folder.make("vp8.webm", VP8)),
    ]
}

#[test]
fn packets_times_and_keys_are_those_that_ffprobe_reads() {
    let folder = Folder::new();
    let mut files: Vec<_> = newer(&folder).into_iter().map(|(_, file)| file).collect();
    files.push(folder.make("h264.mkv", H264));
    files.push(folder.make("hevc.mkv", HEVC));
    files.push(folder.make("mp3.mkv", "-c:v libx264 -preset veryfast -bf 0 -c:a libmp3lame"));
    // No sizes, as a live sender writes it.
    files.push(folder.make("live.mkv", &format!("{H264} -live 1 -f matroska")));
    for file in files {
        let name = file.display();
        let read = demux(&file);
        assert_eq!(read.errors, 0, "{name}");
        for (stream, ours) in [
            ("v:0", read.video.iter().map(|f| (f.pts.0, f.key)).collect::<Vec<_>>()),
            ("a:0", read.audio.iter().map(|a| (a.pts.0, true)).collect()),
        ] {
            let theirs = probe(&file, stream);
            assert_eq!(ours.len(), theirs.len(), "{name} {stream}");
            for ((pts, key), theirs) in ours.iter().zip(&theirs) {
                let off = (pts - theirs.pts + WRAP / 2).rem_euclid(WRAP) - WRAP / 2;
                // Matroska counts milliseconds and ffprobe rounds the delay of Opus to them.
                let most = if stream == "a:0" { 90 } else { 1 };
                assert!(off.abs() <= most && *key == theirs.key, "{name} {stream}: {pts} {key} {theirs:?}");
            }
        }
        assert!(read.video.windows(2).all(|w| w[0].dts <= w[1].dts), "{name}");
        assert!(read.video.iter().all(|frame| frame.dts <= frame.pts), "{name}");
    }
}

#[test]
fn written_as_mp4_they_show_the_same_pictures() {
    let folder = Folder::new();
    for (codec, file) in newer(&folder) {
        let name = file.display();
        let read = demux(&file);
        assert_eq!(read.tracks[0].video.as_ref().unwrap().codec, codec);
        let copy = folder.write("copy.mp4", &read.mux(Container::Mp4));
        assert_eq!(pictures(&copy), pictures(&file), "{name}");
        if codec != Codec::Vp8 {
            assert_eq!(complaints(&copy), "", "{name}");
        }
        let again = demux(&copy);
        assert_eq!(again.packets(), read.packets(), "{name}");
        assert_eq!(again.video, read.video, "{name}");
    }
}

#[test]
fn matroska_written_as_a_transport_stream_shows_and_plays_the_same() {
    let folder = Folder::new();
    for (name, options) in [("h264.mkv", H264), ("hevc.mkv", HEVC)] {
        let file = folder.make(name, options);
        let copy = folder.write("copy.ts", &demux(&file).mux(Container::Ts));
        assert_eq!(pictures(&copy), pictures(&file), "{name}");
        let sound = "-map 0:a -c copy -f md5";
        if name.starts_with("hevc") {
            assert_eq!(md5(&copy, sound), md5(&file, sound));
        }
        assert_eq!(complaints(&copy), "", "{name}");
    }
}

#[test]
fn every_shown_frame_is_transcoded_and_no_hidden_one() {
    let folder = Folder::new();
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180), rendition("b", 160, 90)]);
    for (codec, file) in newer(&folder) {
        let name = file.display();
        let input = std::fs::read(&file).unwrap();
        let done =
            run_as(&mut engine, Container::Mp4, &input).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let shown = pictures(&file).len() as u64;
        let video = done.report.input.video.clone().unwrap();
        assert_eq!((video.codec, video.frames, video.decoded), (codec, shown, shown), "{name}");
        let times: Vec<Vec<i64>> = done.outputs.iter().map(|bytes| rig.times(bytes)).collect();
        assert_eq!(times[0].len() as u64, shown, "{name}");
        assert_eq!(times[0], times[1], "{name}");
        let ssim = rig.ssim(&done.outputs[0], &input, 320, 180);
        assert!(ssim > 0.9, "{name}: {ssim}");
    }
}

fn cut(file: &Path, target: u64) -> Vec<SplitSegment> {
    let mut segments = Vec::new();
    split(file, Duration::from_millis(target), &mut |segment| {
        segments.push(segment);
        Ok(())
    })
    .unwrap();
    segments
}

#[test]
fn files_are_cut_into_what_can_carry_them() {
    let folder = Folder::new();
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 160, 90)]);
    let mut files = newer(&folder);
    files.push((Codec::H264, folder.make("h264.mkv", H264)));
    files.push((Codec::Hevc, folder.make("hevc.mkv", HEVC)));
    for (codec, file) in files {
        let name = file.display();
        let segments = cut(&file, 500);
        let wanted = if matches!(codec, Codec::H264 | Codec::Hevc) { Container::Ts } else { Container::Mp4 };
        assert!(segments.len() >= 2, "{name}: {} segments", segments.len());
        let mut times = Vec::new();
        for segment in &segments {
            assert_eq!(segment.container, wanted, "{name}");
            let done = run_as(&mut engine, wanted, &segment.bytes).unwrap();
            assert_eq!(done.report.renditions[0].frames, segment.frames, "{name}");
            times.extend(rig.times(&done.outputs[0]));
        }
        assert_eq!(times.len(), pictures(&file).len(), "{name}");
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{name}: {times:?}");
    }
}

#[test]
fn av1_comes_out_as_asked() {
    let rig = Rig::new();
    let input = rig.clip("640x360", 1.0, "-c:v libx264 -preset ultrafast -bf 0 -g 30", "in.ts");
    let mut av1 = rendition("av1", 320, 180);
    (av1.codec, av1.container, av1.gop) = (Codec::Av1, Container::Mp4, Gop::Every(Millis(500)));
    let mut even = av1.clone();
    even.name = headwater_protocol::RenditionName::new("even").unwrap();
    even.fps = Some(FrameRate::new(15, 1).unwrap());
    let mut engine = engine(vec![av1, even]);
    for _ in 0..2 {
        let done = run_as(&mut engine, Container::Ts, &input).unwrap();
        let frames = rig.frames(&done.outputs[0]);
        assert_eq!(frames.iter().map(|frame| frame.pts).collect::<Vec<_>>(), rig.times(&input));
        let keys: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].key).collect();
        assert_eq!(keys, [0, 15]);
        assert_eq!((frames[0].width, frames[0].height), (320, 180));
        assert_eq!(rig.times(&done.outputs[1]).len(), 15);
        let path = rig.write("av1.mp4", &done.outputs[0]);
        assert_eq!(complaints(&path), "");
        let ssim = rig.ssim(&done.outputs[0], &input, 320, 180);
        assert!(ssim > 0.85, "{ssim}");
    }
}

#[test]
fn a_matroska_file_cut_off_gives_what_it_has() {
    let folder = Folder::new();
    let whole = std::fs::read(folder.make("in.mkv", H264)).unwrap();
    let count = demux_in(&whole, 65_536).unwrap().video.len();
    let read = demux_in(&whole[..whole.len() / 2], 65_536).unwrap();
    assert!((10..count).contains(&read.video.len()) && read.errors > 0, "{}", read.video.len());
    let fault = demux_in(&whole[..200], 65_536).unwrap_err();
    assert_eq!(fault.code, Code::NotMedia);
    assert!(fault.text.contains("cut off"), "{fault}");
}

#[test]
fn damage_in_a_matroska_file_costs_what_it_hits() {
    let folder = Folder::new();
    let mut bytes = std::fs::read(folder.make("in.mkv", &format!("{H264} -cluster_time_limit 200"))).unwrap();
    let whole = demux_in(&bytes, 65_536).unwrap().video.len();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 3000].fill(0);
    let read = demux_in(&bytes, 65_536).unwrap();
    assert!(read.video.len() + 20 > whole && read.video.len() < whole + 1, "{} of {whole}", read.video.len());
}

#[test]
fn a_codec_that_nothing_reads_is_named() {
    let folder = Folder::new();
    let bytes = std::fs::read(folder.make("mpeg4.mkv", "-c:v mpeg4 -an")).unwrap();
    let fault = demux_in(&bytes, 65_536).unwrap_err();
    assert_eq!(fault.code, Code::UnsupportedCodec);
    assert!(fault.text.contains("V_MPEG4/ISO/ASP"), "{fault}");
    let vorbis = demux(&folder.make("vorbis.webm", &format!("{VP8} -c:a libvorbis")));
    assert!(vorbis.tracks[0].audio.is_empty() && vorbis.audio.is_empty());
    let opus = demux(&folder.make("opus.webm", VP8));
    assert!(matches!(opus.tracks[0].audio[0], AudioFormat::Opus { channels: 1, .. }));
}

fn sample() -> Vec<u8> {
    use std::sync::OnceLock;
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE
        .get_or_init(|| std::fs::read(Folder::new().make("in.mkv", &format!("{VP9} -t 0.3"))).unwrap())
        .clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_damage_makes_the_matroska_reader_panic(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60),
    ) {
        let mut bytes = sample();
        for (at, value) in hits {
            let len = bytes.len();
            bytes[at.index(len)] = value;
        }
        let _ = demux_in(&bytes, 65_536);
    }

    #[test]
    fn no_bytes_make_the_matroska_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = demux_in(&[&[0x1a, 0x45, 0xdf, 0xa3][..], &bytes].concat(), 65_536);
    }
}
