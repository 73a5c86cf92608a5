//! Sound that is missing, comes, goes, or belongs to another program.

use headwater_protocol::{Code, Container};

use crate::PLAIN;
use crate::media::{Folder, demux_in, probe};
use crate::rig::{Rig, engine, rendition, run, run_as};

fn clip(rig: &Rig, sound: &str, at: f64) -> Vec<u8> {
    rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=440 -t 0.5 -pix_fmt yuv420p {PLAIN} {sound} \
         -muxdelay 0 -output_ts_offset {at} part.ts"
    ))
}

#[test]
fn sound_may_come_and_go_from_one_segment_to_the_next() {
    let rig = Rig::new();
    let mut mp4 = rendition("b", 160, 90);
    mp4.container = Container::Mp4;
    let mut engine = engine(vec![rendition("a", 320, 180), mp4]);
    let kinds = ["-c:a aac", "-an", "-c:a ac3", "-c:a aac -map 0 -map 1 -map 1", "-an"];
    for (at, sound) in kinds.into_iter().enumerate() {
        let input = clip(&rig, sound, 0.5 * at as f64);
        let wanted = rig.audio(&input);
        let done = run(&mut engine, &input).unwrap();
        assert_eq!(done.report.input.audio_streams as usize, wanted.len());
        for bytes in &done.outputs {
            let heard: Vec<u64> = rig.audio(bytes).iter().map(|track| track.packets).collect();
            assert_eq!(heard, wanted.iter().map(|track| track.packets).collect::<Vec<_>>(), "{sound}");
            assert_eq!(rig.times(bytes), rig.times(&input), "{sound}");
        }
        assert_eq!(done.report.warm, at > 0, "the pipeline has nothing to do with sound");
    }
}

#[test]
fn sound_that_comes_or_goes_in_the_middle_is_carried_over_to_the_packet() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    let kinds =
        [["-c:a mp2", "-an"], ["-an", "-c:a mp2"], ["-c:a ac3", "-c:a mp2"], ["-c:a mp2", "-c:a mp2"]];
    for [first, second] in kinds {
        let input = [clip(&rig, first, 1.0), clip(&rig, second, 1.5)].concat();
        let read = demux_in(&input, 65_536).unwrap();
        let done = run(&mut engine, &input).unwrap();
        let again = demux_in(&done.outputs[0], 65_536).unwrap();
        let sound = |read: &crate::media::Read| -> Vec<(i64, usize)> {
            read.audio.iter().map(|packet| (packet.pts.0, packet.data.len())).collect()
        };
        assert!(!read.audio.is_empty());
        let (mut ours, mut theirs) = (sound(&again), sound(&read));
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{first}, then {second}");
        assert_eq!(again.video.len(), 30, "{first}, then {second}");
    }
}

#[test]
fn a_segment_of_sound_alone_is_handed_on_as_it_is_and_the_next_one_works() {
    let rig = Rig::new();
    let mut mp4 = rendition("b", 160, 90);
    mp4.container = Container::Mp4;
    let mut engine = engine(vec![rendition("a", 320, 180), mp4]);
    let good = clip(&rig, "-c:a aac", 0.0);
    for (name, container) in [("radio.ts", Container::Ts), ("radio.mp4", Container::Mp4)] {
        let radio = rig.ffmpeg(&format!("-f lavfi -i sine=440 -t 0.5 -c:a aac {name}"));
        let done = run_as(&mut engine, container, &radio).unwrap();
        assert_eq!((done.report.input.video, done.report.input.audio_streams), (None, 1), "{name}");
        for (bytes, report) in done.outputs.iter().zip(&done.report.renditions) {
            assert!(report.copied && *bytes == radio, "{name}");
            assert_eq!((report.container, report.bytes), (container, radio.len() as u64), "{name}");
        }
        assert_eq!(run(&mut engine, &good).unwrap().report.renditions[0].frames, 15, "after {name}");
    }
}

#[test]
fn a_segment_with_neither_video_nor_sound_that_could_be_handed_on_is_refused() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    let radio = rig.ffmpeg("-f lavfi -i sine=440 -t 0.5 -c:a aac radio.ts");
    // Its tables promise sound that does not come.
    let pid = |packet: &[u8]| (packet[1] & 0x1f, packet[2]);
    let silent: Vec<u8> =
        radio.chunks(188).filter(|packet| pid(packet) != (1, 0)).flatten().copied().collect();
    let matroska = rig.ffmpeg("-f lavfi -i sine=440 -t 0.5 -c:a aac radio.mkv");
    for (input, says) in [(silent, "no sound"), (matroska, "Matroska cannot")] {
        let fault = run(&mut engine, &input).map(|done| done.report).unwrap_err();
        assert_eq!(fault.code, Code::NoVideo);
        assert!(fault.text.contains(says), "{fault}");
    }
}

#[test]
fn video_that_goes_after_a_few_frames_is_encoded_as_far_as_it_goes() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    let few = rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=440 -t 0.1 -pix_fmt yuv420p {PLAIN} -c:a mp2 few.ts"
    ));
    let radio = rig.ffmpeg("-f lavfi -i sine=440 -t 0.5 -c:a mp2 -output_ts_offset 0.1 radio.ts");
    let done = run(&mut engine, &[few, radio].concat()).unwrap();
    let video = done.report.input.video.unwrap();
    assert_eq!((video.frames, video.decoded), (3, 3));
    assert_eq!(rig.times(&done.outputs[0]).len(), 3);
}

#[test]
fn of_several_programs_the_first_one_with_video_is_taken_whole() {
    let folder = Folder::new();
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    let sources = "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=440 -f lavfi -i color=red:s=160x120:r=25 -t 0.5";
    let coded = format!("-pix_fmt yuv420p {PLAIN} -c:a mp2");
    for programs in [
        "-map 0 -map 1 -map 2 -program title=a:st=0:st=1 -program title=b:st=2",
        "-map 1 -map 0 -map 1 -program title=radio:st=0 -program title=tv:st=1:st=2",
    ] {
        let input = rig.ffmpeg(&format!("{sources} {programs} {coded} in.ts"));
        let done = run(&mut engine, &input).unwrap();
        let video = done.report.input.video.unwrap();
        assert_eq!((video.width.0, video.frames, video.decoded), (320, 15, 15), "{programs}");
        let out = folder.write("out.ts", &done.outputs[0]);
        assert_eq!((probe(&out, "v:0").len(), rig.audio(&done.outputs[0]).len()), (15, 1), "{programs}");
    }
}
