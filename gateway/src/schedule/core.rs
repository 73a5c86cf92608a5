//! Streams, tasks and attempts: submitting, placing, concluding, and the clocks.

use std::collections::{BTreeMap, HashMap};

use headwater_protocol::message::{
    Extra, Header, Input, Lease, NodeState, Offer, Output, Revoke, TimeSource,
};
use headwater_protocol::{Class, Code, Epoch, Fault, Millis, NodeId, StreamId, TaskId, VERSION};

use super::choose::{Candidate, Decision, Wanted, choose};
use super::{
    Action, Attempt, GRACE_MS, IDLE_MS, Node, Now, Outcome, Phase, Policy, Stream, Submission, Task, Won,
};
use crate::grants::Grant;
use crate::store::{Ending, Write};
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
    pub(super) out: Vec<Action>,
    next_run: u64,
    seq: u64,
}

impl Core {
    /// `positions` and `next_run` come from the store.
    pub fn new(policy: Policy, positions: HashMap<NodeId, (String, u64)>, next_run: u64) -> Self {
        Self {
            policy,
            nodes: BTreeMap::new(),
            streams: HashMap::new(),
            tasks: BTreeMap::new(),
            positions,
            out: Vec::new(),
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
        if !self.streams.contains_key(&stream) {
            let ladder = match submission.wanted {
                Ok(ladder) => ladder,
                Err(text) => return refuse(self, Outcome::BadLadder(text)),
            };
            if self.streams.len() >= self.policy.streams {
                return refuse(self, Outcome::Full("too many streams at once"));
            }
            let run = self.next_run;
            self.next_run += 1;
            self.out.push(Action::Write(Write::StreamOpened {
                stream: stream.clone(),
                run,
                ladder: ladder.clone(),
                resolution: submission.resolution.clone(),
                at: now.unix,
            }));
            self.streams.insert(stream.clone(), Stream { run, ladder, node: None, last_push: now.mono });
        }
        if self.tasks.values().filter(|other| other.stream == stream).count()
            >= self.policy.in_flight_per_stream
        {
            return refuse(self, Outcome::Full("too many segments of this stream at once"));
        }
        let waiting = self.tasks.values().filter(|task| !task.attempts.iter().any(Attempt::is_live)).count();
        if waiting >= self.policy.waiting {
            return refuse(self, Outcome::NoSession);
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
            sha256: submission.sha256,
            duration: submission.duration,
            at: now.unix,
        }));
        let Some(ladder) = entry.ladder.clone() else {
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
                duration: submission.duration,
                ladder,
                deadline: now.mono + self.policy.deadline_ms,
                attempts: Vec::new(),
                tries: 0,
                unable: Vec::new(),
                avoid: Vec::new(),
                accused_by: Vec::new(),
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
        self.place_waiting(now);
    }

