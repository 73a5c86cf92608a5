//! What a vendor's element is, by its name.

/// Kinds of elements that are stood in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Decoder,
    /// Also what only carries pictures between memories.
    Scaler,
    /// One picture in, several out.
    Split,
    Encoder(Coder),
}

/// The software codec inside an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coder {
    H264,
    Hevc,
    Av1,
    Jpeg,
    Vp8,
    Vp9,
}

/// Elements that are software wherever they are, and real here.
const REAL: [&str; 22] = [
    "avdec_",
    "avenc_",
    "x264enc",
    "x265enc",
    "openh264",
    "h264parse",
    "h265parse",
    "av1parse",
    "vp9parse",
    "av1enc",
    "av1dec",
    "dav1ddec",
    "svtav1",
    "vp8dec",
    "vp9dec",
    "vp8enc",
    "vp9enc",
    "jpegenc",
    "jpegdec",
    "videoconvert",
    "videoscale",
    "capsfilter",
];

/// None for an element that is not stood in for.
pub(crate) fn of(name: &str, sink_caps: &str, src_caps: &str) -> Option<Kind> {
    if REAL.iter().any(|real| name.starts_with(real)) || name.ends_with("parse") {
        return None;
    }
    let coded = |caps: &str| {
        let known = [
            ("video/x-h264", Coder::H264),
            ("video/x-h265", Coder::Hevc),
            ("video/x-av1", Coder::Av1),
            ("image/jpeg", Coder::Jpeg),
            ("video/x-vp8", Coder::Vp8),
            ("video/x-vp9", Coder::Vp9),
        ];
        known.into_iter().find(|(media, _)| caps.contains(media)).map(|(_, coder)| coder)
    };
    let named = || {
        let known = [
            ("264", Coder::H264),
            ("265", Coder::Hevc),
            ("hevc", Coder::Hevc),
            ("av1", Coder::Av1),
            ("jpeg", Coder::Jpeg),
            ("vp8", Coder::Vp8),
            ("vp9", Coder::Vp9),
            ("venc", Coder::H264),
        ];
        known.into_iter().find(|(part, _)| name.contains(part)).map(|(_, coder)| coder)
    };
    if name.contains("split") || name.contains("multiscaler") {
        return Some(Kind::Split);
    }
    if name.contains("enc") {
        return coded(src_caps).or_else(named).map(Kind::Encoder);
    }
    if coded(sink_caps).is_some() || name.contains("dec") {
        return Some(Kind::Decoder);
    }
    Some(Kind::Scaler)
}

impl Coder {
    pub(crate) fn caps(self) -> &'static str {
        match self {
            Coder::H264 => "video/x-h264,stream-format=byte-stream,alignment=au",
            Coder::Hevc => "video/x-h265,stream-format=byte-stream,alignment=au",
            Coder::Av1 => "video/x-av1,stream-format=obu-stream,alignment=tu",
            Coder::Jpeg => "image/jpeg",
            Coder::Vp8 => "video/x-vp8",
            Coder::Vp9 => "video/x-vp9",
        }
    }
}
