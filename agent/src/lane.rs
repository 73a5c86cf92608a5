//! A stream's lane: its workers and its segments, some at once, the next one's input on its way already.
//!
//! ```text
//!                                      ┌─▶ place: worker, uploads ─┐
//! owner ──jobs──▶ prefetch ──one ahead─┼─▶ place: worker, uploads ─┼─reports──▶ owner
//!                                      └─▶ …                       ┘
//! ```
//!
//! Each place has a worker process of its own, started when all earlier places are taken. So segments share no
//! socket on which one could hold up the other, no log and no codec, and one that crashes, hangs or is cancelled
//! costs itself alone. They end in any order.
//!
//! The lane does not decide anything about attempts; it does as told and says how it went. Its only own decisions
//! are deadlines on silence, and when a worker has served long enough.

mod segment;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use headwater_protocol::message::Offer;
use headwater_protocol::worker::Avoid;
use headwater_protocol::{Class, Code, Evidence, Fault, Ladder, SegmentReport, StreamId, TaskId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use self::segment::{End, Run, stopped};
use crate::media::{Fetch, Media};
use crate::node::{AttemptId, LaneId, Stop};
use crate::quarantine::Trouble;
use crate::sessions::Sessions;
use crate::spare::Spare;
use crate::worker::{Fate, Worker};

/// What all lanes share.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) media: Media,
    pub(crate) spare: Spare,
    pub(crate) sessions: Arc<Sessions>,
    /// What workers must plan without.
    pub(crate) avoid: watch::Receiver<Arc<[Avoid]>>,
    /// Segments of one stream at once.
    pub(crate) in_flight: u32,
    /// A worker that waits longer than this while others of its lane work is not needed.
    pub(crate) idle: Duration,
    pub(crate) start: Duration,
    pub(crate) silence: Duration,
    pub(crate) life: Life,
}

/// How long a worker may serve. Drivers and libraries leak; a fresh process has none of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) segments: u64,
    pub(crate) memory: u64,
    pub(crate) age: Duration,
}

impl Life {
    fn is_over(&self, segments: u64, memory: u64, age: Duration) -> bool {
        segments >= self.segments || memory > self.memory || age >= self.age
    }
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
        /// Of all the lane's workers.
        memory: u64,
    },
    /// How a worker fared with the devices it used; never said of software.
    Hardware {
        elements: BTreeSet<String>,
        task: Option<TaskId>,
        /// None: it did a segment.
        trouble: Option<Trouble>,
    },
}

/// Runs until `jobs` is closed; then closes its workers.
pub(crate) async fn run(
    id: LaneId,
    stream: StreamId,
    shop: Arc<Shop>,
    jobs: mpsc::Receiver<Job>,
    reports: mpsc::Sender<Report>,
) {
    // One ahead: while segments run, the next one's bytes may come. Full: further segments wait unfetched.
    let (ahead, mut ready) = mpsc::channel(1);
    let prefetcher = tokio::spawn(prefetch(jobs, ahead, shop.media.clone()));
    let mut free: Vec<Place> = (0..shop.in_flight as usize).map(Place::new).collect();
    let memory = free.iter().map(|_| AtomicU64::new(0)).collect();
    let crew = Arc::new(Crew { id, stream, shop, reports, memory });
    // At most one task for each place.
    let mut running = JoinSet::new();
    let mut open = true;
    let mut next: Option<(Job, Fetch)> = None;
    while open || next.is_some() || !running.is_empty() {
        let may_start = |job: &mut (Job, Fetch)| {
            let ladder = &job.0.offer.ladder;
            // Where the board runs no more at once, the segments of a stream follow each other.
            let has_worker = free.iter().any(|place| place.is_for(ladder));
            !free.is_empty() && (running.is_empty() || has_worker || crew.shop.sessions.have_room(ladder))
        };
        if let Some((job, fetch)) = next.take_if(may_start) {
            let span = job.span.clone();
            let place = choose(&mut free, &job.offer.ladder);
            for misfit in misfits(&mut free, &job.offer.ladder) {
                running.spawn(crew.clone().retire(misfit));
            }
            running.spawn(crew.clone().segment(place, job, fetch).instrument(span));
        }
        tokio::select! {
            job = ready.recv(), if open && next.is_none() && !free.is_empty() => {
                open = job.is_some();
                next = job;
            }
            () = sleep_until(idle_until(&free, crew.shop.idle)), if free.iter().any(Place::is_warm) => {
                // The one at the front has waited longest.
                if let Some(at) = free.iter().position(Place::is_warm) {
                    running.spawn(crew.clone().retire(free.remove(at)));
                }
            }
            Some(ended) = running.join_next() => match ended {
                Ok(place) => free.push(Place { idle_since: Instant::now(), ..place }),
                // A panic is the lane's: its attempts end with it. Nothing else stops these tasks.
                Err(error) => if let Ok(panic) = error.try_into_panic() { std::panic::resume_unwind(panic) },
            },
        }
    }
    prefetcher.abort();
    let workers = free.into_iter().filter_map(|place| place.worker);
    futures_util::future::join_all(workers.map(|worker| crew.close(worker))).await;
}

