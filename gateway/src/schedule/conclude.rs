//! What a fault or a result means for its task.

use headwater_protocol::{Class, Code, Epoch, Fault, NodeId, TaskId};

use super::core::Core;
use super::place::{codecs, wanted};
use super::{Action, Attempt, Now, Outcome, Phase, Task, Won};
use crate::store::{Ending, Write};

impl Core {
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
        let mut fault = fault;
        let mut poison = false;
        if matches!(fault.code, Code::WorkerCrashed | Code::WorkerHung) && !task.killed_on.contains(node) {
            task.killed_on.push(node.clone());
            poison = task.killed_on.len() >= 2;
        }
        if poison {
            fault.text =
                format!("the segment killed workers of two nodes and is not tried again; {}", fault.text);
            // The segment did it: whoever pushes such ones must not put the fleet to rest.
            for node in &task.killed_on {
                if let Some(entry) = self.nodes.get_mut(node) {
                    entry.strikes = entry.strikes.saturating_sub(1);
                    entry.rests_until = now.mono;
                }
            }
        }
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
                    // Being busy costs no try, so it is the attempts that count.
                    let earlier = u32::try_from(task.attempts.len()).unwrap_or(u32::MAX).saturating_sub(1);
                    let shift = if fault.code == Code::Busy { earlier.min(4) } else { task.tries.min(5) };
                    task.not_before = now.mono + (100u64 << shift);
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
        if poison || task.tries >= self.policy.attempts {
            return self.fail(id, fault.clone(), Outcome::Exhausted(fault), now);
        }
        self.place(id, now);
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
            entry.strikes = 0;
        }
        self.count(node, true);
        self.close_attempts(id, &task, now);
        if let Some(stream) = self.streams.get_mut(&task.stream).filter(|stream| stream.run == task.run) {
            stream.done.add(task.segment, &task.sha256);
        }
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

    pub(super) fn count(&mut self, node: &NodeId, done: bool) {
        let (all_done, failed) = self.counts.entry(node.clone()).or_default();
        *(if done { &mut *all_done } else { &mut *failed }) += 1;
        let (done, failed) = (*all_done, *failed);
        self.out.push(Action::Write(Write::Counts { node: node.clone(), done, failed }));
    }
}
