//! The node's state: which attempts are open, which streams have a lane, and whether it takes work.
//!
//! ```text
//!   Running ── stop (signal, restart) ─▶ Stopping ── nothing open, or time is up ─▶ exit
//!      │
//!      └─ drained: from drain to resume, by an operator        in either, and while it is stopping,
//!         paused: from pause to continue, by the node itself   it says `draining` and takes nothing new
//!
//!   offer ─▶ refused                        an attempt's life; the arrows are the events that are published
//!        └─▶ accepted ─▶ done | failed      exactly one of these, whoever is first: lane, revoke, lease, stop
//! ```
//!
//! Plain data: events go in, actions come out, time is an argument. The daemon does what the actions say.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use headwater_protocol::message::{EventKind, Limits, NodeState, Offer, TimeSource, WorkerState};
use headwater_protocol::{Capability, Code, Epoch, Fault, Millis, StreamId, TaskId};

use crate::admission::{View, admit};
use crate::exit::Exit;
use crate::lane::Report;
use crate::sessions::{Held, lacks, room};

/// Attempts that are remembered so that an offer that comes twice is taken once. Full: the oldest is forgotten.
const REMEMBERED: usize = 4096;
/// Between two progress events of an attempt.
const BEAT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttemptId {
    pub(crate) task: TaskId,
    pub(crate) epoch: Epoch,
}

impl AttemptId {
    pub(crate) fn of(offer: &Offer) -> Self {
        Self { task: offer.task.clone(), epoch: offer.epoch }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(pub(crate) u64);

/// How a lane must stop an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ask the worker, keep it.
    Cancel,
    /// Kill the worker.
    Kill,
}

/// How it stands with what is not the node's own when an offer comes.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) outbox_full: bool,
    /// A probe needs all sessions of the board.
    pub(crate) probing: bool,
    /// Sessions of devices, by the workers that have them now.
    pub(crate) held: Held,
}

/// What happens to the node.
#[derive(Debug)]
pub(crate) enum Event {
    Offer {
        offer: Box<Offer>,
        clock: (Millis, TimeSource),
        standing: Standing,
    },
    /// Came while the queue of offers was full; only its name was kept.
    Overflow(AttemptId),
    Revoke(AttemptId),
    Lane(Report),
    /// It says nothing any more: closed, or failed in itself.
    LaneEnded(LaneId),
    Capabilities(Vec<Capability>),
    /// An operator's word, which only an operator takes back.
    Drain,
    Resume,
    /// The node's own plan: an update, or another configuration.
    Pause,
    Continue,
    /// Finish within `grace`, then end with `exit`. The second one means now.
    Stop {
        exit: Exit,
        grace: Duration,
    },
    /// Time has passed.
    Tick,
}

/// What the daemon must do, in this order.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Store the event and publish it.
    Record(AttemptId, EventKind),
    /// Publish the event once, without storing it.
    Beat(AttemptId, EventKind),
    OpenLane {
        lane: LaneId,
        stream: StreamId,
    },
    Run {
        lane: LaneId,
        offer: Box<Offer>,
    },
    Stop(AttemptId, Stop),
    CloseLane(LaneId),
    Publish(NodeState),
    Exit(Exit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    Stopping {
        exit: Exit,
        deadline: Instant,
    },
    /// Has said `Exit`.
    Over,
}

#[derive(Debug)]
struct Lane {
    stream: StreamId,
    /// Given to it and not ended by it.
    attempts: u32,
    segments: u64,
    memory: u64,
    idle_since: Instant,
    /// Told to close; its worker may still be ending.
    closing: bool,
}

#[derive(Debug)]
struct Open {
    lane: LaneId,
    deadline: Instant,
    next_beat: Instant,
    decoded: u64,
    encoded: u64,
}

#[derive(Debug)]
pub(crate) struct Node {
    limits: Limits,
    worker_idle: Duration,
    mode: Mode,
    drained: bool,
    paused: bool,
    capabilities: Option<Vec<Capability>>,
    lanes: BTreeMap<LaneId, Lane>,
    next_lane: u64,
    open: BTreeMap<AttemptId, Open>,
    seen: HashSet<AttemptId>,
    seen_order: VecDeque<AttemptId>,
}