async fn prefetch(mut jobs: mpsc::Receiver<Job>, ahead: mpsc::Sender<(Job, Fetch)>, media: Media) {
    // The place first, the fetch second: at most one segment is fetched before its turn.
    while let Ok(place) = ahead.reserve().await {
        let Some(job) = jobs.recv().await else { return };
        let fetch = media.fetch(&job.offer.input);
        place.send((job, fetch));
    }
}

/// Where one segment at a time is done.
struct Place {
    number: usize,
    /// Warm from an earlier segment.
    worker: Option<Worker>,
    idle_since: Instant,
}

impl Place {
    fn new(number: usize) -> Self {
        Self { number, worker: None, idle_since: Instant::now() }
    }

    fn is_warm(&self) -> bool {
        self.worker.is_some()
    }

    fn is_for(&self, ladder: &Ladder) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.ladder == *ladder)
    }
}

/// The place whose warm worker waits the shortest, best one with this ladder: a stream that has no two segments at
/// once any more leaves the others idle.
fn choose(free: &mut Vec<Place>, ladder: &Ladder) -> Place {
    let fit = free.iter().rposition(|place| place.is_for(ladder));
    let warm = fit.or_else(|| free.iter().rposition(Place::is_warm));
    free.remove(warm.unwrap_or(0))
}

/// Places whose workers have another ladder, to be retired: a new worker waits for their sessions from now on.
fn misfits(free: &mut Vec<Place>, ladder: &Ladder) -> Vec<Place> {
    let misfits: Vec<Place> = free.extract_if(.., |place| place.is_warm() && !place.is_for(ladder)).collect();
    misfits.iter().filter_map(|place| place.worker.as_ref()).for_each(|worker| worker.grant.ending());
    misfits
}

/// When the worker that waits longest has waited too long; now, where none waits.
fn idle_until(free: &[Place], idle: Duration) -> Instant {
    let longest = free.iter().find(|place| place.is_warm());
    longest.map_or_else(Instant::now, |place| place.idle_since + idle)
}

/// How an attempt went, and the worker that is not trusted with another one.
struct Outcome {
    result: Result<Box<SegmentReport>, Fault>,
    spoilt: Option<Worker>,
}

impl Outcome {
    fn failed(fault: Fault, spoilt: Option<Worker>) -> Self {
        Self { result: Err(fault), spoilt }
    }
}

/// What a lane's places share.
struct Crew {
    id: LaneId,
    stream: StreamId,
    shop: Arc<Shop>,
    reports: mpsc::Sender<Report>,
    /// Of each place's worker, after its last segment.
    memory: Vec<AtomicU64>,
}

impl Crew {
    async fn segment(self: Arc<Self>, mut place: Place, job: Job, fetch: Fetch) -> Place {
        let attempt = AttemptId::of(&job.offer);
        let evidence_path = job.offer.evidence.clone();
        let Outcome { result, mut spoilt } = self.attempt(&mut place.worker, job, fetch).await;
        let memory = place.worker.as_ref().map_or(0, Worker::memory);
        self.memory[place.number].store(memory, Relaxed);
        let worn = |worker: &mut Worker| self.shop.life.is_over(worker.segments, memory, worker.age());
        let mut worn = place.worker.take_if(worn);
        // Before the answer: the next segment comes with it and waits for what these have.
        spoilt.iter().chain(&worn).for_each(|worker| worker.grant.ending());
        let fault = result.as_ref().err().cloned();
        let ended = Report::Ended {
            lane: self.id,
            attempt: attempt.clone(),
            result,
            memory: self.memory.iter().map(|memory| memory.load(Relaxed)).sum(),
        };
        // The answer first: what follows here is not the caller's to wait for. The owner may be gone when the daemon ends.
        let _ = self.reports.send(ended).await;
        let evidence = fault
            .as_ref()
            .and_then(|fault| evidence(fault, spoilt.as_mut().or(worn.as_mut()).or(place.worker.as_mut())));
        let told = async {
            if let (Some(evidence), Some(path)) = (evidence, evidence_path) {
                self.shop.media.evidence(&path, &evidence).await;
            }
        };
        if fault.is_none()
            && let Some(worker) = worn.as_ref().or(place.worker.as_ref())
        {
            self.hardware(&worker.notes.hardware, Some(attempt.task.clone()), None).await;
        }
        let served = async {
            if let Some(worker) = worn {
                let minutes = worker.age().as_secs() / 60;
                tracing::info!(segments = worker.segments, memory, minutes, "worker has served its time");
                self.close(worker).await;
                self.memory[place.number].store(0, Relaxed);
            }
        };
        tokio::join!(told, self.part(spoilt, fault.as_ref(), &attempt.task), served);
        self.shop.spare.prepare();
        place
    }

