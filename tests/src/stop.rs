//! Ctrl-C, a service manager's SIGTERM, a terminal that is closed. Listened to before anything is started: whatever
//! comes, and whenever, everything started here is ended here.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// As a shell reports a command that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

#[derive(Debug)]
pub struct Stop([Signal; 3]);

impl Stop {
    pub fn listen() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    pub async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    /// Ctrl-C on a terminal reaches our commands too, and their failure may be seen first.
    pub async fn was_asked(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(200), self.asked()).await.is_ok()
    }
}