impl Node {
    /// `known`: attempts of an earlier life.
    pub(crate) fn new(
        limits: Limits,
        worker_idle: Duration,
        known: impl IntoIterator<Item = AttemptId>,
    ) -> Self {
        let mut node = Self {
            limits,
            worker_idle,
            mode: Mode::Running,
            drained: false,
            paused: false,
            capabilities: None,
            lanes: BTreeMap::new(),
            next_lane: 0,
            open: BTreeMap::new(),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
        };
        for attempt in known {
            node.remember(attempt);
        }
        node
    }

    pub(crate) fn state(&self) -> NodeState {
        match self.mode {
            Mode::Running if self.drained || self.paused => NodeState::Draining,
            Mode::Running => NodeState::Online,
            Mode::Stopping { .. } => NodeState::Draining,
            Mode::Over => NodeState::Offline,
        }
    }

    pub(crate) fn workers(&self) -> Vec<WorkerState> {
        let state = |lane: &Lane| WorkerState {
            stream: lane.stream.clone(),
            segments: lane.segments,
            busy: lane.attempts > 0,
            memory_bytes: lane.memory,
        };
        self.lanes.values().filter(|lane| !lane.closing).map(state).collect()
    }

    /// No attempt is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Accepted, and without its end.
    pub(crate) fn is_open(&self, attempt: &AttemptId) -> bool {
        self.open.contains_key(attempt)
    }

