//! What nodes say: birth, status, telemetry and numbered events.

use headwater_protocol::message::{Birth, Event, EventKind, EventNumber, NodeState, Status, Telemetry};
use headwater_protocol::update::UpdateStatus;
use headwater_protocol::{Class, Code, Epoch, Fault, NodeId, SegmentReport, TaskId};

use super::core::Core;
use super::{Action, Attempt, Node, Now, Phase, Puts, RETURN_MS, Task};
use crate::store::Write;

impl Core {
    /// For retained messages, which may be old: a node that is known was seen when it was.
    fn known(&mut self, id: &NodeId, now: Now) -> &mut Node {
        self.nodes.entry(id.clone()).or_insert_with(|| Node::new(now.unix))
    }

    /// For a sign of life.
    fn node(&mut self, id: &NodeId, now: Now) -> &mut Node {
        let node = self.known(id, now);
        node.last_seen = now.unix;
        node
    }

    /// Without the broker nothing is known of any node; what runs is left to its lease.
    pub fn broker_down(&mut self) {
        self.returning_until = u64::MAX;
        for node in self.nodes.values_mut() {
            node.heard = false;
            node.word = None;
        }
        self.out.push(Action::NodesChanged);
    }

    /// Its nodes come back one by one; what waits for them is not refused before they had the time.
    pub fn broker_up(&mut self, now: Now) {
        self.returning_until = now.mono + RETURN_MS;
    }

    pub fn birth(&mut self, id: &NodeId, birth: Birth, now: Now) {
        let node = self.known(id, now);
        node.birth = Some(birth.clone());
        let seen = node.last_seen;
        self.out.push(Action::Write(Write::Birth { birth: Box::new(birth), seen }));
        self.out.push(Action::NodesChanged);
        self.place_waiting(now);
    }

    pub fn updated(&mut self, id: &NodeId, status: UpdateStatus, now: Now) {
        self.known(id, now).update = Some(status);
        self.out.push(Action::NodesChanged);
    }

    pub fn telemetry(&mut self, id: &NodeId, telemetry: Telemetry, now: Now) {
        let node = self.node(id, now);
        node.word = Some(telemetry.header.clone());
        node.telemetry = Some(telemetry);
        self.out.push(Action::NodesChanged);
    }

    pub fn status(&mut self, id: &NodeId, status: &Status, now: Now) {
        let node = self.known(id, now);
        let old_boot = node.birth.as_ref().is_some_and(|birth| {
            !status.header.boot_id.is_empty() && birth.header.boot_id != status.header.boot_id
        });
        if status.state == NodeState::Offline && old_boot && node.heard {
            // The will of a connection before the node's last boot, delivered late.
            return;
        }
        // The end of a connection that was there, or a beginning; not a last will that the broker kept.
        if node.is_there() || status.state != NodeState::Offline {
            node.last_seen = now.unix;
            self.out.push(Action::Write(Write::Seen { node: id.clone(), at: now.unix }));
        }
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.heard = true;
        node.state = status.state;
        // The will for its end was made when it connected.
        node.word = (status.state != NodeState::Offline).then(|| status.header.clone());
        self.out.push(Action::NodesChanged);
        if status.state == NodeState::Offline {
            let lost: Vec<(TaskId, Epoch)> = self
                .tasks
                .iter()
                .flat_map(|(task, entry)| {
                    let here = entry.attempts.iter().filter(|a| a.node == *id && a.is_live());
                    here.map(|attempt| (task.clone(), attempt.epoch))
                })
                .collect();
            for (task, epoch) in lost {
                let fault = Fault::new(Code::Interrupted, format!("node {id} went away"));
                self.lose(&task, epoch, fault, now);
            }
        }
        self.place_waiting(now);
    }

    /// An event; `puts` is what lies in the store for its attempt.
    pub fn event(&mut self, id: &NodeId, event: Event, puts: &Puts, now: Now) {
        self.node(id, now);
        let Some(number) = event.number.clone() else {
            if let EventKind::Progress { .. } = event.event {
                self.extend(id, &event.task, event.epoch, now);
            }
            return;
        };
        if !self.is_next(id, &number) {
            return;
        }
        self.positions.insert(id.clone(), (number.outbox.clone(), number.n));
        self.apply(id, event, puts, now);
        self.out.push(Action::Write(Write::Position { node: id.clone(), number: number.clone() }));
        self.out.push(Action::Ack { node: id.clone(), number });
        self.place_waiting(now);
    }

