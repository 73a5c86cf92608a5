//! What a segment job must give in each situation, one test a situation.
//!
//! Elsewhere: usual, odd and cut-off input in `engine.rs`; containers in `ts.rs`, `mp4.rs`, `fmp4.rs` and `codecs.rs`;
//! cuts in `split.rs`.

#[path = "../media/mod.rs"]
mod media;
#[path = "../rig/mod.rs"]
mod rig;

mod bad;
mod clock;
mod gaps;
mod shape;
mod sound;

/// The standard clip of a test picture, without reordered frames.
const PLAIN: &str = "-c:v libx264 -preset ultrafast -bf 0 -g 60";
/// …and with them.
const REORDERED: &str = "-c:v libx264 -preset veryfast -bf 3 -b_strategy 0 -g 60";

/// Changes each PES header of the video (PID 0x100) in a transport stream of ffmpeg's.
fn each_video_pes(stream: &mut [u8], mut change: impl FnMut(usize, &mut [u8])) {
    let mut number = 0;
    for packet in stream.as_chunks_mut::<188>().0 {
        let adaptation = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
        if (packet[1] & 0x5f, packet[2]) == (0x41, 0) {
            change(number, &mut packet[4 + adaptation..]);
            number += 1;
        }
    }
}
