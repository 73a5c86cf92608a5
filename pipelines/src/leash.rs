//! Ends the process where a driver does not let go of its chain: a flush and a change of state take as long as the
//! driver likes, and nobody else looks on while a segment is wound up.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::exit::Exit;

/// While it is there, its time runs.
pub(crate) struct Leash {
    _held: Sender<()>,
}

impl Leash {
    /// None where no thread could be started; then whoever started the process watches alone.
    pub(crate) fn new(patience: Duration) -> Option<Self> {
        let (held, gone) = channel::<()>();
        let watch = move || match gone.recv_timeout(patience) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!("an element did not stop within {} s", patience.as_secs());
                Exit::Hung.now()
            }
        };
        std::thread::Builder::new().name("leash".into()).spawn(watch).ok()?;
        Some(Self { _held: held })
    }
}
