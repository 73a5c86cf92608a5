//! A word to the agent before an element with a device behind it is used first: a driver that hangs takes this
//! process with it, and nothing can be asked of it then.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

type Listener = Box<dyn Fn(&str) + Send + Sync>;

struct Watch {
    /// Elements with a device behind them, until they were told of.
    untold: Mutex<BTreeSet<String>>,
    listener: Listener,
}

/// One for the process, as GStreamer's registry is.
static WATCH: OnceLock<Watch> = OnceLock::new();

/// From now on `listener` hears of each of `elements` before it is made, once. Only the first call counts.
pub fn tell(elements: BTreeSet<String>, listener: impl Fn(&str) + Send + Sync + 'static) {
    let _ = WATCH.set(Watch { untold: Mutex::new(elements), listener: Box::new(listener) });
}

pub(crate) fn about_to_use(element: &str) {
    let Some(watch) = WATCH.get() else { return };
    if watch.untold.lock().unwrap_or_else(PoisonError::into_inner).remove(element) {
        (watch.listener)(element);
    }
}
