//! Sound that is missing, comes, goes, or belongs to another program.

use headwater_protocol::{Code, Container};

use crate::PLAIN;
use crate::media::{Folder, demux_in, probe};
use crate::rig::{Rig, engine, rendition, run};

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
fn a_segment_of_sound_alone_is_answered_and_the_next_one_works() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    let radio = rig.ffmpeg("-f lavfi -i sine=440 -t 0.5 -c:a aac radio.ts");
    let good = clip(&rig, "-c:a aac", 0.0);
    for _ in 0..2 {
        assert_eq!(run(&mut engine, &radio).map(|done| done.report).unwrap_err().code, Code::NoVideo);
        assert_eq!(run(&mut engine, &good).unwrap().report.renditions[0].frames, 15);
    }
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
