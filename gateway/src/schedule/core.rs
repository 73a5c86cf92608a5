//! The state, what callers do to it, and the clocks.

use std::collections::{BTreeMap, HashMap};

use headwater_protocol::message::{Extra, Header, Revoke, TimeSource};
use headwater_protocol::{Code, Epoch, Fault, Millis, NodeId, StreamId, TaskId, VERSION};

use super::{
    Action, Attempt, DoneNumbers, IDLE_MS, Node, Now, Outcome, Phase, Policy, SEEN_MS, Stream, Submission,
    Task,
};
use crate::store::{Ending, Open, Remembered, Write};
use crate::views::{AttemptView, NodeView};

#[derive(Debug)]
pub struct Core {
    pub(super) policy: Policy,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) streams: HashMap<StreamId, Stream>,
    /// In order of arrival: task ids count up with time.
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// Highest event stored, per node and outbox.
    pub(super) positions: HashMap<NodeId, (String, u64)>,
    /// Segments done and failed, per node, of earlier lives too.
    pub(super) counts: HashMap<NodeId, (u64, u64)>,
    /// Until then (mono) a node that was online before the broker went may be heard of again.
    pub(super) returning_until: u64,
    pub(super) out: Vec<Action>,
    /// When signs of life were stored last (mono).
    seen_stored: u64,
    next_run: u64,
    seq: u64,
}

impl Core {
    pub fn new(policy: Policy, remembered: Remembered) -> Self {
        // The owner has taken the rest.
        let Remembered { positions, counts, next_run, births, campaigns: _, configs: _ } = remembered;
        let nodes = births.into_iter().map(|(node, (seen, birth))| {
            let known = Node { birth: Some(birth), ..Node::new(seen) };
            (node, known)
        });
        Self {
            policy,
            nodes: nodes.collect(),
            streams: HashMap::new(),
            tasks: BTreeMap::new(),
            positions,
            counts,
            returning_until: 0,
            out: Vec::new(),
            seen_stored: 0,
            next_run,
            seq: 0,
        }
    }

    /// What is to be done since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    /// A segment has arrived. Its answer is an action, now or later.
    pub fn submit(&mut self, submission: Submission, now: Now) {
        let Submission { task, stream, .. } = submission.clone();
        let refuse = |core: &mut Self, outcome| {
            core.out.push(Action::Discard { task: task.clone(), keep: None });
            core.out.push(Action::Answer { task: task.clone(), outcome });
        };
        if self.tasks.values().filter(|other| other.stream == stream).count()
            >= self.policy.in_flight_per_stream
        {
            return refuse(self, Outcome::Full("too many segments of this stream at once"));
        }
        let waiting = self.tasks.values().filter(|task| !task.attempts.iter().any(Attempt::is_live)).count();
        if waiting >= self.policy.waiting {
            return refuse(self, Outcome::NoSession);
        }
        let known = self.streams.get(&stream);
        let is_new = known.is_none();
        if known.is_none_or(|known| known.done.begins_anew(submission.segment, &submission.sha256)) {
            let ladder = match submission.wanted {
                Ok(ladder) => ladder,
                Err(text) => return refuse(self, Outcome::BadLadder(text)),
            };
            if is_new && self.streams.len() >= self.policy.streams {
                return refuse(self, Outcome::Full("too many streams at once"));
            }
            let opened = Stream {
                run: self.next_run,
                ladder,
                node: None,
                resolution: submission.resolution,
                opened: now.unix,
                last_push: now.mono,
                done: DoneNumbers::default(),
            };
            self.next_run += 1;
            self.out.push(Action::Write(Write::StreamOpened(opened.row(&stream))));
            self.streams.insert(stream.clone(), opened);
        }
        // The stream is there: it was found or made above.
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        entry.last_push = now.mono;
        self.out.push(Action::Write(Write::TaskNew {
            task: task.clone(),
            stream: stream.clone(),
            run: entry.run,
            segment: submission.segment,
            container: submission.container,
            bytes: submission.bytes,
            sha256: submission.sha256.clone(),
            duration: submission.duration,
            at: now.unix,
        }));
        let Some(ladder) = entry.ladder.clone() else {
            entry.done.add(submission.segment, &submission.sha256);
            self.out.push(Action::Write(Write::TaskEnded {
                task: task.clone(),
                ending: Ending::Passed,
                attempts: 0,
                at: now.unix,
            }));
            return self.out.push(Action::Answer { task, outcome: Outcome::Nothing });
        };
        self.tasks.insert(
            task.clone(),
            Task {
                stream,
                segment: submission.segment,
                container: submission.container,
                bytes: submission.bytes,
                sha256: submission.sha256,
                run: entry.run,
                duration: submission.duration,
                ladder,
                deadline: now.mono + self.policy.deadline_ms,
                attempts: Vec::new(),
                tries: 0,
                unable: Vec::new(),
                avoid: Vec::new(),
                accused_by: Vec::new(),
                killed_on: Vec::new(),
                last_fault: None,
                not_before: 0,
                nobody_since: None,
            },
        );
        self.place(&task, now);
    }

    /// Its caller hung up: nobody waits for the result.
    pub fn caller_gone(&mut self, task: &TaskId, now: Now) {
        let fault = Fault::new(Code::Revoked, "the caller hung up before the answer");
        self.fail(task, fault, Outcome::Gone, now);
        self.place_waiting(now);
    }