    /// Ends a worker that is not needed.
    async fn retire(self: Arc<Self>, mut place: Place) -> Place {
        self.memory[place.number].store(0, Relaxed);
        if let Some(worker) = place.worker.take() {
            self.close(worker).await;
        }
        place
    }

    async fn attempt(&self, kept: &mut Option<Worker>, job: Job, fetch: Fetch) -> Outcome {
        let Job { offer, mut stop, span } = job;
        let shop = &*self.shop;
        if stop.borrow().is_some() {
            return Outcome::failed(stopped(), None);
        }
        let avoid = shop.avoid.borrow().clone();
        let unfit = |worker: &mut Worker| {
            worker.ladder != offer.ladder || worker.avoid != avoid || worker.grant.is_outdated()
        };
        // Before the next one starts, which wants the same devices.
        if let Some(mut worker) = kept.take_if(unfit) {
            match unless(told(&mut stop), worker.close()).await {
                Some(fate) => self.closed(&worker, fate).await,
                // It is ended after the answer.
                None => return Outcome::failed(stopped(), Some(worker)),
            }
        }
        let mut kill = stop.clone();
        let mut worker = match kept.take() {
            Some(worker) => worker,
            None => {
                let grant = shop.sessions.take(self.id, &offer.ladder);
                let Some(grant) = unless(told(&mut stop), grant).await else {
                    return Outcome::failed(stopped(), None);
                };
                let process = match shop.spare.take() {
                    Ok(process) => process,
                    Err(error) => {
                        return Outcome::failed(Fault::new(Code::WorkerStart, error.to_string()), None);
                    }
                };
                let mut worker = Worker::new(process, &offer.ladder, avoid, grant);
                match unless(told(&mut stop), worker.open(&self.stream, shop.start)).await {
                    Some(Ok(())) => worker,
                    Some(Err(fault)) => return Outcome::failed(fault, Some(worker)),
                    // It is not worth waiting for, and may have devices already.
                    None => return Outcome::failed(stopped(), Some(worker)),
                }
            }
        };
        worker.works_on(span);
        worker.segments += 1;
        worker.notes.evidence = None;
        let run = Run {
            // Low bits tell a segment from the one before.
            tag: worker.segments as u16,
            offer: &offer,
            shop,
            reports: &self.reports,
            uploads: offer.outputs.iter().map(|_| None).collect(),
        };
        let end = tokio::select! {
            end = run.run(&mut worker, fetch, &mut stop) => end,
            // Wherever it is: in the middle of a frame, or waiting for the gateway.
            () = told_to_kill(&mut kill) => End::Failed { fault: stopped(), keep: false },
        };
        worker.works_on(tracing::Span::none());
        match end {
            End::Done(report) => {
                *kept = Some(worker);
                Outcome { result: Ok(report), spoilt: None }
            }
            End::Failed { fault, keep: true } => {
                *kept = Some(worker);
                Outcome::failed(fault, None)
            }
            End::Failed { fault, keep: false } => Outcome::failed(fault, Some(worker)),
        }
    }

    /// Ends a worker that has failed, and says what its devices did.
    async fn part(&self, spoilt: Option<Worker>, fault: Option<&Fault>, task: &TaskId) {
        let Some(mut worker) = spoilt else { return };
        let elements = worker.notes.hardware.clone();
        let trouble = match fault.map(|fault| fault.code) {
            Some(Code::WorkerHung | Code::WorkerStart) => Some(Trouble::Hung),
            Some(Code::WorkerCrashed) => Some(Trouble::Crashed),
            Some(_) | None => None,
        };
        if trouble.is_some() {
            self.hardware(&elements, Some(task.clone()), trouble).await;
        }
        if worker.kill().await == Fate::Stuck {
            self.stuck(&elements).await;
        }
    }

