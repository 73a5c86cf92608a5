//! A stream's lane: its worker and its segments, one after the other, the next one's input on its way already.
//!
//! ```text
//! owner ──jobs──▶ prefetch ──one ahead──▶ run: worker, uploads ──reports──▶ owner
//! ```
//!
//! The lane does not decide anything about attempts; it does as told and says how it went. Its only own decisions
//! are deadlines on silence, and when a worker has served long enough.

mod segment;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::message::Offer;
use headwater_protocol::{Fault, SegmentReport, StreamId};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use self::segment::{End, Run, stopped};
use crate::media::{Fetch, Media};
use crate::node::{AttemptId, LaneId, Stop};
use crate::worker::Worker;

/// What all lanes share.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) worker: PathBuf,
    pub(crate) media: Media,
    pub(crate) start: Duration,
    pub(crate) silence: Duration,
    pub(crate) max_segments: u64,
    pub(crate) max_memory: u64,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) offer: Box<Offer>,
    pub(crate) stop: watch::Receiver<Option<Stop>>,
    pub(crate) span: tracing::Span,
}

/// What a lane says to the owner.
#[derive(Debug)]
pub(crate) enum Report {
    Progress {
        attempt: AttemptId,
        decoded: u64,
        encoded: u64,
    },
    Ended {
        lane: LaneId,
        attempt: AttemptId,
        result: Result<Box<SegmentReport>, Fault>,
        segments: u64,
        memory: u64,
    },
}

/// Runs until `jobs` is closed; then closes its worker.
pub(crate) async fn run(
    id: LaneId,
    stream: StreamId,
    shop: Arc<Shop>,
    jobs: mpsc::Receiver<Job>,
    reports: mpsc::Sender<Report>,
) {
    // One ahead: while a segment runs, the next one's bytes may come. Full: further segments wait unfetched.
    let (ahead, mut ready) = mpsc::channel(1);
    let prefetcher = tokio::spawn(prefetch(jobs, ahead, shop.media.clone()));
    let mut lane = Lane { id, stream, shop, worker: None, spoilt: None, reports, tag: 0 };
    let mut segments = 0;
    while let Some((job, fetch)) = ready.recv().await {
        let span = job.span.clone();
        segments += 1;
        lane.job(job, fetch, segments).instrument(span).await;
    }
    prefetcher.abort();
    if let Some(worker) = lane.worker.take() {
        worker.close().await;
    }
}

async fn prefetch(mut jobs: mpsc::Receiver<Job>, ahead: mpsc::Sender<(Job, Fetch)>, media: Media) {
    // The place first, the fetch second: at most one segment is fetched before its turn.
    while let Ok(place) = ahead.reserve().await {
        let Some(job) = jobs.recv().await else { return };
        let fetch = media.fetch(&job.offer.input);
        place.send((job, fetch));
    }
}

struct Lane {
    id: LaneId,
    stream: StreamId,
    shop: Arc<Shop>,
    worker: Option<Worker>,
    /// A worker that has failed is not trusted with the next segment. Killed before that, after the answer.
    spoilt: Option<Worker>,
    reports: mpsc::Sender<Report>,
    tag: u16,
}

impl Lane {
    async fn job(&mut self, job: Job, fetch: Fetch, segments: u64) {
        let attempt = AttemptId::of(&job.offer);
        let result = self.attempt(job, fetch).await;
        let memory = self.worker.as_ref().map_or(0, Worker::memory);
        let ended = Report::Ended { lane: self.id, attempt, result, segments, memory };
        // The answer first: what follows here is not the caller's to wait for. The owner may be gone when the daemon ends.
        let _ = self.reports.send(ended).await;
        if let Some(worker) = self.spoilt.take() {
            worker.kill().await;
        }
        let worn =
            |worker: &mut Worker| worker.segments >= self.shop.max_segments || memory > self.shop.max_memory;
        if let Some(worker) = self.worker.take_if(worn) {
            tracing::info!(segments = worker.segments, memory, "worker has served its time");
            worker.close().await;
        }
    }

    async fn attempt(&mut self, job: Job, fetch: Fetch) -> Result<Box<SegmentReport>, Fault> {
        let Job { offer, mut stop, span: _ } = job;
        let other_ladder = |worker: &mut Worker| worker.ladder != offer.ladder;
        if let Some(worker) = self.worker.take_if(other_ladder) {
            worker.close().await;
        }
        let shop = self.shop.clone();
        let mut kill = stop.clone();
        let mut worker = tokio::select! {
            biased;
            // A worker that is not ready yet is not worth waiting for: it ends with the future that starts it.
            _ = told(&mut stop) => return Err(stopped()),
            worker = async {
                match self.worker.take() {
                    Some(worker) => Ok(worker),
                    None => Worker::start(&shop.worker, &self.stream, &offer.ladder, shop.start).await,
                }
            } => worker?,
        };
        self.tag = self.tag.wrapping_add(1);
        let run = Run {
            tag: self.tag,
            offer: &offer,
            shop: &shop,
            reports: &self.reports,
            uploads: offer.outputs.iter().map(|_| None).collect(),
        };
        let end = tokio::select! {
            end = run.run(&mut worker, fetch, &mut stop) => end,
            // Wherever it is: in the middle of a frame, or waiting for the gateway.
            () = told_to_kill(&mut kill) => End::Failed { fault: stopped(), keep: false },
        };
        worker.segments += 1;
        match end {
            End::Done(report) => {
                self.worker = Some(worker);
                Ok(report)
            }
            End::Failed { fault, keep } => {
                if keep {
                    self.worker = Some(worker);
                } else {
                    self.spoilt = Some(worker);
                }
                Err(fault)
            }
        }
    }
}

/// Waits until the attempt must stop.
async fn told(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    loop {
        if let Some(stop) = *stop.borrow_and_update() {
            return stop;
        }
        if stop.changed().await.is_err() {
            // The owner has forgotten the attempt without a word: there is nobody left to stop it.
            std::future::pending::<()>().await;
        }
    }
}

async fn told_to_kill(stop: &mut watch::Receiver<Option<Stop>>) {
    while told(stop).await != Stop::Kill {
        if stop.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
