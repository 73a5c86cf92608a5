//! The standard ladder: what most callers ask for, and what boards are compared with.

use headwater_protocol::{
    Audio, BitsPerSecond, Codec, Container, FrameRate, Gop, Ladder, Millis, Pixels, Profile, Rate, Rendition,
    RenditionName,
};

use crate::board::Board;
use crate::fit::Size;
use crate::machine::Machine;
use crate::plan::{self, Input, Picture, Trust};

/// Name, sides, bits a second.
const STANDARD: [(&str, u32, u32, u32); 4] = [
    ("720p", 1280, 720, 3_000_000),
    ("480p", 854, 480, 1_600_000),
    ("360p", 640, 360, 800_000),
    ("240p", 426, 240, 250_000),
];

/// 720p, 480p, 360p and 240p in H.264.
pub fn ladder() -> Ladder {
    let one = |(name, width, height, bits): (&str, u32, u32, u32)| Rendition {
        name: RenditionName::new(name).expect("a short name of letters and digits is a name"),
        codec: Codec::H264,
        width: Pixels(width),
        height: Pixels(height),
        fps: None,
        rate: Rate::Bitrate(BitsPerSecond(bits)),
        gop: Gop::Every(Millis(2000)),
        profile: Profile::Auto,
        container: Container::Ts,
        audio: Audio::Copy,
        tiles: None,
    };
    Ladder::new(STANDARD.into_iter().map(one).collect()).expect("four renditions of even sizes")
}

/// 1080p30 as this board decodes it.
pub fn picture(board: &Board, machine: &Machine) -> Picture {
    let decode = plan::decoder(board, machine, Input::any(Codec::H264, Trust::Lossy)).ok();
    let element = decode.as_ref().and_then(|plan| plan.elements.last());
    let entry = element.and_then(|element| {
        board.decoders.iter().find(|one| one.codec == Codec::H264 && one.factory.contains(&element.factory))
    });
    let format = entry.and_then(|one| one.out.formats.first()).map_or("I420", String::as_str).to_owned();
    Picture { format, ..Picture::plain(Size::new(1920, 1080), FrameRate::new(30, 1).ok()) }
}
