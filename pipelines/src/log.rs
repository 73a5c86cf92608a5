//! The last lines of GStreamer's log, kept as evidence for a fault.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use gstreamer as gst;

/// Lines kept; older ones are forgotten.
const LINES: usize = 100;
/// Bytes of a line kept.
const LINE: usize = 300;

static RING: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Starts GStreamer with its log going to the ring; `GST_DEBUG` sets the level and lets it go to stderr too.
pub fn init() -> Result<(), gst::glib::Error> {
    gst::init()?;
    if std::env::var_os("GST_DEBUG").is_none() {
        gst::log::remove_default_log_function();
        gst::log::set_default_threshold(gst::DebugLevel::Warning);
    }
    gst::log::set_active(true);
    gst::log::add_log_function(|category, level, _file, _function, _line, object, message| {
        // Filtered here too: a vendor's category may have its own threshold.
        if level > gst::DebugLevel::Warning {
            return;
        }
        let Some(text) = message.get() else { return };
        let object = object.map(|object| object.to_string()).unwrap_or_default();
        let mut line = format!("{level:?} {} {object} {text}", category.name());
        if line.len() > LINE {
            let cut = (0..=LINE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or_default();
            line.truncate(cut);
        }
        let mut ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == LINES {
            ring.pop_front();
        }
        ring.push_back(line);
    });
    Ok(())
}

/// The lines since the last [`clear`].
pub fn tail() -> String {
    let ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
    ring.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
}

/// Forgets lines of an earlier segment.
pub fn clear() {
    RING.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