    /// Ends everything, for an orderly stop.
    pub fn stop(&mut self, now: Now) {
        let tasks: Vec<TaskId> = self.tasks.keys().cloned().collect();
        for task in tasks {
            let fault = Fault::new(Code::Interrupted, "the gateway stops");
            self.fail(&task, fault, Outcome::NoSession, now);
        }
        let streams: Vec<StreamId> = self.streams.drain().map(|(stream, _)| stream).collect();
        for stream in streams {
            self.out.push(Action::Write(Write::StreamEnded { stream }));
        }
    }

    /// Looks at the clocks; called a few times a second.
    pub fn tick(&mut self, now: Now) {
        let tasks: Vec<TaskId> = self.tasks.keys().cloned().collect();
        for id in tasks {
            let Some(task) = self.tasks.get(&id) else { continue };
            if now.mono >= task.deadline {
                let outcome = match &task.last_fault {
                    None if task.attempts.is_empty() => Outcome::NoSession,
                    None => Outcome::Exhausted(Fault::new(Code::TooSlow, "no node was done in time")),
                    Some(fault) => Outcome::Exhausted(fault.clone()),
                };
                let fault = Fault::new(Code::TooSlow, "the segment's deadline is over");
                self.fail(&id, fault, outcome, now);
                continue;
            }
            let over: Vec<(Epoch, NodeId, Fault)> = task
                .attempts
                .iter()
                .filter_map(|attempt| Some((attempt.epoch, attempt.node.clone(), overdue(attempt, now)?)))
                .collect();
            for (epoch, node, fault) in over {
                self.out.push(Action::Revoke { node, task: id.clone(), epoch });
                self.lose(&id, epoch, fault, now);
            }
        }
        let idle: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(stream, entry)| {
                now.mono >= entry.last_push + IDLE_MS
                    && !self.tasks.values().any(|task| task.stream == **stream)
            })
            .map(|(stream, _)| stream.clone())
            .collect();
        for stream in idle {
            self.streams.remove(&stream);
            self.out.push(Action::Write(Write::StreamEnded { stream }));
        }
        if now.mono >= self.seen_stored + SEEN_MS {
            self.seen_stored = now.mono;
            let there = self.nodes.iter().filter(|(_, node)| node.is_there());
            let seen = there.map(|(id, node)| Write::Seen { node: id.clone(), at: node.last_seen });
            self.out.extend(seen.map(Action::Write));
        }
        self.place_waiting(now);
    }

    /// Start of a message of ours.
    pub fn header(&mut self, now: Now) -> Header {
        self.seq += 1;
        Header {
            v: VERSION,
            ts: Millis(now.unix),
            ts_src: TimeSource::Rtc,
            boot_id: String::new(),
            seq: self.seq,
        }
    }

    pub fn revoke(&mut self, task: TaskId, epoch: Epoch, now: Now) -> Revoke {
        Revoke { header: self.header(now), task, epoch, extra: Extra::new() }
    }

    /// The last that a connected node's agent said of its state.
    pub fn word(&self, node: &NodeId) -> Option<&Header> {
        self.nodes.get(node).filter(|node| node.is_there())?.word.as_ref()
    }

    pub fn node_views(&self, now: Now) -> Vec<NodeView> {
        let view = |(id, node): (&NodeId, &Node)| NodeView {
            node: id.clone(),
            state: node.state(),
            last_seen: Millis(node.last_seen),
            birth: node.birth.clone(),
            telemetry: node.telemetry.clone(),
            update: node.update.clone(),
            running: self
                .tasks
                .iter()
                .flat_map(|(task, entry)| {
                    entry.attempts.iter().filter(|a| a.node == *id && a.is_live()).map(|a| AttemptView {
                        task: task.clone(),
                        epoch: a.epoch,
                        stream: entry.stream.clone(),
                        segment: entry.segment,
                    })
                })
                .collect(),
            done: self.counts.get(id).map_or(0, |(done, _)| *done),
            failed: self.counts.get(id).map_or(0, |(_, failed)| *failed),
            resting_until: (now.mono < node.rests_until).then_some(Millis(node.rests_until_unix)),
        };
        self.nodes.iter().map(view).collect()
    }

    pub fn fleet(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// Tasks without a live attempt, and all.
    pub fn queue_depth(&self) -> (usize, usize) {
        let waiting = self.tasks.values().filter(|task| !task.attempts.iter().any(Attempt::is_live)).count();
        (waiting, self.tasks.len())
    }

    pub fn open(&self) -> Open {
        Open {
            tasks: self.tasks.keys().cloned().collect(),
            streams: self.streams.iter().map(|(stream, entry)| entry.row(stream)).collect(),
        }
    }

    pub fn live_streams(&self) -> usize {
        self.streams.len()
    }
}

/// Which of its three clocks has run out.
fn overdue(attempt: &Attempt, now: Now) -> Option<Fault> {
    match attempt.phase {
        Phase::Offered { until } if now.mono >= until => {
            Some(Fault::new(Code::OfferExpired, "the node did not accept the offer in time"))
        }
        Phase::Running { until } if now.mono >= until => {
            Some(Fault::new(Code::TooSlow, "the node gave no sign of life"))
        }
        Phase::Offered { .. } | Phase::Running { .. } if now.mono >= attempt.runtime_until => {
            Some(Fault::new(Code::TooSlow, "the attempt took too long"))
        }
        Phase::Offered { .. } | Phase::Running { .. } | Phase::Lost | Phase::Ended => None,
    }
}
