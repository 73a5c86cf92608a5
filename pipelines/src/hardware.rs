//! Which elements have a device behind them, and a word to the agent before each is used first: a driver that
//! hangs takes this process with it, and nothing can be asked of it then.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use gstreamer as gst;

use crate::board::Board;

type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// One for the process, as GStreamer's registry is.
static LISTENER: OnceLock<Listener> = OnceLock::new();
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// From now on `listener` hears of each hardware element before it is made, once. Only the first listener counts.
pub fn tell(listener: impl Fn(&str) + Send + Sync + 'static) {
    let _ = LISTENER.set(Box::new(listener));
}

pub(crate) fn about_to_use(element: &str) {
    let Some(listener) = LISTENER.get() else { return };
    if is_hardware(element) && TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(element.to_owned())
    {
        listener(element);
    }
}

/// An element with a device behind it, by what its registration says: it is of class `Hardware`, or its pads carry
/// a device's memory, or it is a codec that the software profile does not name. Vendors keep to none of these alone.
pub fn is_hardware(element: &str) -> bool {
    let Some(factory) = gst::ElementFactory::find(element) else { return false };
    let class = factory.metadata("klass").unwrap_or_default();
    let codec = class.starts_with("Codec/Decoder") || class.starts_with("Codec/Encoder");
    class.contains("Hardware") || carries_device_memory(&factory) || (codec && !software().contains(element))
}

fn carries_device_memory(factory: &gst::ElementFactory) -> bool {
    factory.static_pad_templates().iter().any(|template| {
        let caps = template.caps();
        (0..caps.size()).filter_map(|at| caps.features(at)).any(|features| {
            !features.is_any()
                && features.iter().any(|feature| {
                    feature.starts_with("memory:") && *feature != *gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY
                })
        })
    })
}

fn software() -> &'static BTreeSet<String> {
    static NAMES: OnceLock<BTreeSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        // The shipped profile is read in a test; without it every codec would count as hardware, which harms nobody.
        let Ok(board) = Board::software() else { return BTreeSet::new() };
        let decoders = board.decoders.into_iter().map(|decoder| decoder.element);
        decoders.chain(board.encoders.into_iter().map(|encoder| encoder.element)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_has_no_device_behind_it() {
        gst::init().unwrap();
        for element in
            ["avdec_h264", "x264enc", "openh264enc", "h264parse", "videoconvert", "appsink", "nothing"]
        {
            assert!(!is_hardware(element), "{element}");
        }
    }

    #[test]
    fn what_the_software_profile_does_not_name_is_taken_for_hardware() {
        gst::init().unwrap();
        // Software, in fact, but here it stands for a vendor's codec that does not say what it is.
        assert!(is_hardware("jpegenc"));
    }
}
