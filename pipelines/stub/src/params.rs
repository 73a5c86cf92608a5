//! A vendor's properties: their specs, their values, and what they mean to the software codec inside.

use std::collections::BTreeMap;

use gstreamer as gst;
use gstreamer::glib;
use headwater_pipelines::machine::{ElementFacts, PropertyFacts, PropertyKind};

/// The element's properties as GObject has them.
pub(crate) fn specs(facts: &ElementFacts) -> Vec<glib::ParamSpec> {
    // What every element has is there already.
    facts
        .properties
        .iter()
        .filter(|(name, _)| !["name", "parent"].contains(&name.as_str()))
        .map(param)
        .collect()
}

fn param((name, facts): (&String, &PropertyFacts)) -> glib::ParamSpec {
    let default = facts.default.as_deref().unwrap_or_default().trim_matches('"');
    let (min, max) = (facts.min, facts.max);
    macro_rules! number {
        ($spec:ident, $type:ty) => {{
            let low = min.map_or(<$type>::MIN, |min| min as $type);
            let high = max.map_or(<$type>::MAX, |max| max as $type).max(low);
            let value = default.parse::<f64>().map_or(low, |value| value as $type).clamp(low, high);
            glib::$spec::builder(name).minimum(low).maximum(high).default_value(value).build()
        }};
    }
    match facts.kind {
        PropertyKind::Bool => glib::ParamSpecBoolean::builder(name).default_value(default == "true").build(),
        PropertyKind::Int => number!(ParamSpecInt, i32),
        PropertyKind::Uint => number!(ParamSpecUInt, u32),
        PropertyKind::Int64 => number!(ParamSpecInt64, i64),
        PropertyKind::Uint64 => number!(ParamSpecUInt64, u64),
        PropertyKind::Float => number!(ParamSpecFloat, f32),
        PropertyKind::Double => number!(ParamSpecDouble, f64),
        PropertyKind::Other if name.contains("controls") => {
            glib::ParamSpecBoxed::builder::<gst::Structure>(name).build()
        }
        PropertyKind::Text | PropertyKind::Enum | PropertyKind::Flags | PropertyKind::Other => {
            glib::ParamSpecString::builder(name).default_value(Some(default)).build()
        }
    }
}

/// A property's value as it was set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Set {
    Bool(bool),
    Number(i64),
    Real(f64),
    Text(String),
    Structure(gst::Structure),
}

impl Set {
    /// None for a text that is null.
    pub(crate) fn of(value: &glib::Value) -> Option<Self> {
        if let Ok(value) = value.get::<bool>() {
            return Some(Self::Bool(value));
        }
        let number = value
            .get::<i32>()
            .map(i64::from)
            .ok()
            .or_else(|| value.get::<u32>().map(i64::from).ok())
            .or_else(|| value.get::<i64>().ok())
            .or_else(|| value.get::<u64>().ok().and_then(|value| i64::try_from(value).ok()));
        let real = || value.get::<f64>().ok().or_else(|| value.get::<f32>().map(f64::from).ok());
        let text = || value.get::<Option<String>>().ok().flatten();
        let structure = || value.get::<Option<gst::Structure>>().ok().flatten();
        number
            .map(Self::Number)
            .or_else(|| real().map(Self::Real))
            .or_else(|| text().map(Self::Text))
            .or_else(|| structure().map(Self::Structure))
    }

    /// As a value of the property's type.
    pub(crate) fn value(&self, spec: &glib::ParamSpec) -> glib::Value {
        use glib::prelude::ToValue;
        let value = match self {
            Self::Bool(value) => value.to_value(),
            Self::Number(value) => value.to_value(),
            Self::Real(value) => value.to_value(),
            Self::Text(value) => value.to_value(),
            Self::Structure(value) => value.to_value(),
        };
        value.transform_with_type(spec.value_type()).unwrap_or_else(|_| spec.default_value().clone())
    }
}

/// Whether an enumeration takes the value: one of its nicks, or a number.
pub(crate) fn takes(facts: &PropertyFacts, value: &Set) -> bool {
    match (facts.kind, value) {
        (PropertyKind::Enum, Set::Text(text)) => {
            facts.values.is_empty() || facts.values.contains(text) || text.parse::<i64>().is_ok()
        }
        (_, _) => true,
    }
}

