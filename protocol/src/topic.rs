//! The one home of topic names. Building and parsing are inverses:
//!
//! ```
//! use headwater_protocol::{FleetId, NodeId, topic::{Channel, Topic}};
//!
//! let topic = Topic {
//!     fleet: FleetId::new("village").unwrap(),
//!     node: NodeId::new("orin-1").unwrap(),
//!     channel: Channel::Offer,
//! };
//! assert_eq!(topic.to_string(), "headwater/v1/village/orin-1/offer");
//! assert_eq!(topic.to_string().parse(), Ok(topic));
//! ```

use std::fmt;
use std::str::FromStr;

use crate::ids::{BadId, FleetId, NodeId};

/// First two levels of every topic.
pub const ROOT: &str = "headwater/v1";

/// Who may write on a channel; the other side reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    Node,
    Gateway,
}

macro_rules! channels {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $writer:ident, retain $retain:literal;)+) => {
        /// Last level of a topic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Channel { $($(#[$doc])* $name,)+ }

        impl Channel {
            pub const ALL: &[Channel] = &[$(Channel::$name,)+];

            pub fn as_str(self) -> &'static str {
                match self { $(Channel::$name => $text,)+ }
            }

            pub fn writer(self) -> Writer {
                match self { $(Channel::$name => Writer::$writer,)+ }
            }

            /// Whether the broker keeps the last message.
            pub fn retained(self) -> bool {
                match self { $(Channel::$name => $retain,)+ }
            }
        }
    };
}

channels! {
    /// [`crate::message::Birth`]
    Birth = "birth", Node, retain true;
    /// [`crate::message::Status`]
    Status = "status", Node, retain true;
    /// [`crate::message::Telemetry`]
    Telemetry = "telemetry", Node, retain false;
    /// [`crate::message::Event`]
    Event = "event", Node, retain false;
    /// [`crate::message::Reply`]
    Reply = "reply", Node, retain false;
    /// [`crate::update::UpdateStatus`]
    Update = "update", Node, retain true;
    /// [`crate::message::Offer`]
    Offer = "offer", Gateway, retain false;
    /// [`crate::message::Revoke`]
    Revoke = "revoke", Gateway, retain false;
    /// [`crate::message::Ack`]
    Ack = "ack", Gateway, retain false;
    /// [`crate::message::Command`]
    Command = "command", Gateway, retain false;
    /// [`crate::message::DesiredConfig`]
    Config = "config", Gateway, retain true;
}

/// `headwater/v1/{fleet}/{node}/{channel}`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    pub fleet: FleetId,
    pub node: NodeId,
    pub channel: Channel,
}

/// Why a text is not one of our topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTopic {
    #[error("topic {0:?} is not {ROOT}/FLEET/NODE/CHANNEL")]
    Shape(String),
    #[error("topic {0:?} names no channel of ours")]
    Channel(String),
    #[error(transparent)]
    Id(#[from] BadId),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}/{}/{}/{}", self.fleet, self.node, self.channel.as_str())
    }
}

impl FromStr for Topic {
    type Err = BadTopic;

    fn from_str(text: &str) -> Result<Self, BadTopic> {
        let shape = || BadTopic::Shape(text.to_owned());
        let rest = text.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).ok_or_else(shape)?;
        let mut levels = rest.split('/');
        let (Some(fleet), Some(node), Some(channel), None) =
            (levels.next(), levels.next(), levels.next(), levels.next())
        else {
            return Err(shape());
        };
        let channel = Channel::ALL
            .iter()
            .copied()
            .find(|known| known.as_str() == channel)
            .ok_or_else(|| BadTopic::Channel(text.to_owned()))?;
        Ok(Self { fleet: fleet.parse()?, node: node.parse()?, channel })
    }
}

/// What one node subscribes to: every channel the gateway writes, for this node only.
pub fn node_filters<'a>(fleet: &'a FleetId, node: &'a NodeId) -> impl Iterator<Item = String> + 'a {
    Channel::ALL
        .iter()
        .filter(|channel| channel.writer() == Writer::Gateway)
        .map(move |channel| Topic { fleet: fleet.clone(), node: node.clone(), channel: *channel }.to_string())
}

/// What the gateway of a fleet subscribes to: every channel a node writes, for all nodes.
pub fn gateway_filters(fleet: &FleetId) -> impl Iterator<Item = String> {
    Channel::ALL
        .iter()
        .filter(|channel| channel.writer() == Writer::Node)
        .map(move |channel| format!("{ROOT}/{fleet}/+/{}", channel.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_parses_back_to_itself() {
        for channel in Channel::ALL {
            let topic = Topic {
                fleet: FleetId::new("f").unwrap(),
                node: NodeId::new("n-1").unwrap(),
                channel: *channel,
            };
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
    }

    #[test]
    fn foreign_topics_are_refused_by_name() {
        for text in [
            "",
            "headwater/v1",
            "headwater/v2/f/n/offer",
            "headwater/v1/f/n/offer/x",
            "headwater/v1/f//offer",
        ] {
            assert!(text.parse::<Topic>().is_err(), "{text:?} was taken");
        }
        assert!(matches!("headwater/v1/f/n/gossip".parse::<Topic>(), Err(BadTopic::Channel(_))));
    }
}
