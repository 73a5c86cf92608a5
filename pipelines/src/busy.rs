//! A session that a device refuses: it has all the work it can do, and later or elsewhere the same may go well.

use headwater_protocol::{Class, Code, Fault};

use crate::board::{Board, Quirk};

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
    fn input_that_speaks_of_memory_is_no_refusal() {
        let fault = Fault::new(Code::Undecodable, "x").with_detail("out of memory");
        assert!(!refused(&fault, true));
    }
}
