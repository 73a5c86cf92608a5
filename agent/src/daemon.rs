//! The owner: one loop that has the state and to which everything else sends.
//!
//! ```text
//!  signals  broker: state, control, offers   lanes   disk   probe   time
//!     └────────┴──────────┬──────────────────┴────────┴───────┴──────┘
//!                     next_event ─▶ handle ─▶ Node (pure) ─▶ actions ─▶ outbox, broker, lanes
//! ```
//!
//! Readiness is told to the service manager after the first attempt to connect, whatever its outcome: a board without
//! a network has started as well as it can. The watchdog is fed by this loop alone, so a stuck loop is noticed.

mod asked;
mod ending;
mod events;
mod hardware;
mod lanes;
mod messages;
mod probing;
mod start;
mod updating;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_protocol::message::{EventKind, Limits, NodeState, Offer, Status};
use headwater_protocol::topic::Channel;
use headwater_protocol::worker::Avoid;
use headwater_protocol::{Code, Fault, ProbeReport};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinHandle, JoinSet};
use tokio::time::sleep_until;

use crate::clock::{self, Stamp};
use crate::config::Config;
use crate::exit::Exit;
use crate::identity::Node as NodeIdentity;
use crate::lane::{self, Job, Report, Shop};
use crate::mqtt::{Control, Extras, Inbox, Publisher};
use crate::node::{Action, AttemptId, Event, LaneId, Node, Standing, Stop};
use crate::outbox::{Outbox, OutboxError, Store};
use crate::quarantine::Quarantine;
use crate::{drained, probe};
use asked::Configuring;
pub(crate) use start::{Setup, run};
use updating::{Told, Updating};