    async fn close(&self, mut worker: Worker) {
        let fate = worker.close().await;
        self.closed(&worker, fate).await;
    }

    async fn closed(&self, worker: &Worker, fate: Fate) {
        if fate == Fate::Stuck {
            self.stuck(&worker.notes.hardware).await;
        }
    }

    async fn stuck(&self, elements: &BTreeSet<String>) {
        tracing::error!(?elements, "a worker is still there after SIGKILL; it is left to the kernel");
        self.hardware(elements, None, Some(Trouble::Stuck)).await;
    }

    async fn hardware(&self, elements: &BTreeSet<String>, task: Option<TaskId>, trouble: Option<Trouble>) {
        if !elements.is_empty() {
            // Nobody needs to know when the daemon ends.
            let _ = self.reports.send(Report::Hardware { elements: elements.clone(), task, trouble }).await;
        }
    }
}

/// Does the work; None where `told` came first.
async fn unless<T>(told: impl Future<Output = Stop>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        _ = told => None,
        done = work => Some(done),
    }
}

/// What is worth keeping of a failure; nothing where it was not the worker's.
fn evidence(fault: &Fault, worker: Option<&mut Worker>) -> Option<Evidence> {
    let worker = worker?;
    let said = worker.notes.evidence.take();
    if said.is_none() && fault.code.class() != Class::Node {
        return None;
    }
    let said = said.unwrap_or_default();
    Some(Evidence { fault: Some(fault.clone()), output: worker.printed(), ..said }.bounded())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tests::offer;
    use crate::worker::Process;

    #[test]
    fn a_worker_is_replaced_by_count_by_memory_and_by_age() {
        let life = Life { segments: 10, memory: 100, age: Duration::from_secs(60) };
        let second = Duration::from_secs(1);
        assert!(!life.is_over(9, 100, 59 * second));
        assert!(
            life.is_over(10, 0, second) && life.is_over(1, 101, second) && life.is_over(1, 0, 60 * second)
        );
    }

    /// It never reads what it is told.
    fn deaf(ladder: &Ladder, grant: crate::sessions::Grant) -> Worker {
        Worker::new(Process::spawn(std::path::Path::new("/usr/bin/yes")).unwrap(), ladder, [].into(), grant)
    }

    #[tokio::test]
    async fn a_new_ladder_takes_a_worker_that_has_it_and_retires_all_that_do_not() {
        let (offer, sessions) = (offer("t1", "a"), Arc::new(Sessions::default()));
        let new = offer.ladder;
        let other = headwater_protocol::Rendition {
            width: headwater_protocol::Pixels(160),
            ..new.renditions()[0].clone()
        };
        let old = Ladder::new(vec![other]).unwrap();
        let mut free: Vec<Place> = (0..4).map(Place::new).collect();
        for (number, ladder) in [(1, &new), (2, &old), (3, &old)] {
            free[number].worker = Some(deaf(ladder, sessions.take(LaneId(1), ladder).await));
        }
        let chosen = choose(&mut free, &new);
        assert_eq!(chosen.number, 1);
        let misfits = misfits(&mut free, &new);
        assert_eq!(misfits.iter().map(|place| place.number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(free.iter().map(|place| place.number).collect::<Vec<_>>(), [0]);
        assert_eq!(sessions.held().workers(LaneId(1)), 1, "their sessions are waited for");
        for place in misfits.into_iter().chain([chosen]) {
            assert_eq!(place.worker.unwrap().kill().await, Fate::Gone);
        }
        assert_eq!(sessions.held().workers(LaneId(1)), 0);
    }

    #[tokio::test]
    async fn an_attempt_that_must_stop_does_not_wait_for_the_end_of_the_worker_before_its_own() {
        let offer = offer("t1", "a");
        let grant = Arc::new(Sessions::default()).take(LaneId(1), &offer.ladder).await;
        let mut worker = deaf(&offer.ladder, grant);
        let (tell, mut stop) = watch::channel(None);
        tell.send_replace(Some(Stop::Cancel));
        assert_eq!(unless(told(&mut stop), worker.close()).await, None);
        assert!(worker.is_alive(), "it was waited for");
        assert_eq!(worker.kill().await, Fate::Gone);
        assert!(!worker.is_alive());
    }
}
