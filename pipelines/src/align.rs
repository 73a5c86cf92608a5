//! Whether an encoder put its keyframes where they were asked for, told by the frames themselves and not by its flags.
//!
//! Players change between renditions at keyframes, so one that has its own elsewhere is worth nothing: it is never
//! handed on.

use headwater_protocol::{Code, Codec, Fault, FrameRate, Gop, Rendition, RenditionName};

use crate::coded;
use crate::fit::frames_in;

/// A frame that is a keyframe and should not be one, or the other way round.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misaligned {
    #[error("rendition {name} does not start with a keyframe")]
    Start { name: RenditionName },
    #[error("rendition {name} has no keyframe at frame {frame}, where one was asked for each {every} frames")]
    Missing { name: RenditionName, frame: u64, every: u32 },
    #[error(
        "rendition {name} has a keyframe at frame {frame}, where none was asked for: each {every} frames"
    )]
    Unasked { name: RenditionName, frame: u64, every: u32 },
}

impl From<Misaligned> for Fault {
    fn from(misaligned: Misaligned) -> Fault {
        Fault::new(Code::BadOutput, misaligned.to_string())
    }
}

/// Follows the coded frames of one rendition.
#[derive(Debug)]
pub(crate) struct Alignment {
    name: RenditionName,
    codec: Codec,
    /// Frames from one keyframe to the next. None: the first is all that is asked, as one more costs bits and
    /// no switch, for players change at segments then.
    every: Option<u32>,
    frame: u64,
}

impl Alignment {
    pub(crate) fn new(wanted: &Rendition, rate: Option<FrameRate>) -> Self {
        let every = match wanted.gop {
            Gop::Segment => None,
            Gop::Every(distance) => rate.map(|rate| frames_in(distance.0, rate)),
            Gop::Intra => Some(1),
        };
        Self { name: wanted.name.clone(), codec: wanted.codec, every, frame: 0 }
    }

    /// Takes the next frame; whether it is a keyframe from which decoding starts afresh.
    pub(crate) fn next(&mut self, data: &[u8]) -> Result<bool, Misaligned> {
        let key = coded::facts(self.codec, data).closed;
        let frame = self.frame;
        self.frame += 1;
        let name = || self.name.clone();
        match self.every {
            _ if frame == 0 && !key => Err(Misaligned::Start { name: name() }),
            Some(every) if frame.is_multiple_of(u64::from(every)) != key => Err(if key {
                Misaligned::Unasked { name: name(), frame, every }
            } else {
                Misaligned::Missing { name: name(), frame, every }
            }),
            Some(_) | None => Ok(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::{BitsPerSecond, Container, Millis, Pixels, Profile, Rate};

    use super::*;

    const IDR: &[u8] = &[0, 0, 0, 1, 0x65, 0x88, 0x80];
    const OTHER: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a, 0x80];
    /// An intra picture with a recovery point: an encoder's flag calls it a keyframe.
    const OPEN: &[u8] = &[0, 0, 1, 0x06, 6, 1, 0xc4, 0x80, 0, 0, 1, 0x41, 0x88, 0x80];

    fn run(gop: Gop, frames: &[&[u8]]) -> Result<Vec<bool>, Misaligned> {
        let wanted = Rendition {
            name: RenditionName::new("a").unwrap(),
            codec: Codec::H264,
            width: Pixels(640),
            height: Pixels(360),
            fps: None,
            rate: Rate::Bitrate(BitsPerSecond(1_000_000)),
            gop,
            profile: Profile::Auto,
            container: Container::Ts,
            audio: headwater_protocol::Audio::Copy,
            tiles: None,
        };
        let mut alignment = Alignment::new(&wanted, FrameRate::new(30, 1).ok());
        frames.iter().map(|frame| alignment.next(frame)).collect()
    }

    #[test]
    fn keyframes_must_be_where_they_were_asked_for() {
        let every = Gop::Every(Millis(67));
        assert_eq!(run(every, &[IDR, OTHER, IDR, OTHER]), Ok(vec![true, false, true, false]));
        assert!(matches!(run(every, &[IDR, OTHER, OTHER]), Err(Misaligned::Missing { frame: 2, .. })));
        assert!(matches!(run(every, &[IDR, IDR]), Err(Misaligned::Unasked { frame: 1, .. })));
        assert!(matches!(run(Gop::Intra, &[IDR, OTHER]), Err(Misaligned::Missing { frame: 1, .. })));
        assert_eq!(run(Gop::Segment, &[IDR, OTHER, IDR]), Ok(vec![true, false, true]));
    }

    #[test]
    fn what_only_calls_itself_a_keyframe_is_none() {
        assert!(matches!(run(Gop::Segment, &[OPEN]), Err(Misaligned::Start { .. })));
        assert!(matches!(run(Gop::Every(Millis(33)), &[IDR, OPEN]), Err(Misaligned::Missing { .. })));
        let fault = Fault::from(run(Gop::Segment, &[OTHER]).unwrap_err());
        assert_eq!(fault.code, Code::BadOutput);
    }
}
