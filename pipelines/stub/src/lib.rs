//! **Not the hardware.** A GStreamer plugin for tests: elements with the vendors' names, properties, ranges, defaults
//! and kinds of memory, as a snapshot of a machine has them, around software codecs. It proves that a pipeline is
//! built, negotiated, fed, drained, recycled and watched over as it would be on that board, and that numbers arrive
//! in the vendor's units. It proves nothing about drivers, speed, picture quality or real zero copy.
//!
//! | environment | what |
//! |---|---|
//! | `HEADWATER_STUB_MACHINE` | path of the snapshot, [`headwater_pipelines::machine::Machine`] as JSON; without it the plugin has no elements |
//! | `HEADWATER_STUB_FAULTS` | `element:fault,…`, see [`fault::Fault`] |
//! | `HEADWATER_STUB_HANG` | set: whoever loads the plugin hangs, but for GStreamer's scanner |
//! | `HEADWATER_STUB_TRACE` | a file to which each element adds a line when it has seen caps, and when it stops |
//!
//! ```text
//! decoder  sink ─ entry ─ avdec_* ─ videoconvert ─ relabel ─ src      codec chosen by the caps that come
//! scaler   sink ─ relabel ─ videoconvert ─ videoscale ─ videoflip ─ relabel ─ src
//! split    sink ─ relabel ─ tee ─┬ videoconvert ─ videoscale ─ relabel ─ src_0 …
//! encoder  sink ─ relabel ─ videoconvert ─ videoscale ─ x264enc … ─ src
//! ```
//!
//! `relabel` passes buffers on and changes the memory feature in their caps: who does not know a vendor's memory
//! cannot negotiate with these elements, as on the board. An enumeration is a text property that takes its nicks.

pub mod fault;
mod inner;
mod kind;
mod params;
mod relabel;
mod slot;
mod spec;
mod trace;

use gstreamer as gst;
use gstreamer::glib;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // A test sets other elements by the environment, so the registry must not remember these.
    plugin.add_dependency_simple(
        Some("HEADWATER_STUB_MACHINE:HEADWATER_STUB_FAULTS"),
        None,
        None,
        gst::PluginDependencyFlags::empty(),
    );
    let scanner = std::env::current_exe().is_ok_and(|path| path.ends_with("gst-plugin-scanner"));
    while std::env::var_os("HEADWATER_STUB_HANG").is_some() && !scanner {
        std::thread::park();
    }
    let specs = spec::read().map_err(|error| glib::bool_error!("{error}"))?;
    slot::register(plugin, specs)
}

#[allow(unsafe_code, reason = "the table and function that GStreamer looks for in a plugin")]
mod entry {
    use super::plugin_init;

    gstreamer::plugin_define!(
        headwater_stub,
        "Stand-ins for boards' codecs, for tests",
        plugin_init,
        "0.1.0",
        "MIT/X11",
        "headwater",
        "headwater",
        "headwater"
    );
}
