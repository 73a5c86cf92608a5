//! Messages: what nodes say goes to who knows of it; what they are told goes to the publisher.

use std::time::Duration;

use headwater_protocol::message::{Birth, Event as NodeEvent, Reply, Status, Telemetry};
use headwater_protocol::topic::{Channel, Topic, Writer};
use headwater_protocol::update::UpdateStatus;
use headwater_protocol::{FleetId, NodeId, VERSION};
use serde::Serialize;

use super::Running;
use crate::mqtt::{Outgoing, Publisher};
use crate::schedule::Now;

impl Running {
    pub(super) fn message(&mut self, topic: &Topic, payload: &[u8], now: Now) {
        let node = &topic.node;
        if topic.fleet != self.owner.fleet || topic.channel.writer() != Writer::Node {
            return;
        }
        // A removed retained message is empty.
        if payload.is_empty() {
            return;
        }
        let result = match topic.channel {
            Channel::Birth => read::<Birth>(payload).and_then(|birth| own(node, birth)).map(|birth| {
                self.remind(node, &birth, now);
                self.owner.core.birth(node, birth, now);
                self.node_returned(node);
            }),
            Channel::Status => read::<Status>(payload).map(|status| {
                tracing::info!(%node, state = ?status.state, "node status");
                self.owner.core.status(node, &status, now);
                self.node_returned(node);
            }),
            Channel::Telemetry => {
                read::<Telemetry>(payload).map(|telemetry| self.owner.core.telemetry(node, telemetry, now))
            }
            Channel::Event => read::<NodeEvent>(payload).map(|event| {
                let puts = self.owner.grants.puts(&event.task, event.epoch);
                self.owner.core.event(node, event, &puts, now);
            }),
            Channel::Reply => read::<Reply>(payload).map(|reply| {
                if !self.update_replied(node, &reply, now) {
                    self.commands.replied(node, reply);
                }
            }),
            Channel::Update => {
                read::<UpdateStatus>(payload).map(|status| self.update_said(node, status, now))
            }
            Channel::Offer | Channel::Revoke | Channel::Ack | Channel::Command | Channel::Config => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(%node, channel = topic.channel.as_str(), %error, "message not understood");
        }
    }

    pub(super) fn send(
        &self,
        node: &NodeId,
        channel: Channel,
        message: &impl Serialize,
        life: Duration,
        correlation: Option<String>,
    ) -> bool {
        send(&self.owner.publisher, &self.owner.fleet, node, channel, message, life, correlation)
    }
}

pub(super) fn send(
    publisher: &Publisher,
    fleet: &FleetId,
    node: &NodeId,
    channel: Channel,
    message: &impl Serialize,
    life: Duration,
    correlation: Option<String>,
) -> bool {
    let topic = Topic { fleet: fleet.clone(), node: node.clone(), channel };
    match serde_json::to_vec(message) {
        Ok(payload) => publisher.send(Outgoing { topic, payload, life, correlation }),
        Err(error) => {
            tracing::error!(%topic, %error, "message not written");
            false
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("version {0} is not {VERSION}")]
    Version(u64),
    #[error("it is the birth of {0}")]
    Stranger(NodeId),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// The broker vouches for the topic; what is kept of a node is only what it wrote there of itself.
fn own(node: &NodeId, birth: Birth) -> Result<Birth, Unread> {
    if birth.node == *node { Ok(birth) } else { Err(Unread::Stranger(birth.node)) }
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, Unread> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        v: u64,
    }
    let Versioned { v } = serde_json::from_slice(payload)?;
    if v != u64::from(VERSION) {
        return Err(Unread::Version(v));
    }
    Ok(serde_json::from_slice(payload)?)
}
