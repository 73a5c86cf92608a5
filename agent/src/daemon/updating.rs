//! An update's actions, and what root's helper says.

use std::time::{Duration, Instant};

use headwater_protocol::message::{NodeState, TimeSource};
use headwater_protocol::topic::Channel;
use headwater_protocol::update::{Installation, UpdateOrder, UpdateStatus, Window};
use headwater_protocol::{Code, Fault, Millis};
use tokio::task::JoinHandle;

use super::{Daemon, DaemonError};
use crate::clock;
use crate::exit::Exit;
use crate::helper::Helper;
use crate::mqtt::Extras;
use crate::node::Event;
use crate::system::wire::{Request, Status};
use crate::update::{self, Able, Action, Event as UpdateEvent, Updater, View, fetch, journal};

/// Between two reports of an installation.
const BEAT: Duration = Duration::from_secs(3);
/// For the helper's first answer, for which the birth waits.
const FIRST: Duration = Duration::from_secs(20);
/// Before asking again what did not answer: a board is busy while it starts, and RAUC is while someone else uses it.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(4 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
];

type Here = Result<Box<Status>, Fault>;

/// What tasks beside the loop have found.
#[derive(Debug)]
pub(super) enum Told {
    Update(UpdateEvent),
    Here(Here),
    Order {
        order: Box<UpdateOrder>,
        reply: String,
        here: Here,
    },
    /// The helper may be asked for a boot, or not.
    Reboot {
        reply: String,
        here: Here,
    },
    Logs {
        reply: String,
        result: Result<(), Fault>,
    },
}

/// The daemon's part of it.
#[derive(Debug)]
pub(super) struct Updating {
    pub(super) helper: Helper,
    updater: Updater,
    fetching: Option<JoinHandle<()>>,
    /// None until the helper has answered or has not.
    here: Option<Here>,
    /// How often it was asked once more.
    asked: usize,
}

/// When the helper is to be asked once more, for what is known may be true of a moment only.
fn again(here: &Here, asked: usize) -> Option<Duration> {
    let open = match here {
        Err(_) => true,
        // The kernel was told of slots, so RAUC is set up here, and did not answer.
        Ok(status) => status.updates_by.is_none() && status.slot.is_some(),
    };
    if open { PAUSES.get(asked).copied() } else { None }
}

/// Whether a node may be interrupted now, by the order's window, which is in UTC. Who does not know the time cannot know
/// that it is the right one.
fn is_open(window: Option<Window>, now: Millis, source: TimeSource) -> bool {
    let Some(window) = window else { return true };
    let known = match source {
        TimeSource::Unsynced => false,
        TimeSource::Ntp | TimeSource::Rtc => true,
    };
    // Below 1440, so it always fits.
    let minute = u16::try_from(now.0 / 60_000 % 1440);
    known && minute.is_ok_and(|minute| window.is_open(minute))
}

impl Updating {
    pub(super) fn new(helper: Helper, state_dir: &std::path::Path) -> (Self, Vec<Action>) {
        let (updater, actions) = Updater::new(journal::load(state_dir));
        (Self { helper, updater, fetching: None, here: None, asked: 0 }, actions)
    }

    pub(super) fn is_delicate(&self) -> bool {
        self.updater.is_delicate()
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.updater.is_on_trial()
    }

    pub(super) fn lacks(&self, able: Able) -> bool {
        self.updater.lacks(able)
    }

    /// None until it is known.
    pub(super) fn installation(&self) -> Option<Installation> {
        self.here.as_ref().map(|here| {
            let status = here.as_ref().map(|status| (**status).clone()).unwrap_or_default();
            Installation {
                updates_by: status.updates_by,
                compatible: status.compatible,
                version: status.version,
                slot: status.slot,
                privileged: here.is_ok(),
            }
        })
    }
}

