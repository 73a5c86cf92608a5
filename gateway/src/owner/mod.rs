//! The task that owns the state: everything else sends it events, and it carries out what
//! [`Core`] decides.

mod commands;
mod config;
mod janitor;
mod log;
mod messages;
mod updates;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_protocol::message::{Ack, CommandKind, Extra};
use headwater_protocol::topic::Channel;
use headwater_protocol::{Fault, FleetId, NodeId, StreamId, TaskId, UpdateId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::grants::Grants;
use crate::media::Media;
use crate::metrics::Metrics;
use crate::mqtt::{Incoming, Publisher};
use crate::operate::views::UpdateView;
use crate::rollout::Campaign;
use crate::schedule::{Action, Core, Now, Outcome, Submission};
use crate::store::{After, Desired, Store, Write};
use crate::views::NodeView;

use commands::Commands;
use messages::send;
use updates::Updates;

pub use config::{Change, ConfigureError, Configured};
pub use janitor::Janitor;
pub use updates::{Asked, Steer, UpdateError};

/// Everything that can happen to the owner.
#[derive(Debug)]
pub enum Event {
    Mqtt(Incoming),
    Submit {
        submission: Box<Submission>,
        answer: oneshot::Sender<Outcome>,
    },
    Command {
        node: NodeId,
        command: CommandKind,
        patience: Duration,
        answer: oneshot::Sender<Result<(), Fault>>,
    },
    StartUpdate {
        asked: Box<Asked>,
        answer: updates::Answer,
    },
    SteerUpdate {
        update: UpdateId,
        steer: Steer,
        answer: updates::Answer,
    },
    Updates {
        answer: oneshot::Sender<Vec<UpdateView>>,
    },
    Update {
        update: UpdateId,
        answer: oneshot::Sender<Option<UpdateView>>,
    },
    Configure {
        node: NodeId,
        change: Change,
        answer: config::Answer,
    },
    Nodes {
        answer: oneshot::Sender<Vec<NodeView>>,
    },
}

/// Why the owner did not answer.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the gateway stops")]
pub struct Stopped;

/// How everything else talks to the owner.
#[derive(Debug, Clone)]
pub struct Handle {
    events: mpsc::Sender<Event>,
    changed: watch::Receiver<u64>,
}

impl Handle {
    /// Hands a segment over. From then on the owner answers for its objects, also where nobody waits for
    /// the outcome any more.
    pub async fn submit(&self, submission: Submission) -> Result<oneshot::Receiver<Outcome>, Stopped> {
        let (answer, outcome) = oneshot::channel();
        let event = Event::Submit { submission: Box::new(submission), answer };
        self.events.send(event).await.map_err(|_| Stopped)?;
        Ok(outcome)
    }

    pub async fn nodes(&self) -> Result<Vec<NodeView>, Stopped> {
        let (answer, views) = oneshot::channel();
        self.events.send(Event::Nodes { answer }).await.map_err(|_| Stopped)?;
        views.await.map_err(|_| Stopped)
    }

    /// A node's answer to a command, within `patience`; the outer error says that there was none.
    pub async fn command(
        &self,
        node: NodeId,
        command: CommandKind,
        patience: Duration,
    ) -> Result<Result<(), Fault>, Stopped> {
        let (answer, reply) = oneshot::channel();
        let event = Event::Command { node, command, patience, answer };
        self.events.send(event).await.map_err(|_| Stopped)?;
        reply.await.map_err(|_| Stopped)
    }

    /// Counts up with each change that people may see.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

#[derive(Debug)]
pub struct Owner {
    pub core: Core,
    pub fleet: FleetId,
    pub store: Store,
    pub media: Media,
    pub grants: Grants,
    pub janitor: Janitor,
    pub publisher: Publisher,
    pub metrics: Arc<Metrics>,
    pub broker_up: Arc<AtomicBool>,
    /// Updates and configurations of earlier lives.
    pub campaigns: BTreeMap<UpdateId, Campaign>,
    pub configs: BTreeMap<NodeId, Desired>,
}

/// A task's words for the log, and who waits for it.
#[derive(Debug)]
struct Open {
    stream: StreamId,
    segment: u64,
    answer: Option<oneshot::Sender<Outcome>>,
    nodes: Vec<NodeId>,
}

const TICK: Duration = Duration::from_millis(100);
/// Between two tries to end what the database missed, in ms.
const SETTLE: u64 = 5_000;

impl Owner {
    /// Starts the task; it ends after `stop`, when every waiting push has its answer or `patience` is over.
    pub fn start(
        mut self,
        mut mqtt: mpsc::Receiver<Incoming>,
        stop: CancellationToken,
        patience: Duration,
    ) -> (Handle, tokio::task::JoinHandle<()>) {
        // A full queue makes its senders wait: pushes and pages slow down, nothing is lost.
        let (events, mut queue) = mpsc::channel(256);
        let (changed, changes) = watch::channel(0);
        let updates = Updates::of(std::mem::take(&mut self.campaigns));
        let configs = std::mem::take(&mut self.configs);
        let mut running = Running {
            updates,
            configs,
            owner: self,
            open: HashMap::new(),
            commands: Commands { waiting: HashMap::new(), next: 1 },
            changed,
            started: Instant::now(),
            settle_at: 0,
        };
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut until: Option<Instant> = None;
            loop {
                tokio::select! {
                    Some(message) = mqtt.recv() => running.handle(Event::Mqtt(message)).await,
                    Some(event) = queue.recv() => running.handle(event).await,
                    _ = tick.tick() => running.tick().await,
                    () = stop.cancelled(), if until.is_none() => until = Some(Instant::now() + patience),
                }
                if let Some(until) = until
                    && (running.open.is_empty() || Instant::now() >= until)
                {
                    running.stop().await;
                    return;
                }
            }
        });
        (Handle { events, changed: changes }, task)
    }
}

