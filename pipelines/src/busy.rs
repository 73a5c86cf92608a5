//! A session that a device refuses: it has all the work it can do, and later or elsewhere the same may go well.

use gstreamer as gst;
use headwater_protocol::{Class, Code, Fault};

use crate::board::{Board, Quirk};

/// What the C library calls `EBUSY`; no process of ours sets a language.
const EBUSY: &str = "Device or resource busy";

/// Whether a fault on this board is such a refusal. Drivers with [`Quirk::OutOfMemoryMeansBusy`] say it no clearer.
pub(crate) fn refused(fault: &Fault, memory_means_busy: bool) -> bool {
    fault.code == Code::Busy
        || (memory_means_busy && fault.code.class() == Class::Node && out_of_memory(fault))
}

/// The board's drivers speak of memory where they mean sessions.
pub(crate) fn memory_means_busy(board: &Board) -> bool {
    board.quirks.contains(&Quirk::OutOfMemoryMeansBusy)
}

/// The refusal in words.
pub(crate) fn told(fault: Fault) -> Fault {
    let text =
        format!("a device has all the work it can do ({}); try again when some of it is done", fault.text);
    Fault { code: Code::Busy, text, ..fault }
}

/// Whether an element of `factory` says that its device refused one more session. V4L2's elements say that of a device
/// that could not be opened, and call it busy where they set a format while their own buffers are in use, which is their
/// fault.
pub(crate) fn said(kind: Option<gst::ResourceError>, factory: &str, debug: &str) -> bool {
    match kind {
        Some(gst::ResourceError::Busy) => !factory.starts_with("v4l2"),
        Some(
            gst::ResourceError::OpenReadWrite | gst::ResourceError::OpenRead | gst::ResourceError::OpenWrite,
        ) => debug.contains(EBUSY),
        Some(_) | None => false,
    }
}

/// What drivers say of a session too many.
fn out_of_memory(fault: &Fault) -> bool {
    let text = format!("{} {}", fault.text, fault.detail).to_lowercase();
    ["out of memory", "out_of_memory", "cannot allocate memory", "enomem", "no space left"]
        .iter()
        .any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drivers_say_of_a_session_too_many_is_known() {
        for text in
            ["NV_ENC_ERR_OUT_OF_MEMORY", "VIDIOC_REQBUFS: Cannot allocate memory", "Out of memory (12)"]
        {
            let fault = Fault::new(Code::PipelineFailed, "x").with_detail(text);
            assert!(refused(&fault, true), "{text}");
            assert!(!refused(&fault, false), "{text}: on a board whose drivers mean what they say");
        }
        assert!(!refused(&Fault::new(Code::PipelineFailed, "it never came to its end"), true));
    }

    #[test]
    fn a_v4l2_device_that_does_not_open_is_busy_and_one_whose_format_cannot_be_set_is_not() {
        // As in GStreamer's v4l2_calls.c and gstv4l2object.c.
        let open = |why: &str| {
            let debug = format!("gst_v4l2_open (): /GstPipeline:encode/v4l2fwhtenc0:\nsystem error: {why}");
            said(Some(gst::ResourceError::OpenReadWrite), "v4l2fwhtenc", &debug)
        };
        assert!(open("Device or resource busy"));
        assert!(!open("Permission denied"));
        let set = "Call to S_FMT failed for FWHT @ 1280x720: Device or resource busy";
        assert!(!said(Some(gst::ResourceError::Busy), "v4l2fwhtenc", set));
        assert!(said(Some(gst::ResourceError::Busy), "qtic2venc", ""), "others mean what they say");
        assert!(!said(Some(gst::ResourceError::Settings), "v4l2fwhtenc", set));
        assert!(!said(None, "v4l2fwhtenc", set));
    }

    #[test]
    fn input_that_speaks_of_memory_is_no_refusal() {
        let fault = Fault::new(Code::Undecodable, "x").with_detail("out of memory");
        assert!(!refused(&fault, true));
    }
}
