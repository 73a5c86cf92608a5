//! A GObject type has its properties and signals once and for all, and a Rust type is one GObject type. So there are
//! as many types as any snapshot has elements, and each takes its place in the list of specs.

use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::glib;

use crate::spec::Spec;

static SPECS: OnceLock<Vec<Spec>> = OnceLock::new();

/// The spec of the type at `place`. Types are only made for places that have one.
pub(crate) fn spec(place: usize) -> &'static Spec {
    &SPECS.get().expect("registered before any type is made")[place]
}

macro_rules! slots {
    ($($slot:ident = $place:literal,)+) => {
        $(
            mod $slot {
                use std::sync::OnceLock;

                use gstreamer as gst;
                use gstreamer::glib;
                use gstreamer::prelude::*;
                use gstreamer::subclass::prelude::*;

                use crate::inner::Inner;

                glib::wrapper! {
                    pub struct Element(ObjectSubclass<Imp>) @extends gst::Bin, gst::Element, gst::Object;
                }

                #[derive(Debug, Default)]
                pub struct Imp {
                    inner: Inner,
                }

                #[glib::object_subclass]
                impl ObjectSubclass for Imp {
                    const NAME: &'static str = concat!("HeadwaterStub", $place);
                    type Type = Element;
                    type ParentType = gst::Bin;
                }

                impl ObjectImpl for Imp {
                    fn properties() -> &'static [glib::ParamSpec] {
                        static SPECS: OnceLock<Vec<glib::ParamSpec>> = OnceLock::new();
                        SPECS.get_or_init(|| crate::params::specs(&super::spec($place).facts))
                    }

                    fn signals() -> &'static [glib::subclass::Signal] {
                        static SIGNALS: OnceLock<Vec<glib::subclass::Signal>> = OnceLock::new();
                        SIGNALS.get_or_init(|| crate::inner::signals($place))
                    }

                    fn set_property(&self, _id: usize, value: &glib::Value, spec: &glib::ParamSpec) {
                        self.inner.set(self.obj().upcast_ref(), $place, spec.name(), value);
                    }

                    fn property(&self, _id: usize, spec: &glib::ParamSpec) -> glib::Value {
                        self.inner.get(spec)
                    }

                    fn constructed(&self) {
                        self.parent_constructed();
                        self.inner.build(self.obj().upcast_ref(), $place);
                    }
                }

                impl GstObjectImpl for Imp {}

                impl ElementImpl for Imp {
                    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                        static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
                        Some(METADATA.get_or_init(|| crate::inner::metadata($place)))
                    }

                    fn pad_templates() -> &'static [gst::PadTemplate] {
                        static TEMPLATES: OnceLock<Vec<gst::PadTemplate>> = OnceLock::new();
                        TEMPLATES.get_or_init(|| crate::inner::templates($place))
                    }

                    fn change_state(
                        &self,
                        change: gst::StateChange,
                    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
                        self.inner.before(self.obj().upcast_ref(), $place, change)?;
                        let done = self.parent_change_state(change);
                        self.inner.after($place, change, done.is_ok());
                        done
                    }

                    fn request_new_pad(
                        &self,
                        template: &gst::PadTemplate,
                        _name: Option<&str>,
                        _caps: Option<&gst::Caps>,
                    ) -> Option<gst::Pad> {
                        self.inner.request(self.obj().upcast_ref(), $place, template)
                    }
                }

                impl BinImpl for Imp {}
            }
        )+

        /// Registers each spec as an element of its name.
        pub(crate) fn register(plugin: &gst::Plugin, specs: Vec<Spec>) -> Result<(), glib::BoolError> {
            use glib::prelude::StaticType;
            let types: &[fn() -> glib::Type] = &[$($slot::Element::static_type,)+];
            let specs = SPECS.get_or_init(|| specs);
            if specs.len() > types.len() {
                return Err(glib::bool_error!("{} elements, room for {}", specs.len(), types.len()));
            }
            for (spec, type_) in specs.iter().zip(types) {
                gst::Element::register(Some(plugin), &spec.name, gst::Rank::NONE, type_())?;
            }
            Ok(())
        }
    };
}

slots! {
    s0 = 0,
    s1 = 1,
    s2 = 2,
    s3 = 3,
    s4 = 4,
    s5 = 5,
    s6 = 6,
    s7 = 7,
    s8 = 8,
    s9 = 9,
    s10 = 10,
    s11 = 11,
    s12 = 12,
    s13 = 13,
    s14 = 14,
    s15 = 15,
    s16 = 16,
    s17 = 17,
    s18 = 18,
    s19 = 19,
    s20 = 20,
    s21 = 21,
    s22 = 22,
    s23 = 23,
    s24 = 24,
    s25 = 25,
    s26 = 26,
    s27 = 27,
    s28 = 28,
    s29 = 29,
    s30 = 30,
    s31 = 31,
    s32 = 32,
    s33 = 33,
    s34 = 34,
    s35 = 35,
    s36 = 36,
    s37 = 37,
    s38 = 38,
    s39 = 39,
    s40 = 40,
    s41 = 41,
    s42 = 42,
    s43 = 43,
    s44 = 44,
    s45 = 45,
    s46 = 46,
    s47 = 47,
    s48 = 48,
    s49 = 49,
    s50 = 50,
    s51 = 51,
    s52 = 52,
    s53 = 53,
    s54 = 54,
    s55 = 55,
    s56 = 56,
    s57 = 57,
    s58 = 58,
    s59 = 59,
    s60 = 60,
    s61 = 61,
    s62 = 62,
    s63 = 63,
}
