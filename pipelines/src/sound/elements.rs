//! The elements for sound. They are the same on every machine: no board has better ones than the processor.

use gstreamer as gst;

use headwater_protocol::{Aac, Audio, Code, Fault, Opus};

/// An element, and the Debian package that brings it.
pub(super) struct Known {
    pub(super) element: &'static str,
    package: &'static str,
}

const LIBAV: &str = "gstreamer1.0-libav";
const BASE: &str = "gstreamer1.0-plugins-base";

/// In what form sound is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Aac,
    /// MPEG layer II.
    Mp2,
    /// MPEG layer III.
    Mp3,
    Ac3,
    Eac3,
    Opus,
}

/// Best first. Each gives a frame's samples with the frame, none earlier and none later.
pub(super) fn decoder(coding: Coding) -> Result<&'static str, Fault> {
    const AAC: &[Known] = &[Known { element: "avdec_aac", package: LIBAV }];
    const MP2: &[Known] = &[Known { element: "avdec_mp2float", package: LIBAV }];
    const MP3: &[Known] = &[Known { element: "avdec_mp3", package: LIBAV }];
    const AC3: &[Known] = &[Known { element: "avdec_ac3", package: LIBAV }];
    const EAC3: &[Known] = &[Known { element: "avdec_eac3", package: LIBAV }];
    const OPUS: &[Known] = &[Known { element: "opusdec", package: BASE }];
    let known = match coding {
        Coding::Aac => AAC,
        Coding::Mp2 => MP2,
        Coding::Mp3 => MP3,
        Coding::Ac3 => AC3,
        Coding::Eac3 => EAC3,
        Coding::Opus => OPUS,
    };
    at_hand(known, |known| known).map(|known| known.element).ok_or_else(|| {
        let text = format!("no decoder for {coding:?} sound here; install {}", packages(known.iter()));
        Fault::new(Code::NoDecoder, text)
    })
}

/// An encoder and what must be known to place its frames.
pub(super) struct Encoder {
    known: Known,
    /// Samples of its frames.
    pub(super) frame: u32,
    /// Samples that come out before the first one put in: a decoder's output at this place is the start of the sound.
    pub(super) delay: u32,
    max_channels: u8,
}

/// 1024: libavcodec's own `initial_padding`.
const AVENC_AAC: Encoder = Encoder {
    known: Known { element: "avenc_aac", package: LIBAV },
    frame: 1024,
    delay: 1024,
    max_channels: 6,
};
const VOAACENC: Encoder = Encoder {
    known: Known { element: "voaacenc", package: "gstreamer1.0-plugins-bad" },
    frame: 1024,
    delay: 1600,
    max_channels: 2,
};
/// 312: libopus' lookahead at 48 kHz (`OPUS_GET_LOOKAHEAD`), 6.5 ms.
const OPUSENC: Encoder =
    Encoder { known: Known { element: "opusenc", package: BASE }, frame: 960, delay: 312, max_channels: 2 };

pub(super) type Properties = Vec<(&'static str, String)>;

impl Encoder {
    pub(super) fn element(&self) -> &'static str {
        self.known.element
    }
}

/// The encoder for a wish and its properties. None: nothing is encoded.
pub(super) fn encoder(want: &Audio) -> Result<Option<(&'static Encoder, Properties)>, Fault> {
    const AACS: &[&Encoder] = &[&AVENC_AAC, &VOAACENC];
    const OPUSES: &[&Encoder] = &[&OPUSENC];
    let (name, known, channels, bitrate) = match want {
        Audio::Copy | Audio::None => return Ok(None),
        Audio::Aac(Aac { bitrate, channels, .. }) => ("AAC", AACS, *channels, *bitrate),
        Audio::Opus(Opus { bitrate, channels }) => ("Opus", OPUSES, *channels, *bitrate),
    };
    let fits: Vec<&'static Encoder> =
        known.iter().copied().filter(|encoder| encoder.max_channels >= channels).collect();
    let found = at_hand(&fits, |encoder| &encoder.known).ok_or_else(|| {
        let packages = packages(fits.iter().map(|encoder| &encoder.known));
        Fault::new(Code::NoEncoder, format!("no encoder for {name} sound here; install {packages}"))
    })?;
    Ok(Some((found, vec![("bitrate", bitrate.0.to_string())])))
}

/// Every encoder of the tables that is here.
#[cfg(test)]
pub(super) fn all() -> Vec<&'static Encoder> {
    let all = [&AVENC_AAC, &VOAACENC, &OPUSENC];
    all.into_iter().filter(|one| gst::ElementFactory::find(one.element()).is_some()).collect()
}

fn at_hand<T>(list: &[T], known: impl Fn(&T) -> &Known) -> Option<&T> {
    list.iter().find(|one| gst::ElementFactory::find(known(one).element).is_some())
}

fn packages<'a>(known: impl Iterator<Item = &'a Known>) -> String {
    known.map(|known| known.package).collect::<Vec<_>>().join(" or ")
}

/// Any samples to 32-bit ones.
pub(super) const CONVERT: &str = "audioconvert";
/// Any rate to another; its output begins where its input does.
pub(super) const RESAMPLE: &str = "audioresample";