    /// An attempt whose lease is over or whose node is gone.
    pub(super) fn lose(&mut self, id: &TaskId, epoch: Epoch, fault: Fault, now: Now) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(attempt) = task.attempts.iter_mut().find(|a| a.epoch == epoch && a.is_live()) else {
            return;
        };
        attempt.phase = Phase::Lost;
        let node = attempt.node.clone();
        self.out.push(Action::Write(Write::AttemptEnded {
            task: id.clone(),
            epoch,
            code: Some(fault.code),
            at: now.unix,
        }));
        self.after_fault(id, &node, fault, now);
    }

    /// Decides what a fault means for the task, by its class.
    pub(super) fn after_fault(&mut self, id: &TaskId, node: &NodeId, fault: Fault, now: Now) {
        self.out.push(Action::NodesChanged);
        let class = fault.code.class();
        if class == Class::Node
            && let Some(entry) = self.nodes.get_mut(node)
        {
            // Half a second after the first, a minute at most.
            let rest = (500u64 << entry.strikes.min(7)).min(60_000);
            entry.strikes += 1;
            entry.rests_until = now.mono + rest;
            entry.rests_until_unix = now.unix + rest;
        }
        let others_could = |core: &Self, task: &Task| {
            core.candidates(&task.stream, now)
                .iter()
                .any(|c| !task.accused_by.contains(&c.node) && c.is_able(&wanted(task, None, &codecs(task))))
        };
        let Some(task) = self.tasks.get_mut(id) else { return };
        if let Some(stream) = self.streams.get_mut(&task.stream)
            && stream.node.as_ref() == Some(node)
            && class != Class::Input
        {
            stream.node = None;
        }
        task.last_fault = Some(fault.clone());
        match class {
            Class::Input => {
                task.accused_by.push(node.clone());
                task.avoid.push(node.clone());
            }
            Class::Capability => task.unable.push(node.clone()),
            Class::Node | Class::Deadline => task.avoid.push(node.clone()),
            Class::Transient => {
                // A node that went away says nothing about the next one's chances.
                if fault.code != Code::Interrupted {
                    task.not_before = now.mono + (100u64 << task.tries.min(5));
                }
                if !matches!(fault.code, Code::Busy | Code::Draining) {
                    task.avoid.push(node.clone());
                } else if let Some(entry) = self.nodes.get_mut(node) {
                    entry.busy_until = now.mono + 200;
                }
            }
        }
        let task = self.tasks[id].clone();
        if task.attempts.iter().any(Attempt::is_live) {
            return;
        }
        if class == Class::Input && (task.accused_by.len() >= 2 || !others_could(self, &task)) {
            return self.fail(id, fault.clone(), Outcome::Input(fault), now);
        }
        if task.tries >= self.policy.attempts {
            return self.fail(id, fault.clone(), Outcome::Exhausted(fault), now);
        }
        self.place(id, now);
    }

    /// Places everything that waits, the oldest first.
    pub(super) fn place_waiting(&mut self, now: Now) {
        let waiting: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| !task.attempts.iter().any(Attempt::is_live))
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            self.place(&id, now);
        }
    }

    fn place(&mut self, id: &TaskId, now: Now) {
        let Some(task) = self.tasks.get(id) else { return };
        if now.mono < task.not_before {
            return;
        }
        let codecs = codecs(task);
        let sticky = self.streams.get(&task.stream).and_then(|stream| stream.node.clone());
        let candidates = self.candidates(&task.stream, now);
        match choose(&candidates, &wanted(task, sticky.as_ref(), &codecs)) {
            Decision::Offer(node) => self.offer(id, node, now),
            Decision::Wait => {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.nobody_since = None;
                }
            }
            Decision::Nobody => {
                let may_come_back = task.tries > 0
                    && self.nodes.keys().any(|node| !task.unable.contains(node))
                    && now.mono < task.nobody_since.unwrap_or(now.mono) + GRACE_MS;
                if may_come_back {
                    if let Some(task) = self.tasks.get_mut(id) {
                        task.nobody_since.get_or_insert(now.mono);
                    }
                    return;
                }
                let fault = task
                    .last_fault
                    .clone()
                    .unwrap_or_else(|| Fault::new(Code::NoEncoder, "no node that can do this is there"));
                self.fail(id, fault, Outcome::NoSession, now);
            }
        }
    }

    fn offer(&mut self, id: &TaskId, node: NodeId, now: Now) {
        let header = self.header(now);
        let Some(task) = self.tasks.get_mut(id) else { return };
        let epoch = Epoch(u32::try_from(task.attempts.len()).unwrap_or(u32::MAX) + 1);
        task.nobody_since = None;
        task.tries += 1;
        let runtime =
            (task.duration.0.saturating_mul(self.policy.runtime_factor)).max(self.policy.runtime_min_ms);
        task.attempts.push(Attempt {
            epoch,
            node: node.clone(),
            phase: Phase::Offered { until: now.mono + self.policy.accept_ms },
            runtime_until: now.mono + runtime,
        });
        let outputs = task.ladder.renditions();
        let base = format!("/v1/attempts/{id}/{epoch}");
        let offer = Offer {
            header,
            task: id.clone(),
            epoch,
            stream: task.stream.clone(),
            segment: task.segment,
            lease: Lease {
                accept: Millis(self.policy.accept_ms),
                progress: Millis(self.policy.progress_ms),
                runtime: Millis(runtime),
            },
            ladder: task.ladder.clone(),
            input: Input {
                path: format!("{base}/input"),
                container: task.container,
                bytes: task.bytes,
                duration: task.duration,
            },
            outputs: outputs
                .iter()
                .map(|r| Output { rendition: r.name.clone(), path: format!("{base}/{}", r.name) })
                .collect(),
            extra: Extra::new(),
        };
        let grant = Grant {
            node: node.clone(),
            stream: task.stream.clone(),
            segment: task.segment,
            container: task.container,
            bytes: task.bytes,
            outputs: outputs.iter().map(|r| (r.name.clone(), r.container)).collect(),
        };
        if let Some(stream) = self.streams.get_mut(&task.stream) {
            stream.node.get_or_insert_with(|| node.clone());
        }
        self.out.push(Action::Grant { task: id.clone(), epoch, grant });
        self.out.push(Action::Offer { node: node.clone(), offer: Box::new(offer) });
        self.out.push(Action::Write(Write::AttemptNew { task: id.clone(), epoch, node, at: now.unix }));
        self.out.push(Action::NodesChanged);
    }

    /// The task ends without a winner.
    pub(super) fn fail(&mut self, id: &TaskId, fault: Fault, outcome: Outcome, now: Now) {
        let Some(task) = self.tasks.remove(id) else { return };
        self.close_attempts(id, &task, now);
        self.out.push(Action::Discard { task: id.clone(), keep: None });
        self.out.push(Action::Write(Write::TaskEnded {
            task: id.clone(),
            ending: Ending::Failed(fault),
            attempts: u32::try_from(task.attempts.len()).unwrap_or(u32::MAX),
            at: now.unix,
        }));
        self.out.push(Action::Answer { task: id.clone(), outcome });
    }

    /// The first valid result. A second one finds no task any more.
    pub(super) fn win(
        &mut self,
        id: &TaskId,
        epoch: Epoch,
        node: &NodeId,
        report: headwater_protocol::SegmentReport,
        now: Now,
    ) {
        let Some(task) = self.tasks.remove(id) else { return };
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.done += 1;
            entry.strikes = 0;
        }
        self.close_attempts(id, &task, now);
        let attempts = u32::try_from(task.attempts.len()).unwrap_or(u32::MAX);
        self.out.push(Action::Write(Write::Winner {
            task: id.clone(),
            stream: task.stream.clone(),
            epoch,
            node: node.clone(),
            report: report.clone(),
            attempts,
            at: now.unix,
        }));
        if attempts > 1 {
            let keep = Some(epoch);
            self.out.push(Action::Discard { task: id.clone(), keep });
        }
        let won = Won { epoch, node: node.clone(), ladder: task.ladder, report, attempts };
        self.out.push(Action::Answer { task: id.clone(), outcome: Outcome::Done(Box::new(won)) });
        self.out.push(Action::NodesChanged);
    }

    fn close_attempts(&mut self, id: &TaskId, task: &Task, now: Now) {
        for attempt in &task.attempts {
            self.out.push(Action::EndGrant { task: id.clone(), epoch: attempt.epoch });
            if attempt.phase == Phase::Ended {
                continue;
            }
            self.out.push(Action::Revoke {
                node: attempt.node.clone(),
                task: id.clone(),
                epoch: attempt.epoch,
            });
            if attempt.is_live() {
                self.out.push(Action::Write(Write::AttemptEnded {
                    task: id.clone(),
                    epoch: attempt.epoch,
                    code: Some(Code::Revoked),
                    at: now.unix,
                }));
            }
        }
    }

    pub(super) fn candidates(&self, stream: &StreamId, now: Now) -> Vec<Candidate> {
        self.nodes.iter().filter_map(|(id, node)| self.candidate(id, node, stream, now)).collect()
    }

    fn candidate(&self, id: &NodeId, node: &Node, stream: &StreamId, now: Now) -> Option<Candidate> {
        let birth = node.birth.as_ref()?;
        let live = self.tasks.values().flat_map(|task| {
            let here = task.attempts.iter().filter(|a| a.node == *id && a.is_live());
            here.map(|_| &task.stream)
        });
        let mut streams: Vec<&StreamId> = live.collect();
        let running = streams.len();
        let running_here = streams.iter().filter(|s| **s == stream).count();
        streams.sort();
        streams.dedup();
        let encoders = || {
            let kind = headwater_protocol::CapabilityKind::Encode;
            birth.capabilities.iter().filter(move |capability| capability.kind == kind)
        };
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Some(Candidate {
            node: id.clone(),
            online: node.heard && node.state == NodeState::Online,
            resting: now.mono < node.rests_until || now.mono < node.busy_until,
            encodes: encoders().filter_map(|capability| capability.codec).collect(),
            max_input_bytes: birth.limits.max_input_bytes,
            workers: birth.limits.workers,
            queue: birth.limits.queue,
            streams: small(streams.len()),
            running: small(running),
            running_here: small(running_here),
            speed: encoders()
                .map(|c| c.speed_fps * f64::from(c.width.0) * f64::from(c.height.0))
                .fold(0.0, f64::max),
        })
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

    pub fn node_views(&self, now: Now) -> Vec<NodeView> {
        let view = |(id, node): (&NodeId, &Node)| NodeView {
            node: id.clone(),
            state: if node.heard { node.state } else { NodeState::Offline },
            last_seen: Millis(node.last_seen),
            birth: node.birth.clone(),
            telemetry: node.telemetry.clone(),
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
            done: node.done,
            failed: node.failed,
            resting_until: (now.mono < node.rests_until).then_some(Millis(node.rests_until_unix)),
        };
        self.nodes.iter().map(view).collect()
    }

    /// Tasks without a live attempt, and all.
    pub fn queue_depth(&self) -> (usize, usize) {
        let waiting = self.tasks.values().filter(|task| !task.attempts.iter().any(Attempt::is_live)).count();
        (waiting, self.tasks.len())
    }

    pub fn live_streams(&self) -> usize {
        self.streams.len()
    }

    pub fn segment_of(&self, task: &TaskId) -> Option<(&StreamId, u64)> {
        self.tasks.get(task).map(|task| (&task.stream, task.segment))
    }
}

fn codecs(task: &Task) -> Vec<headwater_protocol::Codec> {
    task.ladder.renditions().iter().map(|rendition| rendition.codec).collect()
}

fn wanted<'a>(
    task: &'a Task,
    sticky: Option<&'a NodeId>,
    codecs: &'a [headwater_protocol::Codec],
) -> Wanted<'a> {
    Wanted { codecs, bytes: task.bytes, sticky, unable: &task.unable, avoid: &task.avoid }
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
