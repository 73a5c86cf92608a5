//! What an element is told to do wrong.

use std::collections::BTreeMap;

/// One way in which a device fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Takes so many milliseconds for each frame.
    Slow(u64),
    /// Takes everything, gives nothing, and comes to its end: a board without the block, whose driver says nothing.
    NoOutput,
    /// Cannot open its device: a board without the block, whose driver says so.
    NoDevice,
    /// Gives what it has and never comes to its end.
    HangOnDrain,
    /// Does not return when it is stopped.
    HangOnStop,
    /// Does not return from its n-th frame.
    Hang(u64),
    /// The n-th session at the same time in one process is refused for lack of memory.
    Busy(u64),
    /// A keyframe that is asked for does not come: they come by the element's own count of its GOP, which goes on over
    /// a flush.
    IgnoreKeyframe,
    /// Ends the process at its n-th frame.
    Crash(u64),
    /// Its n-th frame goes out without a time.
    NoTime(u64),
    /// Frames without bytes, as Rockchip's encoder gives after an error of its device.
    EmptyBuffers,
    /// Writes megabytes to standard output and standard error.
    Flood,
}

/// `element:fault,…`; a fault with a number is written `crash@30`.
pub fn parse(text: &str) -> Result<BTreeMap<String, Fault>, String> {
    let one = |entry: &str| {
        let (element, fault) =
            entry.split_once(':').ok_or_else(|| format!("{entry:?} is not element:fault"))?;
        let (name, number) = match fault.split_once('@') {
            Some((name, number)) => (name, number.parse().map_err(|_| format!("{number:?} is no number"))?),
            None => (fault, 1),
        };
        let fault = match name {
            "no-output" => Fault::NoOutput,
            "no-device" => Fault::NoDevice,
            "hang-on-drain" => Fault::HangOnDrain,
            "hang-on-stop" => Fault::HangOnStop,
            "slow" => Fault::Slow(number),
            "hang" => Fault::Hang(number),
            "busy" => Fault::Busy(number),
            "ignore-keyframe" => Fault::IgnoreKeyframe,
            "crash" => Fault::Crash(number),
            "no-time" => Fault::NoTime(number),
            "empty-buffers" => Fault::EmptyBuffers,
            "flood" => Fault::Flood,
            other => return Err(format!("{other:?} is no fault")),
        };
        Ok((element.to_owned(), fault))
    };
    text.split(',').filter(|entry| !entry.is_empty()).map(one).collect()
}

/// The fault of `element`, by the environment.
pub(crate) fn of(element: &str) -> Option<Fault> {
    let text = std::env::var("HEADWATER_STUB_FAULTS").unwrap_or_default();
    match parse(&text) {
        Ok(faults) => faults.get(element).copied(),
        Err(error) => {
            // A test that asks for a fault that does not exist must not pass by its absence.
            eprintln!("HEADWATER_STUB_FAULTS: {error}");
            std::process::abort()
        }
    }
}
