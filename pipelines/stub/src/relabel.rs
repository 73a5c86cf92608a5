//! Passes buffers on, and changes what their caps say of the memory they are in.

use std::sync::Mutex;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::subclass::prelude::*;
use gstreamer_base as gst_base;
use gstreamer_base::subclass::prelude::*;

glib::wrapper! {
    pub struct Relabel(ObjectSubclass<imp::Relabel>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

impl Relabel {
    /// From pictures of any of `sink` to pictures of any of `src`; each a memory feature, or empty for system memory.
    pub(crate) fn between(sink: Vec<String>, src: Vec<String>) -> Self {
        let relabel: Self = glib::Object::new();
        *relabel.imp().features.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = (sink, src);
        relabel
    }
}

/// Memory features in caps; empty text for system memory, which comes first: who asks for none gets that, as from
/// NVIDIA's decoders.
pub(crate) fn features(caps: &gst::Caps) -> Vec<String> {
    let mut all: Vec<String> = caps
        .iter_with_features()
        .map(|(_, features)| {
            if features.is_any() {
                return String::new();
            }
            features
                .iter()
                .map(|name| name.to_string())
                .find(|name| name != "memory:SystemMemory")
                .unwrap_or_default()
        })
        .collect();
    all.sort();
    all.dedup();
    if all.is_empty() {
        all.push(String::new());
    }
    all
}

mod imp {
    use super::*;

    #[derive(Debug, Default)]
    pub struct Relabel {
        pub(super) features: Mutex<(Vec<String>, Vec<String>)>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Relabel {
        const NAME: &'static str = "HeadwaterStubRelabel";
        type Type = super::Relabel;
        type ParentType = gst_base::BaseTransform;
    }

    impl ObjectImpl for Relabel {}
    impl GstObjectImpl for Relabel {}

    impl ElementImpl for Relabel {
        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: std::sync::OnceLock<Vec<gst::PadTemplate>> = std::sync::OnceLock::new();
            TEMPLATES.get_or_init(|| {
                let caps = gst::Caps::builder("video/x-raw").any_features().build();
                [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                    .into_iter()
                    // Caps that parse and always pads: neither can fail.
                    .filter_map(|(name, way)| {
                        gst::PadTemplate::new(name, way, gst::PadPresence::Always, &caps).ok()
                    })
                    .collect()
            })
        }
    }

    impl BaseTransformImpl for Relabel {
        const MODE: gst_base::subclass::BaseTransformMode =
            gst_base::subclass::BaseTransformMode::AlwaysInPlace;
        const PASSTHROUGH_ON_SAME_CAPS: bool = false;
        const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

        fn transform_caps(
            &self,
            direction: gst::PadDirection,
            caps: &gst::Caps,
            filter: Option<&gst::Caps>,
        ) -> Option<gst::Caps> {
            let (sink, src) = self.features.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let other = if direction == gst::PadDirection::Sink { src } else { sink };
            let mut out = gst::Caps::new_empty();
            {
                let out = out.get_mut()?;
                for structure in caps.iter() {
                    for feature in &other {
                        let features = match feature.as_str() {
                            "" => gst::CapsFeatures::new_empty(),
                            name => gst::CapsFeatures::new([name]),
                        };
                        out.append_structure_full(structure.to_owned(), Some(features));
                    }
                }
            }
            Some(match filter {
                Some(filter) => filter.intersect_with_mode(&out, gst::CapsIntersectMode::First),
                None => out,
            })
        }

        fn transform_ip(&self, _buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
            Ok(gst::FlowSuccess::Ok)
        }
    }
}