/// What matters of the properties' values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// bit/s; None: the vendor's default.
    pub bits: Option<u64>,
    /// Frames between IDR frames; None: none but the first.
    pub gop: Option<u32>,
    /// Parameter sets before every IDR frame.
    pub headers: bool,
    /// The encoder scales to this.
    pub size: Option<(u32, u32)>,
    /// `videoflip`'s word for a turn.
    pub turn: Option<&'static str>,
}

/// Bitrate properties and the bits that one unit of each has.
fn bit_unit(element: &str, property: &str) -> Option<u64> {
    // Vendors' documentation: NVIDIA's Jetson, Rockchip and Qualcomm count bits, NXP, VA, nvcodec and Vulkan kilobits.
    let kilo = element.starts_with("vpuenc")
        || element.starts_with("va")
        || element.starts_with("nvh26")
        || element.starts_with("nvcuda")
        || element.starts_with("nvav1")
        || element.starts_with("vulkan");
    match property {
        "bitrate" | "target-bitrate" | "bps" => Some(if kilo { 1000 } else { 1 }),
        _ => None,
    }
}

const GOPS: [&str; 6] = ["idrinterval", "gop", "gop-size", "key-int-max", "idr-interval", "idr-period"];
const GOP_CONTROLS: [&str; 3] = ["h264_i_frame_period", "video_gop_size", "hevc_i_frame_period"];

const TURNS: [&str; 4] = ["flip-method", "video-direction", "rotation", "rotate"];

/// The vendor's word in `videoflip`'s; None for none and for what turns nothing.
fn turn(text: &str) -> Option<&'static str> {
    match text {
        "clockwise" | "90r" | "rotate-90" | "90CW" => Some("clockwise"),
        "rotate-180" | "180" => Some("rotate-180"),
        "counterclockwise" | "90l" | "rotate-270" | "90CCW" => Some("counterclockwise"),
        _ => None,
    }
}

/// `values`: what was set; `facts`: what the element has.
pub(crate) fn settings(element: &str, facts: &ElementFacts, values: &BTreeMap<String, Set>) -> Settings {
    let number = |name: &str| -> Option<i64> {
        let set = values.get(name).and_then(as_number);
        let default = || facts.properties.get(name)?.default.as_ref()?.parse().ok();
        set.or_else(|| facts.properties.contains_key(name).then(default).flatten())
    };
    let controls = values.values().find_map(|value| match value {
        Set::Structure(all) => Some(all),
        Set::Bool(_) | Set::Number(_) | Set::Real(_) | Set::Text(_) => None,
    });
    // A control that the device lacks is set in vain.
    let set = |name: &str| controls.filter(|_| facts.has_control(name))?.get::<i32>(name).ok();
    let control = |name: &str| set(name).map(i64::from);
    let bits = ["bitrate", "target-bitrate", "bps"].iter().find_map(|name| {
        let unit = bit_unit(element, name)?;
        u64::try_from(number(name)?).ok().filter(|value| *value > 0).map(|value| value * unit)
    });
    let bits = bits.or_else(|| control("video_bitrate").and_then(|bits| u64::try_from(bits).ok()));
    let gop = GOPS
        .iter()
        .find_map(|name| number(name))
        .or_else(|| GOP_CONTROLS.iter().find_map(|name| control(name)));
    let gop = gop.and_then(|gop| u32::try_from(gop).ok()).filter(|gop| *gop > 0);
    let headers = if facts.properties.contains_key("insert-sps-pps") {
        values.get("insert-sps-pps") == Some(&Set::Bool(true))
    } else if facts.properties.contains_key("extra-controls") {
        control("repeat_sequence_header").is_none_or(|on| on != 0)
    } else {
        true
    };
    let side = |name: &str| number(name).and_then(|side| u32::try_from(side).ok()).filter(|side| *side > 0);
    let turn = TURNS.iter().find_map(|name| match values.get(*name)? {
        Set::Text(text) => turn(text),
        Set::Bool(_) | Set::Number(_) | Set::Real(_) | Set::Structure(_) => None,
    });
    Settings { bits, gop, headers, size: side("width").zip(side("height")), turn }
}

fn as_number(value: &Set) -> Option<i64> {
    match value {
        Set::Number(number) => Some(*number),
        Set::Real(number) => Some(*number as i64),
        Set::Text(text) => text.parse().ok(),
        Set::Bool(_) | Set::Structure(_) => None,
    }
}
