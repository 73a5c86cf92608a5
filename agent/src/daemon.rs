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

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_protocol::message::{
    Birth, Command, CommandKind, Event as EventMessage, EventKind, NodeState, Offer, Reply, Status, Telemetry,
};
use headwater_protocol::topic::Channel;
use headwater_protocol::{Code, Fault, Millis, ProbeReport};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{sleep_until, timeout};

use crate::clock::{self, Stamp};
use crate::config::Config;
use crate::exit::Exit;
use crate::identity::{Identity, Node as NodeIdentity};
use crate::lane::{self, Job, Report, Shop};
use crate::media::Media;
use crate::mqtt::{self, Control, Extras, Inbox, Publisher, Settings, State};
use crate::node::{Action, AttemptId, Event, LaneId, Node, Stop};
use crate::outbox::{Outbox, OutboxError, Store, Work};
use crate::{board, probe};

/// Reports of lanes that wait for the owner. Full: a lane waits; its worker's output waits with it.
const REPORTS: usize = 64;
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
    Control(Control),
    Offer(Box<Offer>),
    Overflow(AttemptId),
    Lane(Report),
    Written(Result<Written, JoinError>),
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
    outbox: Outbox,
    /// None while a write is on its way.
    store: Option<Store>,
    writing: Option<JoinHandle<Written>>,
    disk_pause: Option<Instant>,
    inbox: Inbox,
    publisher: Option<Publisher>,
    probing: Option<JoinHandle<Result<ProbeReport, probe::ProbeError>>>,
    /// Commands that wait for the probe.
    probe_replies: Vec<String>,
    report: Option<ProbeReport>,
    lanes: JoinSet<()>,
    jobs: BTreeMap<LaneId, mpsc::Sender<Job>>,
    running: HashMap<AttemptId, Running>,
    reports: mpsc::Sender<Report>,
    reports_out: mpsc::Receiver<Report>,
    terminate: Signal,
    interrupt: Signal,
    telemetry_due: Instant,
    pulse_due: Instant,
    pulse: Duration,
    ready: bool,
    started: Instant,
    exit: Option<Exit>,
}

