//! What the node says of itself, and what it answers.

use std::time::{Duration, Instant};

use headwater_protocol::message::{Birth, Command, CommandKind, NodeState, Reply, Telemetry};
use headwater_protocol::topic::Channel;
use headwater_protocol::{Code, Fault, Millis};

use super::updating::Told;
use super::{Daemon, DaemonError, encode, notify, status};
use crate::exit::Exit;
use crate::mqtt::{Extras, State};
use crate::node::Event;
use crate::update::Event as UpdateEvent;
use crate::{board, drained};

impl Daemon {
    pub(super) fn connection(&mut self) {
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
                self.configuration_works();
                self.publish_birth();
                self.publish_update();
                self.publish_status(self.node.state());
                // The first word that says which boot this is: the birth waits for the probe.
                self.telemetry_due = Instant::now();
                self.outbox.rewind();
                self.now_ready();
                self.prepare_spare();
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
    pub(super) fn send(&self, channel: Channel, message: &impl serde::Serialize, extras: Extras) {
        if let Some(publisher) = &self.publisher
            && publisher.publish(channel, encode(message), extras).is_err()
        {
            tracing::debug!(
                channel = channel.as_str(),
                "the queue to the broker is full, a message was dropped"
            );
        }
    }

    pub(super) fn publish_status(&self, state: NodeState) {
        self.send(Channel::Status, &status(&self.stamp, state), Extras::default());
    }

    /// As soon as it is known what the board can do, and who updates it.
    pub(super) fn publish_birth(&self) {
        let (Some(report), Some(installation)) = (&self.report, self.updating.installation()) else { return };
        let birth = Birth {
            header: self.stamp.header(),
            node: self.identity.node.clone(),
            fleet: self.identity.fleet.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            worker_version: report.worker_version.clone(),
            board: board::board(&report.profile),
            capabilities: self.usable(report).cloned().collect(),
            avoids: self.quarantine.avoid().to_vec(),
            limits: self.limits,
            installation: Some(installation),
            config: self.reported(),
            extra: serde_json::Map::new(),
        };
        self.send(Channel::Birth, &birth, Extras::default());
    }

    pub(super) fn telemetry(&self) {
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

    pub(super) fn command(&mut self, command: Command) -> Result<Event, DaemonError> {
        let Command { id, command, .. } = command;
        tracing::info!(?command, id, "command");
        let event = match command {
            CommandKind::Drain => return Ok(self.drain(&id, true)),
            CommandKind::Resume => return Ok(self.drain(&id, false)),
            CommandKind::Restart => {
                let grace = Duration::from_secs(self.config.deadlines.drain_seconds);
                Event::Stop { exit: Exit::Restart, grace }
            }
            // The others are answered when they are done.
            CommandKind::Probe => {
                if let Some(fault) = self.cannot_probe() {
                    self.reply(&id, Some(fault));
                    return Ok(Event::Tick);
                }
                self.probe_replies.push(id);
                if self.probing.is_none() {
                    self.start_probe(true);
                }
                return Ok(Event::Tick);
            }
            CommandKind::Reboot => {
                self.reboot(id);
                return Ok(Event::Tick);
            }
            CommandKind::Logs(logs) => {
                self.logs(id, logs);
                return Ok(Event::Tick);
            }
            CommandKind::Update(order) => {
                let helper = self.updating.helper.clone();
                self.aside(async move { Told::Order { order, reply: id, here: helper.status().await } });
                return Ok(Event::Tick);
            }
            CommandKind::CancelUpdate { id: update } => {
                self.update(UpdateEvent::Cancel { id: update, reply: id })?;
                return Ok(Event::Tick);
            }
        };
        self.reply(&id, None);
        Ok(event)
    }

    /// An operator's word holds only once it is kept: else a restart would take it back in silence.
    fn drain(&self, reply: &str, drained: bool) -> Event {
        if let Err(error) = drained::save(&self.config.state_dir, drained) {
            tracing::error!(%error, "whether this node is drained cannot be written");
            let text = format!("the node cannot write it to its disk, and stays as it was: {error}");
            self.reply(reply, Some(Fault::new(Code::Storage, text)));
            return Event::Tick;
        }
        self.reply(reply, None);
        if drained { Event::Drain } else { Event::Resume }
    }

    pub(super) fn reply(&self, id: &str, fault: Option<Fault>) {
        let reply =
            Reply { header: self.stamp.header(), id: id.to_owned(), fault, extra: serde_json::Map::new() };
        let correlation = Some(id.to_owned());
        self.send(Channel::Reply, &reply, Extras { expiry: None, correlation });
    }
}
