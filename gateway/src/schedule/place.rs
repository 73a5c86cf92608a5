//! Which node gets a task, and the offer to it.

use headwater_protocol::message::{Extra, Input, Lease, NodeState, Offer, Output};
use headwater_protocol::{Code, Epoch, Fault, Millis, NodeId, StreamId, TaskId};

use super::choose::{Candidate, Decision, Wanted, choose};
use super::core::Core;
use super::{Action, Attempt, Node, Now, Outcome, Phase, Task};
use crate::grants::Grant;
use crate::store::Write;

impl Core {
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

    pub(super) fn place(&mut self, id: &TaskId, now: Now) {
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
                let missed = |node: &Node| !node.heard && node.state == NodeState::Online;
                let returning = now.mono < self.returning_until && self.nodes.values().any(missed);
                let may_come_back = (task.tries > 0 || returning)
                    && self.nodes.keys().any(|node| !task.unable.contains(node))
                    && now.mono < task.nobody_since.unwrap_or(now.mono) + self.policy.absent_ms;
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
            evidence: Some(format!("/v1/evidence/{id}/{epoch}")),
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
        let keeps = self.streams.values().filter(|stream| stream.node.as_ref() == Some(id)).count();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Some(Candidate {
            node: id.clone(),
            online: node.heard && node.state == NodeState::Online,
            resting: now.mono < node.rests_until || now.mono < node.busy_until,
            encodes: encoders().filter_map(|capability| capability.codec).collect(),
            max_input_bytes: birth.limits.max_input_bytes,
            workers: birth.limits.workers,
            in_flight: birth.limits.in_flight,
            queue: birth.limits.queue,
            streams: small(streams.len()),
            running: small(running),
            running_here: small(running_here),
            keeps: small(keeps),
            speed: encoders()
                .map(|c| c.speed_fps * f64::from(c.width.0) * f64::from(c.height.0))
                .fold(0.0, f64::max),
        })
    }
}

pub(super) fn codecs(task: &Task) -> Vec<headwater_protocol::Codec> {
    task.ladder.renditions().iter().map(|rendition| rendition.codec).collect()
}

pub(super) fn wanted<'a>(
    task: &'a Task,
    sticky: Option<&'a NodeId>,
    codecs: &'a [headwater_protocol::Codec],
) -> Wanted<'a> {
    Wanted { codecs, bytes: task.bytes, sticky, unable: &task.unable, avoid: &task.avoid }
}
