//! Why something is not used, in a sentence for a person. Each names the element first.

use std::process::ExitStatus;
use std::time::Duration;

use headwater_protocol::{CapabilityKind, Code, Codec, Fault};

use super::absent::{Closed, Devices};
use super::candidate::Candidate;

/// As people write it.
pub fn codec(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "H.264",
        Codec::Hevc => "HEVC",
        Codec::Av1 => "AV1",
        Codec::Vp9 => "VP9",
        Codec::Vp8 => "VP8",
        Codec::Jpeg => "JPEG",
        Codec::Fwht => "FWHT",
    }
}

/// `H.264 encoder`
pub(super) fn role(candidate: &Candidate) -> String {
    let role = candidate.kind.role();
    candidate.codec.map_or_else(|| role.to_owned(), |of| format!("{} {role}", codec(of)))
}

fn did(candidate: &Candidate) -> &'static str {
    match candidate.kind {
        CapabilityKind::Decode => "decoded",
        CapabilityKind::Scale => "scaled",
        CapabilityKind::Encode => "encoded",
    }
}

fn lacking(candidate: &Candidate) -> Code {
    match candidate.kind {
        CapabilityKind::Decode => Code::NoDecoder,
        CapabilityKind::Encode => Code::NoEncoder,
        CapabilityKind::Scale => Code::PipelineFailed,
    }
}

/// Not in the registry. `broken`: plugins that could not be loaded, one of which may be its own.
pub(super) fn missing(candidate: &Candidate, broken: &[String]) -> Fault {
    let Candidate { element, package, .. } = candidate;
    let text = format!("{element} is not installed; package {package} brings it");
    let text = if broken.is_empty() {
        text
    } else {
        format!("{text}, or it is in one of the plugins that GStreamer could not load: {}", broken.join(", "))
    };
    Fault::new(lacking(candidate), text)
}

fn open_it(Closed { path, group }: &Closed) -> String {
    format!(
        "{path} is for the group {group}; put the user into it, log in again and delete ~/.cache/gstreamer-1.0"
    )
}

/// Its plugin is installed and registers it for a device alone.
pub(super) fn no_device(candidate: &Candidate, devices: &Devices) -> Fault {
    let Candidate { element, .. } = candidate;
    let text = match devices {
        Devices::None(names) => format!(
            "{element} has no device, though its plugin is installed: there is no {}; load the device's driver, or set the \
             overlay that brings it",
            names.join(" or ")
        ),
        // GStreamer looks for devices anew where their number changes, and else remembers what it was not let open.
        Devices::Closed(closed) => {
            format!("{element} has no device that this user may open: {}", open_it(closed))
        }
        Devices::Others { open, closed: None } => format!(
            "{element} has no device that does its work, though its plugin is installed: not {}; if the board has one, \
             its driver, overlay or library is missing",
            open.join(", ")
        ),
        Devices::Others { open, closed: Some(closed) } => format!(
            "{element} has no device that does its work, though its plugin is installed: not {}, and {}",
            open.join(", "),
            open_it(closed)
        ),
    };
    Fault::new(lacking(candidate), text)
}

/// In the registry, but its plugin cannot be loaded.
pub(super) fn unloadable(candidate: &Candidate, why: &str) -> Fault {
    let Candidate { element, package, .. } = candidate;
    let text = format!(
        "{element} is registered, but its plugin cannot be loaded ({why}); install package {package} again"
    );
    Fault::new(lacking(candidate), text)
}

pub(super) fn no_sample(candidate: &Candidate) -> Fault {
    let text = format!("{} was not tried: there is no sample of its codec", candidate.element);
    Fault::new(Code::UnsupportedCodec, text)
}

/// Hardware that no probe has looked at.
pub(super) fn unproved(candidate: &Candidate) -> String {
    format!("{} is not proved yet; run `headwater-worker probe`", candidate.element)
}

/// There by name, and nothing came out of it.
pub(super) fn nothing(candidate: &Candidate, why: &Fault) -> Fault {
    let Candidate { element, block, software, .. } = candidate;
    let reason = if why.code == Code::WorkerHung {
        "it stood still until its time was over".to_owned()
    } else if *software {
        why.text.clone()
    } else {
        let device = if block.is_empty() { format!("{} behind it", role(candidate)) } else { block.clone() };
        // It came to its end, and so did start.
        let ran = why.code == Code::BadOutput;
        let or = if ran { String::new() } else { format!(", or it did not start ({})", why.text) };
        format!("this board has no {device}{or}")
    };
    let text = format!("{element} is registered but {} no frame: {reason}", did(candidate));
    Fault::new(why.code, text).with_detail(format!("{}\n{}", why.text, why.detail))
}

pub(super) fn wrong(candidate: &Candidate, what: impl std::fmt::Display) -> Fault {
    Fault::new(Code::BadOutput, format!("{} {what}", candidate.element))
}

pub(super) fn busy(candidate: &Candidate, why: &Fault) -> Fault {
    let text =
        format!("{} has all the work it can do; probe again while nothing else uses it", candidate.element);
    Fault::new(Code::Busy, text).with_detail(format!("{}\n{}", why.text, why.detail))
}

pub(super) fn hung(candidate: &Candidate, after: Duration, tail: &str) -> Fault {
    let text =
        format!("{} did not answer within {} s and was killed", candidate.element, after.as_secs_f32());
    Fault::new(Code::WorkerHung, text).with_detail(tail)
}

/// In the kernel, and no signal reaches it.
pub(super) fn unkillable(candidate: &Candidate) -> Fault {
    let text =
        format!("{} hangs in its driver and cannot be killed; reboot to free the device", candidate.element);
    Fault::new(Code::WorkerHung, text)
}

/// Another use of it cannot be killed, so it is left alone.
pub(super) fn spared(candidate: &Candidate) -> Fault {
    let text = format!(
        "{} was not tried: another test of it hangs in its driver and cannot be killed; reboot first",
        candidate.element
    );
    Fault::new(Code::WorkerHung, text)
}

pub(super) fn crashed(candidate: &Candidate, status: ExitStatus, tail: &str) -> Fault {
    let text = format!(
        "{} is registered, but the process that tried it ended without an answer ({status})",
        candidate.element
    );
    Fault::new(Code::WorkerCrashed, text).with_detail(tail)
}

pub(super) fn not_started(candidate: &Candidate, error: &std::io::Error) -> Fault {
    Fault::new(
        Code::WorkerStart,
        format!("{} was not tried: its process could not be started: {error}", candidate.element),
    )
}