    /// Each number once and in order; what was seen is acknowledged again, a gap asks for what is missing.
    fn is_next(&mut self, id: &NodeId, number: &EventNumber) -> bool {
        match self.positions.get(id) {
            Some((outbox, last)) if *outbox == number.outbox => {
                if number.n == last + 1 {
                    return true;
                }
                let number = EventNumber { outbox: outbox.clone(), n: *last };
                self.out.push(Action::Ack { node: id.clone(), number });
                false
            }
            // A new outbox starts where we first hear of it.
            Some(_) | None => true,
        }
    }

    fn extend(&mut self, id: &NodeId, task: &TaskId, epoch: Epoch, now: Now) {
        let progress = self.policy.progress_ms;
        let Some(task) = self.tasks.get_mut(task) else { return };
        let Some(attempt) = task.attempts.iter_mut().find(|a| a.epoch == epoch && a.node == *id) else {
            return;
        };
        if attempt.is_live() {
            attempt.phase = Phase::Running { until: now.mono + progress };
        }
    }

    fn apply(&mut self, id: &NodeId, event: Event, puts: &Puts, now: Now) {
        let Event { task: task_id, epoch, event, .. } = event;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let ours = |a: &Attempt| a.epoch == epoch && a.node == *id && a.phase != Phase::Ended;
        let Some(index) = task.attempts.iter().position(ours) else { return };
        match event {
            EventKind::Accepted | EventKind::Progress { .. } => self.extend(id, &task_id, epoch, now),
            EventKind::Refused { fault } => {
                let counted = !matches!(fault.code, Code::Busy | Code::Draining | Code::OfferExpired);
                if !counted {
                    task.tries = task.tries.saturating_sub(1);
                }
                self.attempt_failed(&task_id, epoch, id, fault, now);
            }
            EventKind::Failed { fault } => {
                // What is wrong with the input says nothing about the node, and a device that is in use is not broken.
                if fault.code == Code::Busy {
                    task.tries = task.tries.saturating_sub(1);
                } else if fault.code.class() != Class::Input {
                    self.count(id, false);
                }
                self.attempt_failed(&task_id, epoch, id, fault, now);
            }
            EventKind::Done { report } => {
                if let Err(text) = whole(task, &report, puts) {
                    let fault = Fault::new(Code::BadOutput, text);
                    return self.attempt_failed(&task_id, epoch, id, fault, now);
                }
                task.attempts[index].phase = Phase::Ended;
                self.win(&task_id, epoch, id, *report, now);
            }
        }
    }

    fn attempt_failed(&mut self, task_id: &TaskId, epoch: Epoch, id: &NodeId, fault: Fault, now: Now) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let Some(attempt) = task.attempts.iter_mut().find(|a| a.epoch == epoch) else { return };
        let was_live = attempt.is_live();
        attempt.phase = Phase::Ended;
        self.out.push(Action::EndGrant { task: task_id.clone(), epoch });
        if !was_live {
            // Its loss was dealt with when the lease ended.
            return;
        }
        self.out.push(Action::Write(Write::AttemptEnded {
            task: task_id.clone(),
            epoch,
            code: Some(fault.code),
            at: now.unix,
        }));
        self.after_fault(task_id, id, fault, now);
    }
}

/// A result counts only if every rendition of the ladder lies in the store as reported.
fn whole(task: &Task, report: &SegmentReport, puts: &Puts) -> Result<(), String> {
    let asked = task.ladder.renditions();
    if report.renditions.len() != asked.len() {
        return Err(format!("{} renditions reported, {} asked for", report.renditions.len(), asked.len()));
    }
    for (asked, made) in asked.iter().zip(&report.renditions) {
        if asked.name != made.name {
            return Err(format!("rendition {} reported in the place of {}", made.name, asked.name));
        }
        match puts.get(&asked.name) {
            None => return Err(format!("rendition {} was not put", asked.name)),
            Some(bytes) if *bytes != made.bytes => {
                return Err(format!("rendition {}: {bytes} bytes put, {} reported", asked.name, made.bytes));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