/// Commands for the service manager's watchdog, and a look at what is not urgent, at least so often.
const PULSE: Duration = Duration::from_secs(10);
/// At the end: for the lanes to end their workers, for the last events to be stored and sent, for the goodbye.
const CLOSING: Duration = Duration::from_secs(4);
/// After the disk refused a write.
const DISK_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error("the identity cannot be used: {0}; enrol again with --force")]
    Identity(#[from] native_tls::Error),
    #[error("the identity cannot be used for HTTPS: {0}; enrol again with --force")]
    Https(#[from] reqwest::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error("no randomness: {0}")]
    Random(#[from] openssl::error::ErrorStack),
}

/// The store comes back with what it wrote: the last number and the file's size.
type Written = (Store, Result<(u64, u64), std::io::Error>);

/// Everything that can happen.
enum Happening {
    Signal(&'static str),
    State,
    /// The session's task is gone, which it never is while the daemon runs.
    Deaf,
    Control(Control),
    Offer(Box<Offer>),
    Overflow(AttemptId),
    Lane(Report),
    LaneEnded(Result<(task::Id, ()), JoinError>),
    Written(Result<Written, JoinError>),
    Told(Told),
    Probed(Result<Result<ProbeReport, probe::ProbeError>, JoinError>),
    Telemetry,
    Time,
}

/// What a log line about an attempt says.
#[derive(Debug, Clone)]
struct Running {
    span: tracing::Span,
    stop: watch::Sender<Option<Stop>>,
}

struct Daemon {
    config: Config,
    identity: NodeIdentity,
    stamp: Arc<Stamp>,
    worker: PathBuf,
    node: Node,
    shop: Arc<Shop>,
    limits: Limits,
    quarantine: Quarantine,
    /// What workers must plan without, for the lanes.
    avoid: watch::Sender<Arc<[Avoid]>>,
    outbox: Outbox,
    /// None while a write is on its way.
    store: Option<Store>,
    writing: Option<JoinHandle<Written>>,
    disk_pause: Option<Instant>,
    inbox: Inbox,
    publisher: Option<Publisher>,
    probing: Option<JoinHandle<Result<ProbeReport, probe::ProbeError>>>,
    /// After a probe that failed.
    probe_due: Option<Instant>,
    /// Commands that wait for the probe.
    probe_replies: Vec<String>,
    report: Option<ProbeReport>,
    lanes: JoinSet<()>,
    lane_ids: HashMap<task::Id, LaneId>,
    jobs: BTreeMap<LaneId, mpsc::Sender<Job>>,
    running: HashMap<AttemptId, Running>,
    reports: mpsc::Sender<Report>,
    reports_out: mpsc::Receiver<Report>,
    updating: Updating,
    configuring: Configuring,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    terminate: Signal,
    interrupt: Signal,
    telemetry_due: Instant,
    pulse_due: Instant,
    pulse: Duration,
    ready: bool,
    started: Instant,
    exit: Option<Exit>,
}

fn encode(message: &impl serde::Serialize) -> Vec<u8> {
    // Plain structs with text keys: nothing in them can fail to be written as JSON.
    serde_json::to_vec(message).unwrap_or_default()
}

fn status(stamp: &Stamp, state: NodeState) -> Status {
    Status { header: stamp.header(), state, extra: serde_json::Map::new() }
}

fn notify(state: sd_notify::NotifyState<'_>) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[state]);
}

impl Daemon {
    /// What an operator said to an earlier life, and the attempts that it accepted and did not end.
    fn settle_the_past(&mut self) -> Result<(), DaemonError> {
        if drained::load(&self.config.state_dir) {
            tracing::info!("drained by an operator; no work is taken until a resume");
            self.apply(Event::Drain)?;
        }
        for attempt in self.outbox.open_attempts() {
            let fault = Fault::new(Code::Interrupted, "the agent stopped during the attempt");
            tracing::warn!(task = %attempt.task, epoch = %attempt.epoch, node = %self.identity.node, "attempt was interrupted");
            self.record(&attempt, EventKind::Failed { fault })?;
        }
        self.flush()
    }

    async fn next(&mut self) -> Happening {
        let tick = self.node.next_tick();
        let wake = [tick, self.disk_pause, self.probe_due, self.configuring.deadline()]
            .into_iter()
            .flatten()
            .fold(self.pulse_due, Instant::min);
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Happening::Signal("SIGTERM"),
            _ = self.interrupt.recv() => Happening::Signal("SIGINT"),
            changed = self.inbox.state.changed() => {
                if changed.is_ok() { Happening::State } else { Happening::Deaf }
            }
            Some(control) = self.inbox.control.recv() => Happening::Control(control),
            written = join(&mut self.writing) => Happening::Written(written),
            // What a lane said comes before its end.
            Some(report) = self.reports_out.recv() => Happening::Lane(report),
            Some(ended) = self.lanes.join_next_with_id() => Happening::LaneEnded(ended),
            Some(offer) = self.inbox.offers.recv() => Happening::Offer(offer),
            Some(attempt) = self.inbox.overflow.recv() => Happening::Overflow(attempt),
            Some(told) = self.told.recv() => Happening::Told(told),
            probed = join(&mut self.probing) => Happening::Probed(probed),
            () = sleep_until(self.telemetry_due.into()) => Happening::Telemetry,
            () = sleep_until(wake.into()) => Happening::Time,
        }
    }

    fn handle(&mut self, happening: Happening) -> Result<(), DaemonError> {
        let event = match happening {
            Happening::Signal(name) => {
                tracing::info!(signal = name, "stopping; a second signal ends it at once");
                notify(sd_notify::NotifyState::Stopping);
                let grace = Duration::from_secs(self.config.deadlines.drain_seconds);
                Event::Stop { exit: Exit::Ok, grace }
            }
            Happening::State => {
                self.connection();
                Event::Tick
            }
            Happening::Deaf => {
                tracing::error!("the session with the broker has failed in itself; starting anew");
                self.exit = Some(Exit::Internal);
                return Ok(());
            }
            Happening::Control(Control::Revoke(revoke)) => {
                Event::Revoke(AttemptId { task: revoke.task, epoch: revoke.epoch })
            }
            Happening::Control(Control::Ack(ack)) => {
                self.outbox.ack(&ack.number)?;
                Event::Tick
            }
            Happening::Control(Control::Command(command)) => self.command(command)?,
            Happening::Control(Control::Config(desired)) => {
                self.desired(*desired)?;
                Event::Tick
            }
            Happening::Control(Control::Room) => Event::Tick,
            Happening::Offer(offer) => {
                let outbox_full = self.outbox.is_full();
                self.prepare(&offer);
                let standing = Standing {
                    outbox_full,
                    probing: self.probe_needs_the_board(),
                    held: self.shop.sessions.held(),
                };
                Event::Offer { offer, clock: clock::now(), standing }
            }
            Happening::Overflow(attempt) => Event::Overflow(attempt),
            Happening::Lane(Report::Hardware { elements, task, trouble }) => {
                self.hardware(&elements, task.as_ref(), trouble)
            }
            Happening::Lane(report) => Event::Lane(report),
            Happening::LaneEnded(ended) => self.lane_ended(ended),
            Happening::Written(result) => {
                self.written(result)?;
                Event::Tick
            }
            Happening::Told(told) => self.told(told)?,
            Happening::Probed(result) => self.probe_ended(result),
            Happening::Telemetry => {
                self.telemetry_due =
                    Instant::now() + Duration::from_secs(self.config.telemetry.interval_seconds);
                self.telemetry();
                Event::Tick
            }
            Happening::Time => {
                let now = Instant::now();
                if self.pulse_due <= now {
                    self.pulse_due = now + self.pulse;
                    notify(sd_notify::NotifyState::Watchdog);
                }
                if self.disk_pause.is_some_and(|pause| pause <= now) {
                    self.disk_pause = None;
                }
                if self.probe_due.is_some_and(|due| due <= now) {
                    self.start_probe(true);
                }
                Event::Tick
            }
        };
        self.apply(event)
    }

    fn apply(&mut self, event: Event) -> Result<(), DaemonError> {
        for action in self.node.handle(Instant::now(), event) {
            match action {
                Action::Record(attempt, kind) => self.record(&attempt, kind)?,
                Action::Beat(attempt, kind) => {
                    let message = self.event(&attempt, kind);
                    self.send(Channel::Event, &message, Extras::default());
                }
                Action::OpenLane { lane, stream } => {
                    // What admission allows at once, and as many in the middle of ending.
                    let most = self.limits.queue + 2 * self.limits.in_flight;
                    let (sender, jobs) = mpsc::channel(most as usize);
                    let run = lane::run(lane, stream, self.shop.clone(), jobs, self.reports.clone());
                    self.lane_ids.insert(self.lanes.spawn(run).id(), lane);
                    self.jobs.insert(lane, sender);
                }
                Action::Run { lane, offer } => self.start(lane, offer),
                Action::Stop(attempt, stop) => {
                    if let Some(running) = self.running.remove(&attempt) {
                        running.stop.send_replace(Some(stop));
                    }
                }
                Action::CloseLane(lane) => {
                    self.jobs.remove(&lane);
                    self.shop.sessions.ending(lane);
                }
                Action::Publish(state) => self.publish_status(state),
                Action::Exit(exit) => self.exit = Some(exit),
            }
        }
        Ok(())
    }
}

/// Waits for a task where there is one.
async fn join<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
