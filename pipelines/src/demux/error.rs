//! Why an input could not be read.

use headwater_protocol::{Code, Fault};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DemuxError {
    #[error("the segment is empty; send the bytes of an MPEG-TS, MP4 or Matroska file")]
    Empty,
    #[error("the input is plain text, not video; send the bytes of an MPEG-TS, MP4 or Matroska file")]
    Text,
    #[error("the input is {name}; remux it first: ffmpeg -i IN -c copy OUT.mp4")]
    OtherContainer { name: &'static str },
    #[error("the input is neither MPEG-TS nor MP4 nor Matroska; remux it first: ffmpeg -i IN -c copy OUT.ts")]
    Unknown,
    #[error(
        "the input looks like MPEG-TS, but no program table was found in {packets} packets; start segments with PAT and PMT"
    )]
    NoProgram { packets: u64 },
    #[error("the MP4 has no movie header (moov); it was cut off, or sent without its initialisation segment")]
    NoMovie,
    #[error("the MP4 is broken: {what}")]
    BrokenMovie { what: &'static str },
    #[error("the Matroska file has no list of tracks; it was cut off")]
    NoTracks,
    #[error("the Matroska file is broken: {what}")]
    BrokenMatroska { what: &'static str },
    #[error("video in {codec} is not supported; send H.264, HEVC, AV1, VP9 or VP8")]
    UnsupportedVideo { codec: String },
    #[error("the video is encrypted; send it in the clear")]
    Encrypted,
    #[error("the segment is larger than {max} bytes; send shorter segments")]
    TooLarge { max: u64 },
    #[error("reading {path} failed: {error}")]
    Read { path: String, error: String },
}

impl DemuxError {
    pub fn code(&self) -> Code {
        match self {
            DemuxError::Empty => Code::EmptyInput,
            DemuxError::Text
            | DemuxError::OtherContainer { .. }
            | DemuxError::Unknown
            | DemuxError::NoProgram { .. }
            | DemuxError::NoMovie
            | DemuxError::BrokenMovie { .. }
            | DemuxError::NoTracks
            | DemuxError::BrokenMatroska { .. } => Code::NotMedia,
            DemuxError::UnsupportedVideo { .. } | DemuxError::Encrypted => Code::UnsupportedCodec,
            DemuxError::TooLarge { .. } => Code::TooLarge,
            DemuxError::Read { .. } => Code::FetchFailed,
        }
    }
}

impl From<DemuxError> for Fault {
    fn from(error: DemuxError) -> Fault {
        Fault::new(error.code(), error.to_string())
    }
}
