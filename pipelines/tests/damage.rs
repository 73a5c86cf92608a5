//! What of an input is damaged or lost is counted, and moves nothing else.

use headwater_pipelines::engine::Engine;
use headwater_protocol::Container;

mod rig;
use rig::{Rig, engine, rendition, run};

const X264: &str = "-c:v libx264 -preset ultrafast -g 60";

fn two() -> Engine {
    engine(vec![rendition("a", 320, 180), rendition("b", 160, 90)])
}

/// Turns bits of the PTS, as of the 33, in the video's PES of that number.
fn damage(input: &mut [u8], number: usize, bits: u64) {
    let starts =
        input.as_chunks_mut::<188>().0.iter_mut().filter(|packet| (packet[1] & 0x5f, packet[2]) == (0x41, 0));
    let packet = starts.into_iter().nth(number).unwrap();
    let adaptation = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
    let stamp = &mut packet[4 + adaptation + 9..][..5];
    stamp[0] ^= (bits >> 30 << 1) as u8;
    stamp[1] ^= (bits >> 22) as u8;
}

#[test]
fn one_damaged_timestamp_costs_no_frame_and_moves_no_other() {
    let rig = Rig::new();
    let input = rig.ffmpeg(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=r=48000 -t 2 -pix_fmt yuv420p -c:v libx264 -preset \
         veryfast -bf 3 -g 60 -c:a aac in.ts",
    );
    let mut engine = two();
    let whole = run(&mut engine, &input).unwrap();
    let times = rig.times(&whole.outputs[0]);
    // Thirteen hours, and 46 seconds.
    for bits in [1 << 32, 1 << 22] {
        for number in [20, 21, 22, 23] {
            let mut damaged = input.clone();
            damage(&mut damaged, number, bits);
            let done = run(&mut engine, &damaged).unwrap();
            assert_eq!(done.report.input.errors, 1, "frame {number}, {bits:#x}");
            assert_eq!(rig.times(&done.outputs[0]), times, "frame {number}, {bits:#x}");
            assert_eq!(rig.audio(&done.outputs[0]), rig.audio(&whole.outputs[0]));
        }
    }
}

#[test]
fn a_clock_reference_that_is_wrong_throughout_moves_nothing() {
    let rig = Rig::new();
    let mut input = rig.clip("320x180", 1.0, "-c:v libx264 -preset veryfast -bf 3 -g 60", "in.ts");
    let times = rig.times(&run(&mut two(), &input).unwrap().outputs[0]);
    for packet in input.as_chunks_mut::<188>().0 {
        if packet[3] & 0x20 != 0 && packet[4] >= 7 && packet[5] & 0x10 != 0 {
            packet[6] ^= 0x40;
        }
    }
    let done = run(&mut two(), &input).unwrap();
    assert_eq!((rig.times(&done.outputs[0]), done.report.input.errors), (times, 0));
}

#[test]
fn sound_that_begins_too_late_for_an_mp4_is_counted_as_lost() {
    let rig = Rig::new();
    // More frames than wait before the encoders and in them: the header is written by then.
    let silent = rig.clip("160x90", 8.0, &format!("{X264} -bf 0"), "silent.ts");
    let heard = rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=160x90:r=30 -f lavfi -i sine=r=48000 -t 1 -pix_fmt yuv420p {X264} -bf 0 -c:a aac \
         -output_ts_offset 8 heard.ts"
    ));
    let input = [silent, heard].concat();
    let errors = |container| {
        let mut one = rendition("a", 160, 90);
        one.container = container;
        let done = run(&mut engine(vec![one]), &input).unwrap();
        (rig.audio(&done.outputs[0]).len(), done.report.input.errors)
    };
    let (ts, mp4) = (errors(Container::Ts), errors(Container::Mp4));
    assert_eq!((ts.0, mp4.0), (1, 0));
    assert!(mp4.1 > ts.1, "{} errors where sound is lost, {} where it is not", mp4.1, ts.1);
}
