//! What nodes and the operator say to an update.

use headwater_protocol::update::{UpdateState, UpdateStatus};
use headwater_protocol::{Code, Fault, Millis, NodeId, UpdateId};

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
        let Some(member) = self.members.get_mut(node).filter(|member| member.order == status.id) else {
            return false;
        };
        if matches!(member.progress, Progress::Skipped { .. }) {
            return false;
        }
        let given_up = matches!(&status.state, UpdateState::Failed { fault } if fault.code == Code::Revoked);
        let next = match given_up && self.head.state != State::Running {
            true => Progress::Recalled,
            false => Progress::Node { state: status.state.clone() },
        };
        // A recall that is still on its way is not sent again for each word of the node's.
        if !(member.progress == Progress::Recalled && next.has_not_begun()) {
            member.sent = None;
        }
        // Bytes and percent are not worth a write; that it is alive counts.
        let changed = next.as_str() != member.progress.as_str();
        (member.progress, member.since, member.away) = (next, now, None);
        changed
    }

    /// A node's answer to its order. That it is on its disk shows in its status; a refusal shows only here.
    pub fn refused(&mut self, node: &NodeId, order: &UpdateId, fault: Fault, now: Millis) -> bool {
        let Some(member) = self.members.get_mut(node).filter(|member| member.order == *order) else {
            return false;
        };
        if member.progress != Progress::Ordered {
            return false;
        }
        member.progress = Progress::Node { state: UpdateState::Failed { fault } };
        member.since = now;
        true
    }

    /// It has connected anew: what was sent before may be lost.
    pub fn returned(&mut self, node: &NodeId) {
        if let Some(member) = self.members.get_mut(node) {
            member.sent = None;
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
