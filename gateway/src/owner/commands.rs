//! Commands to nodes, and who waits for their replies.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use headwater_protocol::message::{Command, CommandKind, Extra, Reply};
use headwater_protocol::topic::Channel;
use headwater_protocol::{Fault, NodeId};
use tokio::sync::oneshot;

use super::Running;
use crate::schedule::Now;

/// Who was asked, when and until when, and who wants to know.
pub(super) struct Asked {
    node: NodeId,
    at: Instant,
    until: Instant,
    answer: oneshot::Sender<Result<(), Fault>>,
}

pub(super) struct Commands {
    pub(super) waiting: HashMap<String, Asked>,
    pub(super) next: u64,
}

/// Commands without a reply yet; further ones are refused.
const COMMANDS: usize = 256;
/// A node that is away must not do hours later what was wanted now.
pub(super) const COMMAND_LIFE: Duration = Duration::from_secs(10);

impl Running {
    pub(super) fn command(
        &mut self,
        node: NodeId,
        command: CommandKind,
        patience: Duration,
        answer: oneshot::Sender<Result<(), Fault>>,
        now: Now,
    ) {
        if self.commands.waiting.len() >= COMMANDS {
            return;
        }
        let id = format!("c{}-{}", self.commands.next, now.unix);
        self.commands.next += 1;
        let header = self.owner.core.header(now);
        tracing::info!(%node, ?command, "command");
        let message = Command { header, id: id.clone(), command, extra: Extra::new() };
        if self.send(&node, Channel::Command, &message, COMMAND_LIFE, Some(id.clone())) {
            let at = Instant::now();
            self.commands.waiting.insert(id, Asked { node, at, until: at + patience, answer });
        }
    }
}

impl Commands {
    /// Who asked for more than a node answered in time is told so. One that is away has no longer than the command
    /// itself: it will not be given it any more.
    pub(super) fn forget_late(&mut self, is_there: impl Fn(&NodeId) -> bool) {
        let now = Instant::now();
        self.waiting
            .retain(|_, asked| asked.until > now && (asked.at + COMMAND_LIFE > now || is_there(&asked.node)));
    }

    pub(super) fn replied(&mut self, node: &NodeId, reply: Reply) {
        // Only the node that was asked may answer.
        if self.waiting.get(&reply.id).is_some_and(|asked| asked.node == *node)
            && let Some(asked) = self.waiting.remove(&reply.id)
        {
            drop(asked.answer.send(reply.fault.map_or(Ok(()), Err)));
        }
    }
}
