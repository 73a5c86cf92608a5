//! Wall-clock time with its source, and the header that starts each message.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_protocol::message::{Header, TimeSource};
use headwater_protocol::{Millis, VERSION};
use nix::time::ClockId;

/// Created by systemd-timesyncd after its first good answer. `adjtimex` would tell more, but has no safe wrapper.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// The kernel does not know by itself how far atomic time is ahead; chrony and the daemons for PTP tell it once they
/// have the time.
fn knows_atomic_time() -> bool {
    let read = |clock: ClockId| clock.now().map(Duration::from);
    match (read(ClockId::CLOCK_TAI), read(ClockId::CLOCK_REALTIME)) {
        // 37 s since 2017; between the two readings far less than a second passes.
        (Ok(atomic), Ok(wall)) => atomic > wall + Duration::from_secs(1),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

pub(crate) fn now() -> (Millis, TimeSource) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let built_s: u64 = env!("HEADWATER_BUILT_S").parse().unwrap_or(0);
    let source = if since.as_secs() < built_s {
        TimeSource::Unsynced
    } else if Path::new(SYNCHRONIZED).exists() || knows_atomic_time() {
        TimeSource::Ntp
    } else {
        TimeSource::Rtc
    };
    (Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)), source)
}

/// Stamps messages: boot id and a counter that starts with the program.
#[derive(Debug)]
pub(crate) struct Stamp {
    boot_id: String,
    seq: AtomicU64,
}

impl Stamp {
    pub(crate) fn new(boot_id: String) -> Self {
        Self { boot_id, seq: AtomicU64::new(0) }
    }

    pub(crate) fn header(&self) -> Header {
        let (ts, ts_src) = now();
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        Header { v: VERSION, ts, ts_src, boot_id: self.boot_id.clone(), seq }
    }
}
