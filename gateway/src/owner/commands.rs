//! Commands to nodes, and who waits for their replies.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use headwater_protocol::message::{Command, CommandKind, Extra, Header, Reply};
use headwater_protocol::topic::Channel;
use headwater_protocol::{Fault, NodeId};
use tokio::sync::oneshot;

use super::Running;
use crate::schedule::{Core, Now};

/// Who was asked, when and until when, and who wants to know.
pub(super) struct Asked {
    node: NodeId,
    /// The first that its agent said since: the one that may answer. None where it is away.
    agent: Option<Header>,
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
            let (at, agent) = (Instant::now(), self.owner.core.word(&node).cloned());
            self.commands.waiting.insert(id, Asked { node, agent, at, until: at + patience, answer });
        }
    }
}

/// Whether a message is of another process than an earlier one: each counts its messages from the start.
fn is_another_life(then: &Header, now: &Header) -> bool {
    then.boot_id != now.boot_id || (then.ts != now.ts && now.seq <= then.seq)
}

impl Commands {
    /// Who asked for more than a node answered in time is told so. One that is away has no longer than the command
    /// itself: it will not be given it any more. One whose agent began anew meanwhile knows nothing of it.
    pub(super) fn forget_late(&mut self, core: &Core) {
        let now = Instant::now();
        self.waiting.retain(|_, asked| {
            let word = core.word(&asked.node);
            asked.agent = asked.agent.take().or_else(|| word.cloned());
            let same = asked.agent.as_ref().zip(word).is_some_and(|(then, now)| !is_another_life(then, now));
            asked.until > now && (asked.at + COMMAND_LIFE > now || same) && !asked.answer.is_closed()
        });
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

#[cfg(test)]
mod tests {
    use headwater_protocol::Millis;
    use headwater_protocol::message::TimeSource;

    use super::*;

    #[test]
    fn an_agent_that_counts_from_the_start_again_is_another_one() {
        let said = |boot: &str, ts, seq| Header {
            v: 1,
            ts: Millis(ts),
            ts_src: TimeSource::Rtc,
            boot_id: boot.to_owned(),
            seq,
        };
        let first = said("a", 1_000, 1);
        assert!(!is_another_life(&first, &first), "it is the broker that sent it again");
        assert!(!is_another_life(&first, &said("a", 2_000, 7)), "it goes on");
        assert!(is_another_life(&first, &said("a", 2_000, 1)));
        assert!(is_another_life(&said("a", 1_000, 7), &said("a", 2_000, 3)));
        assert!(is_another_life(&first, &said("b", 2_000, 7)));
    }
}