/// Runs until it is told to end.
pub(crate) async fn run(config: Config, identity: Identity, worker: PathBuf) -> Result<Exit, DaemonError> {
    let started = Instant::now();
    let boot_id = board::boot_id();
    let stamp = Arc::new(Stamp::new(boot_id.clone()));
    let certificate = native_tls::Identity::from_pkcs8(&identity.certificate, &identity.key)?;
    let tls = native_tls::TlsConnector::builder()
        .disable_built_in_roots(true)
        .add_root_certificate(native_tls::Certificate::from_pem(&identity.ca)?)
        .identity(certificate)
        .build()?;
    let will = {
        let stamp = stamp.clone();
        Box::new(move || encode(&status(&stamp, NodeState::Offline)))
    };
    let (poller, inbox) = mqtt::session(Settings {
        node: identity.node.clone(),
        tls: tls.clone(),
        keep_alive: Duration::from_secs(config.mqtt.keep_alive_seconds),
        session_expiry_s: config.mqtt.session_expiry_seconds,
        will,
    });
    // First of all, so that the handshake goes on while the rest is made ready.
    let poller = tokio::spawn(poller);

    let mut id = [0; 8];
    openssl::rand::rand_bytes(&mut id)?;
    let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (store, outbox) = Store::open(&config.state_dir, id)?;
    let limits = config.limits.wire();
    let silence = Duration::from_secs(config.deadlines.transfer_silence_seconds);
    let shop = Shop {
        worker: worker.clone(),
        media: Media::new(&identity.node.gateway_url, tls, limits.max_input_bytes, silence)?,
        start: Duration::from_secs(config.deadlines.worker_start_seconds),
        silence: Duration::from_secs(config.deadlines.worker_silence_seconds),
        max_segments: config.limits.worker_segments,
        max_memory: config.limits.worker_memory_mib * 1024 * 1024,
    };
    let (reports, reports_out) = mpsc::channel(REPORTS);
    let watchdog = sd_notify::watchdog_enabled().map_or(PULSE, |limit| (limit / 2).min(PULSE));
    let mut daemon = Daemon {
        node: Node::new(limits, config.limits.worker_idle(), outbox.known_attempts()),
        identity: identity.node,
        stamp,
        worker,
        shop: Arc::new(shop),
        outbox,
        store: Some(store),
        writing: None,
        disk_pause: None,
        inbox,
        publisher: None,
        probing: None,
        probe_replies: Vec::new(),
        report: None,
        lanes: JoinSet::new(),
        jobs: BTreeMap::new(),
        running: HashMap::new(),
        reports,
        reports_out,
        terminate: signal(SignalKind::terminate()).map_err(DaemonError::Signals)?,
        interrupt: signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?,
        telemetry_due: started + Duration::from_secs(config.telemetry.interval_seconds),
        pulse_due: started,
        pulse: watchdog,
        ready: false,
        started,
        exit: None,
        config,
    };
    daemon.settle_the_past()?;
    daemon.start_probe(false, &boot_id);
    while daemon.exit.is_none() {
        let happening = daemon.next().await;
        daemon.handle(happening)?;
        daemon.flush()?;
    }
    let exit = daemon.exit.unwrap_or(Exit::Internal);
    daemon.close(poller).await?;
    Ok(exit)
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
    /// Attempts that an earlier life accepted and did not end.
    fn settle_the_past(&mut self) -> Result<(), DaemonError> {
        for attempt in self.outbox.open_attempts() {
            let fault = Fault::new(Code::Interrupted, "the agent stopped during the attempt");
            tracing::warn!(task = %attempt.task, epoch = %attempt.epoch, node = %self.identity.node, "attempt was interrupted");
            self.record(&attempt, EventKind::Failed { fault })?;
        }
        self.flush()
    }

    fn start_probe(&mut self, anew: bool, boot_id: &str) {
        let key = probe::Key::of(&self.worker, boot_id);
        if !anew
            && let Ok(key) = &key
            && let Some(report) = probe::recall(&self.config.state_dir, key)
        {
            self.probed(report);
            return;
        }
        let worker = self.worker.clone();
        let state_dir = self.config.state_dir.clone();
        let deadline = Duration::from_secs(self.config.deadlines.probe_seconds);
        self.probing = Some(tokio::spawn(async move {
            let report = probe::run(&worker, deadline).await?;
            if let Ok(key) = key {
                let report = report.clone();
                // A panic in there has been reported by the runtime.
                let _ = tokio::task::spawn_blocking(move || probe::remember(&state_dir, key, report)).await;
            }
            Ok(report)
        }));
    }

    async fn next(&mut self) -> Happening {
        let tick = self.node.next_tick();
        let wake = [tick, self.disk_pause].into_iter().flatten().fold(self.pulse_due, Instant::min);
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Happening::Signal("SIGTERM"),
            _ = self.interrupt.recv() => Happening::Signal("SIGINT"),
            Ok(()) = self.inbox.state.changed() => Happening::State,
            Some(control) = self.inbox.control.recv() => Happening::Control(control),
            written = join(&mut self.writing) => Happening::Written(written),
            Some(report) = self.reports_out.recv() => Happening::Lane(report),
            Some(offer) = self.inbox.offers.recv() => Happening::Offer(offer),
            Some(attempt) = self.inbox.overflow.recv() => Happening::Overflow(attempt),
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
            Happening::Control(Control::Revoke(revoke)) => {
                Event::Revoke(AttemptId { task: revoke.task, epoch: revoke.epoch })
            }
            Happening::Control(Control::Ack(ack)) => {
                self.outbox.ack(&ack.number);
                Event::Tick
            }
            Happening::Control(Control::Command(command)) => self.command(&command),
            Happening::Control(Control::Room) => Event::Tick,
            Happening::Offer(offer) => {
                let outbox_full = self.outbox.is_full();
                self.prepare(&offer);
                Event::Offer { offer, clock: clock::now(), outbox_full }
            }
            Happening::Overflow(attempt) => Event::Overflow(attempt),
            Happening::Lane(report) => {
                if let Report::Closed { lane } = &report {
                    self.jobs.remove(lane);
                }
                Event::Lane(report)
            }
            Happening::Written(result) => {
                self.written(result);
                Event::Tick
            }
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
                    // What admission allows at once, and one more in the middle of ending.
                    let (sender, jobs) = mpsc::channel(self.config.limits.queue as usize + 2);
                    self.lanes.spawn(lane::run(lane, stream, self.shop.clone(), jobs, self.reports.clone()));
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
                }
                Action::Publish(state) => self.publish_status(state),
                Action::Exit(exit) => self.exit = Some(exit),
            }
        }
        Ok(())
    }

    /// Makes what the actions after an offer need.
    fn prepare(&mut self, offer: &Offer) {
        let attempt = AttemptId::of(offer);
        // An offer that comes twice must not replace the first one's.
        self.running.entry(attempt).or_insert_with(|| Running {
            span: tracing::info_span!(
                "attempt",
                node = %self.identity.node,
                stream = %offer.stream,
                segment = offer.segment,
                task = %offer.task,
                epoch = %offer.epoch,
            ),
            stop: watch::channel(None).0,
        });
    }

    fn start(&mut self, lane: LaneId, offer: Box<Offer>) {
        let attempt = AttemptId::of(&offer);
        let (Some(jobs), Some(running)) = (self.jobs.get(&lane), self.running.get(&attempt)) else {
            tracing::error!(task = %attempt.task, "a lane or an attempt is missing; its lease will end it");
            return;
        };
        let job = Job { offer, stop: running.stop.subscribe(), span: running.span.clone() };
        if jobs.try_send(job).is_err() {
            tracing::error!(task = %attempt.task, "a lane takes no segment; the attempt's lease will end it");
        }
    }

    fn event(&self, attempt: &AttemptId, event: EventKind) -> EventMessage {
        EventMessage {
            header: self.stamp.header(),
            number: None,
            task: attempt.task.clone(),
            epoch: attempt.epoch,
            event,
            extra: serde_json::Map::new(),
        }
    }

    fn record(&mut self, attempt: &AttemptId, kind: EventKind) -> Result<(), DaemonError> {
        let span = self.running.get(attempt).map_or_else(tracing::Span::none, |running| running.span.clone());
        span.in_scope(|| match &kind {
            EventKind::Accepted => tracing::info!("accepted"),
            EventKind::Refused { fault } => {
                tracing::info!(code = %fault.code, reason = fault.text, "refused")
            }
            EventKind::Done { report } => {
                tracing::info!(worker_ms = report.wall_us / 1000, warm = report.warm, "done");
            }
            EventKind::Failed { fault } => {
                tracing::warn!(code = %fault.code, reason = fault.text, detail = fault.detail, "failed");
            }
            EventKind::Progress { .. } => {}
        });
        let refusal = matches!(kind, EventKind::Refused { .. });
        let message = self.event(attempt, kind);
        if refusal && self.outbox.is_full() {
            // It can be said, but not kept.
            self.send(Channel::Event, &message, Extras::default());
        } else {
            self.outbox.push(message.clone())?;
        }
        // After its end nothing is left to log or to stop; `Action::Stop` follows a failure and needs it once more.
        if matches!(message.event, EventKind::Refused { .. } | EventKind::Done { .. }) {
            self.running.remove(attempt);
        }
        Ok(())
    }

    /// Starts the next write, and publishes what is stored.
    fn flush(&mut self) -> Result<(), DaemonError> {
        self.running.retain(|_, running| running.stop.receiver_count() > 0);
        if self.disk_pause.is_none()
            && let Some(mut store) = self.store.take()
        {
            match self.outbox.take_work(false)? {
                Some(work) => {
                    self.writing = Some(tokio::task::spawn_blocking(move || {
                        let result = store.write(&work);
                        (store, result)
                    }));
                }
                None => self.store = Some(store),
            }
        }
        self.publish_events();
        Ok(())
    }

    fn publish_events(&mut self) {
        let Some(publisher) = &self.publisher else { return };
        while let Some((n, json)) = self.outbox.next_unsent() {
            // Full: goes on when the broker has acknowledged some.
            if publisher.publish(Channel::Event, json, Extras::default()).is_err() {
                break;
            }
            self.outbox.sent(n);
        }
    }

    fn written(&mut self, result: Result<Written, JoinError>) {
        self.writing = None;
        match result {
            Ok((store, result)) => {
                self.store = Some(store);
                if let Err(error) = &result {
                    tracing::error!(%error, "the outbox cannot be written; no work is taken until it can");
                    self.disk_pause = Some(Instant::now() + DISK_PAUSE);
                }
                self.outbox.written(result.map_err(|_| ()));
            }
            Err(error) => {
                // The store went with the thread. Nothing can be promised any more: end, and be started anew.
                tracing::error!(%error, "the outbox's writer is gone");
                self.exit = Some(Exit::Internal);
            }
        }
    }

    fn connection(&mut self) {
        let state = self.inbox.state.borrow_and_update().clone();
        match state {
            State::Fresh => {}
            State::Connected { session_present, publisher } => {
                tracing::info!(
                    session_present,
                    ms = self.started.elapsed().as_millis(),
                    "connected to the broker"
                );
                notify(sd_notify::NotifyState::Status("connected"));
                // Also with a session: it costs one packet and heals a broker that kept the session but not its filters.
                if publisher.subscribe().is_err() {
                    tracing::warn!("the connection was gone before it was used");
                }
                self.publisher = Some(publisher);
                self.publish_birth();
                self.publish_status(self.node.state());
                self.outbox.rewind();
                self.now_ready();
            }
            State::Lost { why, refused } => {
                self.publisher = None;
                let text = if refused { "refused by the broker" } else { "not connected" };
                notify(sd_notify::NotifyState::Status(&format!("{text}: {why}")));
                self.now_ready();
            }
        }
    }

    fn now_ready(&mut self) {
        if !self.ready {
            self.ready = true;
            notify(sd_notify::NotifyState::Ready);
        }
    }

    /// Publishes what may be lost.
    fn send(&self, channel: Channel, message: &impl serde::Serialize, extras: Extras) {
        if let Some(publisher) = &self.publisher
            && publisher.publish(channel, encode(message), extras).is_err()
        {
            tracing::debug!(
                channel = channel.as_str(),
                "the queue to the broker is full, a message was dropped"
            );
        }
    }

    fn publish_status(&self, state: NodeState) {
        self.send(Channel::Status, &status(&self.stamp, state), Extras::default());
    }

    /// As soon as it is known what the board can do.
    fn publish_birth(&self) {
        let Some(report) = &self.report else { return };
        let birth = Birth {
            header: self.stamp.header(),
            node: self.identity.node.clone(),
            fleet: self.identity.fleet.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            worker_version: report.worker_version.clone(),
            board: board::board(&report.profile),
            capabilities: report.capabilities.clone(),
            limits: self.config.limits.wire(),
            extra: serde_json::Map::new(),
        };
        self.send(Channel::Birth, &birth, Extras::default());
    }

    fn telemetry(&self) {
        if self.publisher.is_none() {
            return;
        }
        let telemetry = Telemetry {
            header: self.stamp.header(),
            uptime: Millis(u64::try_from(board::uptime().as_millis()).unwrap_or(u64::MAX)),
            load: board::load(),
            memory_available_bytes: board::memory_available(),
            agent_memory_bytes: board::own_memory(),
            temperature_c: board::temperature(),
            power_w: board::power(),
            throttled: None,
            workers: self.node.workers(),
            outbox: self.outbox.waiting(),
            extra: serde_json::Map::new(),
        };
        let expiry = Some(Duration::from_secs(2 * self.config.telemetry.interval_seconds));
        self.send(Channel::Telemetry, &telemetry, Extras { expiry, correlation: None });
    }

    fn command(&mut self, command: &Command) -> Event {
        tracing::info!(command = ?command.command, id = command.id, "command");
        let event = match command.command {
            CommandKind::Drain => Event::Drain,
            CommandKind::Resume => Event::Resume,
            CommandKind::Restart => {
                let grace = Duration::from_secs(self.config.deadlines.drain_seconds);
                Event::Stop { exit: Exit::Restart, grace }
            }
            CommandKind::Probe => {
                // Answered when it is done. Bounded: more than a few at once is a mistake.
                if self.probe_replies.len() < 16 {
                    self.probe_replies.push(command.id.clone());
                }
                if self.probing.is_none() {
                    self.start_probe(true, &board::boot_id());
                }
                return Event::Tick;
            }
        };
        self.reply(&command.id, None);
        event
    }

    fn reply(&self, id: &str, fault: Option<Fault>) {
        let reply =
            Reply { header: self.stamp.header(), id: id.to_owned(), fault, extra: serde_json::Map::new() };
        let correlation = Some(id.to_owned());
        self.send(Channel::Reply, &reply, Extras { expiry: None, correlation });
    }

    fn probe_ended(&mut self, result: Result<Result<ProbeReport, probe::ProbeError>, JoinError>) -> Event {
        self.probing = None;
        let fault = match result {
            Ok(Ok(report)) => {
                self.probed(report);
                None
            }
            Ok(Err(error)) => Some(Fault::new(Code::WorkerStart, error.to_string())),
            Err(error) => Some(Fault::new(Code::WorkerStart, format!("the probe was lost: {error}"))),
        };
        if let Some(fault) = &fault {
            tracing::error!(
                reason = fault.text,
                "cannot find out what this board can do; it will refuse all work"
            );
            // Said, rather than silent: a birth without capabilities.
            self.probed(ProbeReport {
                worker_version: String::new(),
                gstreamer_version: String::new(),
                profile: String::new(),
                capabilities: Vec::new(),
                unproved: Vec::new(),
            });
        }
        for id in std::mem::take(&mut self.probe_replies) {
            self.reply(&id, fault.clone());
        }
        Event::Tick
    }

    fn probed(&mut self, report: ProbeReport) {
        tracing::info!(capabilities = report.capabilities.len(), profile = report.profile, "probed");
        // Has no actions.
        self.node.handle(Instant::now(), Event::Capabilities(report.capabilities.clone()));
        self.report = Some(report);
        self.publish_birth();
    }

    /// Lanes end their workers; the last events are stored and sent; the broker hears goodbye.
    async fn close(mut self, poller: JoinHandle<()>) -> Result<(), DaemonError> {
        self.jobs.clear();
        let deadline = tokio::time::Instant::now() + CLOSING;
        let lanes = async {
            loop {
                tokio::select! {
                    ended = self.lanes.join_next() => if ended.is_none() { break },
                    // Drained, so that no lane waits for us.
                    Some(_) = self.reports_out.recv() => {}
                }
            }
        };
        if tokio::time::timeout_at(deadline, lanes).await.is_err() {
            tracing::warn!("some workers did not end in time and are killed");
            self.lanes.shutdown().await;
        }
        if let Some(probing) = self.probing.take() {
            probing.abort();
        }
        let deadline = tokio::time::Instant::now() + CLOSING;
        self.flush()?;
        while !self.outbox.is_settled(self.publisher.is_some()) {
            tokio::select! {
                written = join(&mut self.writing) => self.written(written),
                Some(_) = self.inbox.control.recv() => {}
                Ok(()) = self.inbox.state.changed() => self.connection(),
                () = sleep_until(deadline) => break,
            }
            self.flush()?;
        }
        if let Some(publisher) = &self.publisher {
            self.publish_status(NodeState::Offline);
            if publisher.disconnect().is_ok() && timeout(CLOSING, poller).await.is_err() {
                tracing::warn!("the broker did not take the goodbye; it will publish the last will");
            }
        } else {
            poller.abort();
        }
        if self.writing.is_none()
            && let Some(mut store) = self.store.take()
            && let Some(work @ (Work::Append { .. } | Work::Rewrite { .. })) = self.outbox.take_work(true)?
            && let Err(error) = store.write(&work)
        {
            // Acks only: the events they cover will be sent once more.
            tracing::warn!(%error, "the outbox could not be tidied");
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
