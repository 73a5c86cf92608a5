//! One chain by itself, fed to its end by the caller's thread: for what is measured part by part.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use gstreamer as gst;

use headwater_protocol::{Code, Fault};

use crate::graph::{Chain, Faults, Taker};
use crate::log;

/// Longest wait for what a chain still holds after its last input.
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls a closure for each sample.
pub(crate) struct Each<F> {
    each: F,
    done: SyncSender<()>,
}

impl<F> Taker for Each<F>
where
    F: FnMut(gst::Sample) -> Result<(), gst::FlowError> + Send + 'static,
{
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError> {
        (self.each)(sample)
    }

    fn end(&mut self) {
        // The other side gives up only after its patience, and then nobody counts on the end.
        let _ = self.done.send(());
    }
}

/// Feeds a chain, ends it and waits for its end; `each` gets what comes out.
pub(crate) fn drive<F>(
    faults: &Faults,
    each: F,
    build: impl FnOnce(Each<F>) -> Result<Chain, Fault>,
    feed: impl FnOnce(&Chain) -> Result<(), gst::FlowError>,
) -> Result<(), Fault> {
    let (done, ended) = sync_channel(1);
    let chain = build(Each { each, done })?;
    let fed = feed(&chain);
    chain.end();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(fault) = faults.first() {
            return Err(fault);
        }
        if ended.recv_timeout(Duration::from_millis(20)).is_ok() {
            break;
        }
        if Instant::now() > deadline {
            let text = format!("a chain did not come to its end in {} s", PATIENCE.as_secs());
            return Err(Fault::new(Code::WorkerHung, text).with_detail(log::tail()));
        }
    }
    fed.map_err(|flow| Fault::new(Code::PipelineFailed, format!("a chain refused its input: {flow}")))
}