struct Running {
    owner: Owner,
    open: HashMap<TaskId, Open>,
    commands: Commands,
    updates: Updates,
    configs: BTreeMap<NodeId, Desired>,
    changed: watch::Sender<u64>,
    started: Instant,
    /// Before this (mono) the database is not asked again whether it missed something.
    settle_at: u64,
}

impl Running {
    fn now(&self) -> Now {
        Now { mono: millis(self.started.elapsed()), unix: unix_millis() }
    }

    async fn handle(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Mqtt(Incoming::Up) => {
                tracing::info!("broker connected");
                self.owner.broker_up.store(true, Ordering::Relaxed);
                self.updates.listens(Some(now.mono));
                self.owner.core.broker_up(now);
            }
            Event::Mqtt(Incoming::Down) => {
                self.owner.broker_up.store(false, Ordering::Relaxed);
                self.updates.listens(None);
                self.owner.core.broker_down();
            }
            Event::Mqtt(Incoming::Message { topic, payload }) => self.message(&topic, &payload, now),
            Event::Submit { submission, answer } => {
                let open = Open {
                    stream: submission.stream.clone(),
                    segment: submission.segment,
                    answer: Some(answer),
                    nodes: Vec::new(),
                };
                self.open.insert(submission.task.clone(), open);
                self.owner.core.submit(*submission, now);
            }
            Event::Command { node, command, patience, answer } => {
                self.command(node, command, patience, answer, now);
            }
            Event::StartUpdate { asked, answer } => self.start_update(*asked, answer, now).await,
            Event::SteerUpdate { update, steer, answer } => self.steer_update(update, steer, answer).await,
            Event::Updates { answer } => {
                // The asker may be gone.
                drop(answer.send(self.update_views()));
            }
            Event::Update { update, answer } => {
                drop(answer.send(self.updates.campaigns.get(&update).map(UpdateView::whole)));
            }
            Event::Configure { node, change, answer } => self.configure(node, change, answer, now).await,
            // The asker may be gone.
            Event::Nodes { answer } => drop(answer.send(self.owner.core.node_views(now))),
        }
        self.carry_out(now).await;
    }

    async fn tick(&mut self) {
        let now = self.now();
        let gone: Vec<TaskId> = self
            .open
            .iter()
            .filter(|(_, open)| open.answer.as_ref().is_some_and(oneshot::Sender::is_closed))
            .map(|(task, _)| task.clone())
            .collect();
        for task in gone {
            self.owner.core.caller_gone(&task, now);
        }
        self.owner.core.tick(now);
        self.commands.forget_late(&self.owner.core);
        let (waiting, all) = self.owner.core.queue_depth();
        self.owner.metrics.depth(waiting, all, self.owner.core.live_streams());
        self.look_at_updates(now).await;
        self.carry_out(now).await;
        // After what has been decided: what is open is known to the database by then, if it stores at all.
        if now.mono >= self.settle_at && self.owner.store.has_missed() {
            self.settle_at = now.mono + SETTLE;
            let after: After = Box::new(|stored| {
                if stored.is_ok() {
                    tracing::info!("the database writes again; segments whose end it missed have failed");
                }
            });
            self.owner.store.write(vec![Write::Settle(self.owner.core.open())], vec![after]).await;
        }
    }

    async fn stop(&mut self) {
        let now = self.now();
        self.owner.core.stop(now);
        self.carry_out(now).await;
    }

    /// Does what the core decided. Answers and acks wait for the commit of the writes beside them.
    async fn carry_out(&mut self, now: Now) {
        let actions = self.owner.core.take_actions();
        if actions.is_empty() {
            return;
        }
        let mut writes = Vec::new();
        let mut after: Vec<After> = Vec::new();
        for action in actions {
            match action {
                Action::Grant { task, epoch, grant } => self.owner.grants.open(task, epoch, grant),
                Action::EndGrant { task, epoch } => self.owner.grants.end(&task, epoch),
                Action::Offer { node, offer } => {
                    tracing::info!(
                        stream = %offer.stream, segment = offer.segment, task = %offer.task,
                        epoch = offer.epoch.0, %node, "offered"
                    );
                    if let Some(open) = self.open.get_mut(&offer.task) {
                        open.nodes.push(node.clone());
                    }
                    let life = Duration::from(offer.lease.accept);
                    if !self.send(&node, Channel::Offer, &*offer, life, None) {
                        tracing::warn!(task = %offer.task, %node, "offer not sent; its lease will end");
                    }
                }
                Action::Revoke { node, task, epoch } => {
                    let revoke = self.owner.core.revoke(task, epoch, now);
                    self.send(&node, Channel::Revoke, &revoke, Duration::from_secs(30), None);
                }
                Action::Ack { node, number } => {
                    let ack = Ack { header: self.owner.core.header(now), number, extra: Extra::new() };
                    let (publisher, fleet) = (self.owner.publisher.clone(), self.owner.fleet.clone());
                    after.push(Box::new(move |stored| {
                        if stored.is_ok() {
                            // Lost acks are made good: the node sends the event again.
                            send(
                                &publisher,
                                &fleet,
                                &node,
                                Channel::Ack,
                                &ack,
                                Duration::from_secs(30),
                                None,
                            );
                        }
                    }));
                }
                Action::Write(write) => {
                    self.log(&write);
                    self.owner.metrics.write(&write);
                    writes.push(write);
                }
                Action::Answer { task, outcome } => {
                    self.owner.media.forget(&task);
                    let Some(answer) = self.open.remove(&task).and_then(|open| open.answer) else { continue };
                    self.owner.metrics.outcome(&outcome);
                    after.push(Box::new(move |stored| {
                        let outcome = match stored {
                            Ok(()) => outcome,
                            Err(error) => Outcome::Internal(error),
                        };
                        // A caller that is gone needs no answer.
                        drop(answer.send(outcome));
                    }));
                }
                Action::Discard { task, keep } => self.owner.janitor.discard(task, keep),
                Action::NodesChanged => {}
            }
        }
        if !writes.is_empty() || !after.is_empty() {
            self.owner.store.write(writes, after).await;
        }
        self.changed.send_modify(|generation| *generation += 1);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub fn unix_millis() -> u64 {
    // A clock before 1970 counts as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