impl Daemon {
    /// Runs beside the loop; what it finds comes back to it.
    pub(super) fn aside(&self, work: impl Future<Output = Told> + Send + 'static) -> JoinHandle<()> {
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let told = work.await;
            // Nobody listens when the daemon has ended.
            let _ = tell.send(told).await;
        })
    }

    /// What this installation is, after that time.
    pub(super) fn ask_helper(&self, pause: Duration) {
        let helper = self.updating.helper.clone();
        self.aside(async move {
            tokio::time::sleep(pause).await;
            let late = |_| Err(Fault::new(Code::Unsupported, "root's helper did not answer in time"));
            Told::Here(tokio::time::timeout(FIRST, helper.status()).await.unwrap_or_else(late))
        });
    }

    pub(super) fn told(&mut self, told: Told) -> Result<Event, DaemonError> {
        match told {
            Told::Update(event) => self.update(event)?,
            Told::Here(here) => {
                if let Err(fault) = &here {
                    tracing::info!(reason = fault.text, "no updates and boots by command");
                }
                if let Some(pause) = again(&here, self.updating.asked) {
                    self.updating.asked += 1;
                    self.ask_helper(pause);
                }
                let before = self.updating.installation();
                self.updating.here = Some(here);
                if self.updating.installation() != before {
                    self.publish_birth();
                }
            }
            Told::Order { order, reply, here } => {
                let refusal = update::refusal(&order, here.as_ref().map(|status| &**status));
                self.update(UpdateEvent::Order { order, reply, refusal })?;
            }
            Told::Reboot { reply, here } => {
                self.reply(&reply, here.as_ref().err().cloned());
                if here.is_ok() {
                    let grace = Duration::from_secs(self.config.deadlines.drain_seconds);
                    return Ok(Event::Stop { exit: Exit::Reboot, grace });
                }
            }
            Told::Logs { reply, result } => self.reply(&reply, result.err()),
        }
        Ok(Event::Tick)
    }

    /// After whatever happened: what waits for the node to be idle, healthy or connected may go on.
    pub(super) fn look(&mut self) -> Result<(), DaemonError> {
        let window = self.updating.updater.order().and_then(|order| order.window);
        let (now, source) = clock::now();
        // One that failed says nothing of the board: a new version must then prove what any board can.
        let probe = self.report.as_ref().filter(|report| !report.worker_version.is_empty());
        let able = |_| probe.map_or(Able::BOTH, |report| Able::of(self.usable(report)));
        let view = View {
            window_open: is_open(window, now, source),
            taking: self.node.state() == NodeState::Online,
            idle: self.node.is_idle(),
            healthy: self.publisher.is_some() && probe.is_some(),
            able: self.report.as_ref().map(able),
        };
        self.update(UpdateEvent::Look(view))
    }

    pub(super) fn update(&mut self, event: UpdateEvent) -> Result<(), DaemonError> {
        let actions = self.updating.updater.handle(event);
        self.carry_out(actions)
    }

    pub(super) fn carry_out(&mut self, actions: Vec<Action>) -> Result<(), DaemonError> {
        let mut actions = actions.into_iter();
        while let Some(action) = actions.next() {
            match action {
                Action::Store => {
                    let Some(kept) = self.updating.updater.kept() else { continue };
                    // Rare and short, and nothing may go on before it.
                    tracing::info!(?kept, "update");
                    if let Err(error) = journal::store(&self.config.state_dir, kept) {
                        tracing::error!(%error, "the update's journal cannot be written");
                        if !self.updating.updater.needs_its_journal() {
                            continue;
                        }
                        let fault =
                            Fault::new(Code::Storage, format!("the journal cannot be written: {error}"));
                        for action in actions.by_ref() {
                            if let Action::Reply(id, None) = action {
                                self.reply(&id, Some(fault.clone()));
                            }
                        }
                        return self.update(UpdateEvent::Unstored(error.to_string()));
                    }
                }
                Action::Publish => self.publish_update(),
                Action::Reply(id, fault) => self.reply(&id, fault),
                Action::Fetch => self.fetch(),
                Action::StopFetch => {
                    if let Some(fetching) = self.updating.fetching.take() {
                        fetching.abort();
                    }
                }
                Action::Remove => journal::remove_bundles(&self.config.state_dir),
                Action::Drain => self.apply(Event::Pause)?,
                Action::Resume => self.apply(Event::Continue)?,
                Action::Install => self.install(),
                Action::Ask(pause) => {
                    let helper = self.updating.helper.clone();
                    self.aside(async move {
                        tokio::time::sleep(pause).await;
                        Told::Update(UpdateEvent::Standing {
                            status: helper.status().await,
                            replaced: replaced(),
                        })
                    });
                }
                Action::Commit => {
                    let Some(order) = self.updating.updater.order().map(|order| order.id.clone()) else {
                        continue;
                    };
                    let helper = self.updating.helper.clone();
                    self.aside(async move {
                        let result = helper.ask(&Request::Commit { order }, |_| {}).await;
                        Told::Update(UpdateEvent::Committed(result.map(|_| ())))
                    });
                }
                Action::Restart { boot } => {
                    let exit = if boot { Exit::Reboot } else { Exit::Restart };
                    // Paused already, but for an agent that began anew in the middle of it.
                    let grace = Duration::from_secs(self.config.deadlines.drain_seconds);
                    self.apply(Event::Stop { exit, grace })?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn publish_update(&self) {
        let updater = &self.updating.updater;
        let (Some(order), Some(state)) = (updater.order(), updater.state()) else { return };
        tracing::debug!(update = %order.id, ?state, "update");
        let status = UpdateStatus {
            header: self.stamp.header(),
            id: order.id.clone(),
            version: order.bundle.version.clone(),
            state,
            extra: serde_json::Map::new(),
        };
        self.send(Channel::Update, &status, Extras::default());
    }

    fn fetch(&mut self) {
        let Some(bundle) = self.updating.updater.order().map(|order| order.bundle.clone()) else { return };
        let media = self.shop.media.clone();
        let folder = journal::folder(&self.config.state_dir);
        let reserve = self.config.system.reserve_mib * 1024 * 1024;
        let tell = self.tell.clone();
        let fetching = self.aside(async move {
            let progress = |bytes| {
                // Full: there will be a later one.
                let _ = tell.try_send(Told::Update(UpdateEvent::FetchedSome(bytes)));
            };
            Told::Update(UpdateEvent::Fetched(
                fetch::fetch(&media, &folder, &bundle, reserve, progress).await,
            ))
        });
        if let Some(earlier) = self.updating.fetching.replace(fetching) {
            earlier.abort();
        }
    }

    fn install(&self) {
        let Some(order) = self.updating.updater.order().cloned() else { return };
        let (helper, tell) = (self.updating.helper.clone(), self.tell.clone());
        self.aside(async move {
            let mut said: Option<Instant> = None;
            let progress = |percent| {
                if said.is_none_or(|said| said.elapsed() >= BEAT) {
                    said = Some(Instant::now());
                    let _ = tell.try_send(Told::Update(UpdateEvent::InstalledSome(percent)));
                }
            };
            let request = Request::Install { order: Box::new(order) };
            Told::Update(UpdateEvent::Installed(helper.install(&request, progress).await))
        });
    }
}

/// Whether this process's program was replaced on the disk, as package managers do.
fn replaced() -> bool {
    std::fs::read_link("/proc/self/exe").is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
}

#[cfg(test)]
mod tests {
    use headwater_protocol::update::BundleKind;

    use super::*;

    #[test]
    fn what_did_not_answer_once_is_asked_again_and_not_for_ever() {
        let away: Here = Err(Fault::new(Code::Unsupported, "root's helper did not answer in time"));
        let busy: Here = Ok(Box::new(Status { slot: Some("A".into()), ..Status::default() }));
        for here in [&away, &busy] {
            assert_eq!(again(here, 0), Some(Duration::from_secs(15)));
            assert_eq!(again(here, PAUSES.len()), None);
        }
        assert!(PAUSES.is_sorted());
    }

    /// 2026-03-01T02:00:00Z, by `date -ud`.
    const TWO_AT_NIGHT: u64 = 1_772_330_400_000;

    #[test]
    fn a_window_is_of_universal_time_and_closed_for_a_node_that_does_not_know_the_time() {
        let night = Some(Window { from: 120, until: 300 });
        let at = |minutes: u64| Millis(TWO_AT_NIGHT + minutes * 60_000);
        for source in [TimeSource::Ntp, TimeSource::Rtc] {
            assert!(is_open(night, at(0), source) && is_open(night, at(179), source));
            assert!(!is_open(night, at(180), source) && !is_open(night, at(23 * 60 + 59), source));
            assert!(!is_open(night, Millis(TWO_AT_NIGHT - 1), source), "one millisecond too early");
        }
        for minute in 0..1440 {
            assert!(!is_open(night, at(minute), TimeSource::Unsynced), "{minute}");
        }
    }

    #[test]
    fn without_a_window_the_time_does_not_matter() {
        assert!(
            is_open(None, Millis(0), TimeSource::Unsynced)
                && is_open(None, Millis(TWO_AT_NIGHT), TimeSource::Ntp)
        );
    }

    #[test]
    fn an_answer_is_not_asked_for_again() {
        let rauc = Status { updates_by: Some(BundleKind::Rauc), slot: Some("A".into()), ..Status::default() };
        assert_eq!(again(&Ok(Box::new(rauc)), 0), None);
        // Copied there by hand: nothing but a person changes that.
        assert_eq!(again(&Ok(Box::new(Status::default())), 0), None);
    }
}
