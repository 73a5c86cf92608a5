//! What nodes and the operator say to an update.

use headwater_protocol::update::{UpdateState, UpdateStatus};
use headwater_protocol::{Class, Code, Fault, Millis, NodeId, UpdateId};

use super::{Campaign, Progress, State};

/// Why the operator's wish does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the update is {state}; {why}")]
pub struct NotNow {
    state: &'static str,
    why: &'static str,
}

impl Campaign {
    /// A node's own word on its newest update; true where it changed something that must be remembered.
    pub fn reported(&mut self, node: &NodeId, status: &UpdateStatus, now: Millis) -> bool {
        let ours = self.is_order(&status.id);
        let Some(member) = self.members.get_mut(node).filter(|_| ours) else { return false };
        let given_up = matches!(&status.state, UpdateState::Failed { fault } if fault.code == Code::Revoked);
        // A node that never heard of its recall goes on with the order it has; one that gave up gets a new one.
        let older = member.order != status.id;
        if matches!(member.progress, Progress::Skipped { .. }) || (older && given_up) {
            return false;
        }
        member.order = status.id.clone();
        let next = match given_up && self.head.state != State::Running {
            true => Progress::Recalled,
            false => Progress::Node { state: status.state.clone() },
        };
        // A recall that is still on its way is not sent again for each word of the node's.
        if !(member.progress == Progress::Recalled && next.has_not_begun()) {
            member.sent = None;
        }
        // Bytes and percent are not worth a write; that it is alive counts.
        let changed = older || next.as_str() != member.progress.as_str();
        if changed || !next.is_over() {
            member.since = now;
        }
        (member.progress, member.away, member.unsure) = (next, None, false);
        changed
    }

    /// Whether an order has the id of this update, or one that a resume gave.
    fn is_order(&self, order: &UpdateId) -> bool {
        let rest = order.as_str().strip_prefix(self.id.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// A node's answer to its order. That it is on its disk shows in its status; a refusal shows only here.
    pub fn refused(&mut self, node: &NodeId, order: &UpdateId, fault: Fault, now: Millis) -> bool {
        let Some(member) = self.members.get_mut(node).filter(|member| member.order == *order) else {
            return false;
        };
        // One that is busy with something else is asked again.
        if member.progress != Progress::Ordered || fault.code.class() == Class::Transient {
            return false;
        }
        member.progress = Progress::Node { state: UpdateState::Failed { fault } };
        member.since = now;
        true
    }

    /// It has connected anew: what was sent before may be lost, and what it had may be, with its disk. A word of its own
    /// says otherwise.
    pub fn returned(&mut self, node: &NodeId) {
        if let Some(member) = self.members.get_mut(node) {
            (member.sent, member.away) = (None, None);
            member.unsure |= member.progress.has_not_begun();
        }
    }

    /// A node's answer to its recall: it knows. What it does then it says by itself.
    pub fn recall_heard(&mut self, node: &NodeId, order: &UpdateId) {
        if let Some(member) = self.members.get_mut(node)
            && member.order == *order
            && member.progress == Progress::Recalled
        {
            member.unsure = false;
        }
    }

    pub fn pause(&mut self) -> Result<(), NotNow> {
        match self.head.state {
            State::Running => {
                self.head.state = State::Paused;
                Ok(())
            }
            State::Paused | State::Stopped { .. } | State::Done | State::Cancelled => {
                Err(self.not_now("only a running one can be paused"))
            }
        }
    }

    /// Goes on; after a stop with the failures so far forgiven, and new orders for what was recalled.
    pub fn resume(&mut self) -> Result<(), NotNow> {
        match self.head.state {
            State::Paused => {}
            State::Stopped { .. } => {
                self.head.forgiven = self.failures();
                self.head.round += 1;
                let order = format!("{}-{}", self.id, self.head.round + 1);
                // Our ids leave room for the count.
                let Ok(order) = UpdateId::new(order) else { return Err(self.not_now("start a new one")) };
                for member in self.members.values_mut() {
                    if matches!(member.progress, Progress::Recalled | Progress::Pending) {
                        (member.progress, member.order, member.sent) =
                            (Progress::Pending, order.clone(), None);
                    }
                }
                self.head.soaking = None;
            }
            State::Running | State::Done | State::Cancelled => {
                return Err(self.not_now("only a paused or stopped one can be resumed"));
            }
        }
        self.head.state = State::Running;
        Ok(())
    }

    pub fn cancel(&mut self) -> Result<(), NotNow> {
        if self.head.state.is_final() {
            return Err(self.not_now("there is nothing left to cancel"));
        }
        self.head.state = State::Cancelled;
        Ok(())
    }

    fn not_now(&self, why: &'static str) -> NotNow {
        NotNow { state: self.head.state.as_str(), why }
    }
}