    /// When [`Event::Tick`] is due, if nothing else happens.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let attempts = self.open.values().map(|open| open.deadline.min(open.next_beat));
        let idle = self.lanes.values().filter(|lane| lane.attempts == 0 && !lane.closing);
        let idle = idle.map(|lane| lane.idle_since + self.worker_idle);
        let stop = match self.mode {
            Mode::Stopping { deadline, .. } => Some(deadline),
            Mode::Running | Mode::Over => None,
        };
        attempts.chain(idle).chain(stop).min()
    }

    pub(crate) fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Offer { offer, clock, standing } => self.offer(now, offer, clock, &standing, &mut actions),
            Event::Overflow(attempt) => {
                if self.remember(attempt.clone()) {
                    let fault = Fault::new(Code::Busy, "more offers came at once than this node can read");
                    actions.push(Action::Record(attempt, EventKind::Refused { fault }));
                }
            }
            Event::Revoke(attempt) => {
                let fault = Fault::new(Code::Revoked, "the gateway revoked the attempt");
                self.fail(&attempt, fault, Stop::Cancel, &mut actions);
                // An offer that the broker hands out after its revoke must not start.
                self.remember(attempt);
            }
            Event::Lane(report) => self.report(now, report, &mut actions),
            Event::LaneEnded(lane) => self.lane_ended(lane, &mut actions),
            Event::Capabilities(capabilities) => self.capabilities = Some(capabilities),
            Event::Drain => self.intake(&mut actions, |node| node.drained = true),
            Event::Resume => self.intake(&mut actions, |node| node.drained = false),
            Event::Pause => self.intake(&mut actions, |node| node.paused = true),
            Event::Continue => self.intake(&mut actions, |node| node.paused = false),
            Event::Stop { exit, grace } => match self.mode {
                Mode::Running => {
                    self.mode = Mode::Stopping { exit, deadline: now + grace };
                    actions.push(Action::Publish(NodeState::Draining));
                }
                Mode::Stopping { exit, .. } => self.mode = Mode::Stopping { exit, deadline: now },
                Mode::Over => {}
            },
            Event::Tick => {}
        }
        self.tick(now, &mut actions);
        actions
    }

    /// Changes whether the node takes work, and says so where that makes a difference.
    fn intake(&mut self, actions: &mut Vec<Action>, change: impl FnOnce(&mut Self)) {
        let before = self.state();
        change(self);
        if self.state() != before {
            actions.push(Action::Publish(self.state()));
        }
    }

    fn offer(
        &mut self,
        now: Instant,
        offer: Box<Offer>,
        (wall, source): (Millis, TimeSource),
        standing: &Standing,
        actions: &mut Vec<Action>,
    ) {
        let Standing { outbox_full, probing, held } = standing;
        let attempt = AttemptId::of(&offer);
        if !self.remember(attempt.clone()) {
            return;
        }
        let both_synced = source == TimeSource::Ntp && offer.header.ts_src == TimeSource::Ntp;
        let lane = self.lane_of(&offer.stream);
        let live = self.lanes.values().filter(|lane| !lane.closing);
        let (closing, idle) = self.without_work(lane);
        let used = held.without(&idle.iter().chain(&closing).copied().collect());
        let view = View {
            draining: self.state() != NodeState::Online,
            outbox_full: *outbox_full,
            now: both_synced.then_some(wall),
            limits: self.limits,
            capabilities: self.capabilities.as_deref().filter(|_| !probing),
            lane: lane.and_then(|id| self.lanes.get(&id)).map(|lane| lane.attempts),
            // At most `limits.workers`, which is a u32.
            lanes: u32::try_from(live.count()).unwrap_or(u32::MAX),
            idle_lane: !idle.is_empty(),
            // A lane at work does its segments one after the other where there is no room for another worker.
            used: (self.starts_worker(lane, held) && !self.works(lane)).then_some(&used),
        };
        if let Err(fault) = admit(&offer, view) {
            actions.push(Action::Record(attempt, EventKind::Refused { fault }));
            return;
        }
        actions.push(Action::Record(attempt.clone(), EventKind::Accepted));
        self.make_room(&offer, lane, held, actions);
        let lane = lane.unwrap_or_else(|| {
            self.next_lane += 1;
            let id = LaneId(self.next_lane);
            let stream = offer.stream.clone();
            let lane = Lane {
                stream: stream.clone(),
                attempts: 0,
                segments: 0,
                memory: 0,
                idle_since: now,
                closing: false,
            };
            self.lanes.insert(id, lane);
            actions.push(Action::OpenLane { lane: id, stream });
            id
        });
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.attempts += 1;
        }
        // The lease counts from the gateway's sending; where the clocks cannot be compared, from our reading.
        let age = if both_synced { wall.0.saturating_sub(offer.header.ts.0) } else { 0 };
        let runtime = Duration::from_millis(offer.lease.runtime.0.saturating_sub(age));
        let open = Open { lane, deadline: now + runtime, next_beat: now + BEAT, decoded: 0, encoded: 0 };
        self.open.insert(attempt, open);
        actions.push(Action::Run { lane, offer });
    }

    /// Lanes that are told to close, and those without work, the one that is idle longest first; not `own`.
    fn without_work(&self, own: Option<LaneId>) -> (BTreeSet<LaneId>, Vec<LaneId>) {
        let of = |closing: bool| self.lanes.iter().filter(move |(_, lane)| lane.closing == closing);
        let idle = of(false).filter(|(id, lane)| lane.attempts == 0 && own != Some(**id));
        let mut idle: Vec<LaneId> = idle.map(|(id, _)| *id).collect();
        idle.sort_by_key(|id| self.lanes[id].idle_since);
        (of(true).map(|(id, _)| *id).collect(), idle)
    }

    /// Closes lanes without work until the offer, which is taken, has its place.
    fn make_room(&mut self, offer: &Offer, lane: Option<LaneId>, held: &Held, actions: &mut Vec<Action>) {
        let starts_worker = self.starts_worker(lane, held);
        let (mut closing, idle) = self.without_work(lane);
        for idlest in idle {
            let live = self.lanes.values().filter(|lane| !lane.closing).count();
            let crowded = lane.is_none() && live >= self.limits.workers as usize;
            let capabilities = self.capabilities.as_deref().unwrap_or_default();
            let used = held.without(&closing);
            let full = || room(&offer.ladder, capabilities, &used).is_err();
            let lacking = || lacks(&offer.ladder, capabilities, &used);
            if !(crowded || starts_worker && full()) {
                return;
            }
            if !crowded && !lacking().iter().any(|pool| held.has(idlest, pool)) {
                continue;
            }
            closing.insert(idlest);
            self.close(idlest, actions);
        }
    }

    fn works(&self, lane: Option<LaneId>) -> bool {
        lane.and_then(|id| self.lanes.get(&id)).is_some_and(|lane| lane.attempts > 0)
    }

    /// Whether the lane would start another worker for one more segment, as far as the node can tell.
    fn starts_worker(&self, lane: Option<LaneId>, held: &Held) -> bool {
        let Some((id, lane)) = lane.and_then(|id| self.lanes.get_key_value(&id)) else { return true };
        lane.attempts < self.limits.in_flight && held.workers(*id) <= lane.attempts as usize
    }

    fn report(&mut self, now: Instant, report: Report, actions: &mut Vec<Action>) {
        match report {
            Report::Progress { attempt, decoded, encoded } => {
                if let Some(open) = self.open.get_mut(&attempt) {
                    (open.decoded, open.encoded) = (decoded, encoded);
                }
            }
            Report::Ended { lane, attempt, result, memory } => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.attempts = lane.attempts.saturating_sub(1);
                    (lane.segments, lane.memory, lane.idle_since) = (lane.segments + 1, memory, now);
                }
                // Not open: it was revoked or ran out of time, and has its end already.
                if self.open.remove(&attempt).is_some() {
                    let kind = match result {
                        Ok(report) => EventKind::Done { report },
                        Err(fault) => EventKind::Failed { fault },
                    };
                    actions.push(Action::Record(attempt, kind));
                }
            }
            // The daemon's: what the node can do changes by `Event::Capabilities`.
            Report::Hardware { .. } => {}
        }
    }

    fn lane_ended(&mut self, lane: LaneId, actions: &mut Vec<Action>) {
        self.lanes.remove(&lane);
        let left = self.open.iter().filter(|(_, open)| open.lane == lane).map(|(id, _)| id.clone());
        for attempt in left.collect::<Vec<_>>() {
            let fault = Fault::new(Code::Interrupted, "the agent failed during the attempt");
            self.fail(&attempt, fault, Stop::Kill, actions);
        }
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let late: Vec<AttemptId> =
            self.open.iter().filter(|(_, open)| open.deadline <= now).map(|(id, _)| id.clone()).collect();
        for attempt in late {
            let fault = Fault::new(Code::TooSlow, "the attempt's runtime is over");
            self.fail(&attempt, fault, Stop::Kill, actions);
        }
        for (attempt, open) in self.open.iter_mut().filter(|(_, open)| open.next_beat <= now) {
            open.next_beat = now + BEAT;
            let kind = EventKind::Progress { decoded: open.decoded, encoded: open.encoded };
            actions.push(Action::Beat(attempt.clone(), kind));
        }
        let idle =
            |lane: &Lane| lane.attempts == 0 && !lane.closing && lane.idle_since + self.worker_idle <= now;
        let idle: Vec<LaneId> = self.lanes.iter().filter(|(_, lane)| idle(lane)).map(|(id, _)| *id).collect();
        for lane in idle {
            self.close(lane, actions);
        }
        if let Mode::Stopping { exit, deadline } = self.mode {
            if deadline <= now {
                for attempt in self.open.keys().cloned().collect::<Vec<_>>() {
                    let fault = Fault::new(Code::Interrupted, "the agent stopped during the attempt");
                    self.fail(&attempt, fault, Stop::Kill, actions);
                }
            }
            if self.open.is_empty() {
                self.mode = Mode::Over;
                actions.push(Action::Exit(exit));
            }
        }
    }

    fn fail(&mut self, attempt: &AttemptId, fault: Fault, stop: Stop, actions: &mut Vec<Action>) {
        if self.open.remove(attempt).is_some() {
            actions.push(Action::Record(attempt.clone(), EventKind::Failed { fault }));
            actions.push(Action::Stop(attempt.clone(), stop));
        }
    }

    fn close(&mut self, id: LaneId, actions: &mut Vec<Action>) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.closing = true;
            actions.push(Action::CloseLane(id));
        }
    }

    fn lane_of(&self, stream: &StreamId) -> Option<LaneId> {
        self.lanes.iter().find(|(_, lane)| lane.stream == *stream && !lane.closing).map(|(id, _)| *id)
    }

    /// False where it was known.
    fn remember(&mut self, attempt: AttemptId) -> bool {
        if !self.seen.insert(attempt.clone()) {
            return false;
        }
        self.seen_order.push_back(attempt);
        if self.seen_order.len() > REMEMBERED
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
