//! The one closed list of error codes, and what each class means for the task.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happens to a task whose attempt ended with an error of this class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The input or the ladder is at fault: no node can do better. Answered to the caller.
    Input,
    /// This node lacks something: another node is asked.
    Capability,
    /// This node is broken: another node is asked, and this one rests.
    Node,
    /// It may work next time, here or elsewhere.
    Transient,
    /// Time ran out.
    Deadline,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $class:ident;)+) => {
        /// Every error that leaves a process has one of these codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)+
        }

        impl Code {
            /// All codes, in the order of PROTOCOL.md.
            pub const ALL: &[Code] = &[$(Code::$name,)+];

            pub fn class(self) -> Class {
                match self {
                    $(Code::$name => Class::$class,)+
                }
            }

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$name => $text,)+
                }
            }
        }
    };
}

codes! {
    /// The segment has no bytes.
    EmptyInput = "empty_input", Input;
    /// The bytes are neither MPEG-TS nor MP4.
    NotMedia = "not_media", Input;
    /// There is no video stream, nor sound to hand on.
    NoVideo = "no_video", Input;
    /// There is a video stream, but neither a frame in it nor other media to hand on.
    NoFrames = "no_frames", Input;
    /// No frame is a keyframe, so nothing can be decoded.
    NoKeyframe = "no_keyframe", Input;
    /// The decoder found no picture in the frames.
    Undecodable = "undecodable", Input;
    /// Video in a codec that Headwater does not read.
    UnsupportedCodec = "unsupported_codec", Input;
    /// Longer or larger than a segment may be.
    TooLarge = "too_large", Input;
    /// The ladder breaks a rule.
    BadLadder = "bad_ladder", Input;
    /// This node proved no decoder for the input's codec.
    NoDecoder = "no_decoder", Capability;
    /// This node proved no encoder for a rendition's codec.
    NoEncoder = "no_encoder", Capability;
    /// The worker ended by a signal or without a last word.
    WorkerCrashed = "worker_crashed", Node;
    /// The worker gave no sign of life within its deadline and was killed.
    WorkerHung = "worker_hung", Node;
    /// The worker could not be started.
    WorkerStart = "worker_start", Node;
    /// A pipeline failed for a reason that is not the input's.
    PipelineFailed = "pipeline_failed", Node;
    /// Output broke a promise (frame count, first keyframe) and was not published.
    BadOutput = "bad_output", Node;
    /// The node could not write its outbox.
    Storage = "storage", Node;
    /// All workers have work, or what the ladder needs of the devices is in use.
    Busy = "busy", Transient;
    /// The node takes no new work.
    Draining = "draining", Transient;
    /// The input could not be fetched.
    FetchFailed = "fetch_failed", Transient;
    /// A rendition could not be put.
    UploadFailed = "upload_failed", Transient;
    /// The node cannot do what the command asks, and says why.
    Unsupported = "unsupported", Capability;
    /// The bundle is damaged, not signed by whom the node trusts, for another kind of board, or older than what runs.
    BadBundle = "bad_bundle", Input;
    /// The bundle is right and could not be installed.
    InstallFailed = "install_failed", Node;
    /// What was installed did not prove itself in time.
    Unhealthy = "unhealthy", Node;
    /// The configuration has a key or a value that the node refuses.
    BadConfig = "bad_config", Input;
    /// With the configuration the node could not connect again, and went back to the earlier one.
    ConfigRolledBack = "config_rolled_back", Node;
    /// The gateway revoked the attempt.
    Revoked = "revoked", Transient;
    /// The agent stopped or restarted during the attempt.
    Interrupted = "interrupted", Transient;
    /// The attempt's runtime is over.
    TooSlow = "too_slow", Deadline;
    /// The offer was no longer valid when it was read.
    OfferExpired = "offer_expired", Deadline;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An error as it travels: a code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Fault {
    pub code: Code,
    /// What is wrong and what to do, one sentence without secrets.
    pub text: String,
    /// Evidence such as an element's path, its debug text, last log lines; at most 4 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Fault {
    /// Bytes of evidence that may travel with a fault.
    pub const MAX_DETAIL: usize = 4096;

    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), detail: String::new() }
    }

    /// Adds evidence, keeping its end where it is too long: the last lines tell most.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = last_bytes(&detail.into(), Self::MAX_DETAIL).to_owned();
        self
    }
}

/// The end of a text, at most so many bytes.
pub(crate) fn last_bytes(text: &str, most: usize) -> &str {
    let mut cut = text.len().saturating_sub(most);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    &text[cut..]
}

/// An error and its causes in one line for people, each text once: many errors show their cause already.
pub fn in_one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_as_its_text() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        }
    }

    #[test]
    fn a_cause_that_is_shown_already_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x: {source}")]
        struct Shown {
            source: Hidden,
        }
        #[derive(Debug, thiserror::Error)]
        #[error("no such file")]
        struct Hidden(#[source] std::fmt::Error);
        let line = in_one_line(&Shown { source: Hidden(std::fmt::Error) });
        assert_eq!(line, format!("cannot read x: no such file: {}", std::fmt::Error));
    }

    #[test]
    fn evidence_keeps_its_last_bytes_and_stays_text() {
        let fault = Fault::new(Code::WorkerCrashed, "x").with_detail("ä".repeat(4000));
        assert!(fault.detail.len() <= Fault::MAX_DETAIL && fault.detail.ends_with('ä'));
    }
}
