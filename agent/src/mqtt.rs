//! The session with the broker. The only file that names `rumqttc`.
//!
//! ```text
//! owner ──Publisher (try, bounded)──▶ rumqttc ◀──▶ broker
//!   ▲                                    │
//!   ├── state: connected | lost          │ polled by one task that never publishes and never waits for the owner
//!   ├── offers (bounded), overflow ◀─────┤
//!   └── control: revoke, ack, command, ◀┘
//!       config
//! ```
//!
//! Each connection gets a new client. The library forgets unsent messages when a broker has lost the session, and
//! can loop for ever over a packet id that it kept; our outbox remembers what must arrive, so nothing of the
//! library's is worth keeping.

use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_protocol::error::in_one_line;
use headwater_protocol::message::{Ack, Command, DesiredConfig, MAX_MESSAGE, Offer, Revoke};
use headwater_protocol::proxy::{Login, Proxy};
use headwater_protocol::topic::{Channel, Topic, node_filters};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Filter, LastWill, Packet, PubAckReason, Publish, PublishProperties,
    SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing, ProxyAuth, ProxyType, TlsConfiguration, Transport};
use tokio::sync::{mpsc, watch};

use crate::identity::Node;
use crate::jitter::jitter;
use crate::node::AttemptId;
use crate::proxy::{self, ProxyError};

/// Unacknowledged publishes each way. The library's default of 65535 costs 14 MB.
const INFLIGHT: u16 = 32;
/// Publishes that wait for the connection. Full: the outbox sends later, telemetry is dropped.
const REQUESTS: usize = 64;
/// Offers that wait for the owner. Full: the offer's name goes to `overflow`, and it is refused as busy.
const OFFERS: usize = 32;
/// Full: dropped; the gateway's accept clock runs out.
const OVERFLOW: usize = 64;
/// Full: dropped; a later ack covers an earlier one, a lost revoke costs work, a command is asked for again.
const CONTROL: usize = 64;
const CONNECT_TIMEOUT_S: u64 = 10;
/// For each step where a broker that hung up is asked why.
const ASKED: Duration = Duration::from_secs(5);
/// Room for the topic and the properties around a message.
const PACKET_ROOM: usize = 4096;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A connection that lived so long was a good one: the next pause is short again.
const STABLE: Duration = Duration::from_secs(30);

pub(crate) struct Settings {
    pub(crate) node: Node,
    pub(crate) tls: native_tls::TlsConnector,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) keep_alive: Duration,
    pub(crate) session_expiry_s: u32,
    /// Makes the last will's payload, for each connection anew.
    pub(crate) will: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
}

/// How the connection is.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Not tried yet.
    Fresh,
    Connected {
        session_present: bool,
        publisher: Publisher,
    },
    Lost {
        why: String,
        refused: bool,
    },
}

/// What the broker brings, besides offers.
#[derive(Debug)]
pub(crate) enum Control {
    Revoke(Revoke),
    Ack(Ack),
    Command(Command),
    /// Retained: comes with each subscription.
    Config(Box<DesiredConfig>),
    /// Place for more publishes.
    Room,
}

/// The owner's ends.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) state: watch::Receiver<State>,
    pub(crate) offers: mpsc::Receiver<Box<Offer>>,
    pub(crate) overflow: mpsc::Receiver<AttemptId>,
    pub(crate) control: mpsc::Receiver<Control>,
}

#[derive(Debug)]
struct Outlets {
    state: watch::Sender<State>,
    offers: mpsc::Sender<Box<Offer>>,
    overflow: mpsc::Sender<AttemptId>,
    control: mpsc::Sender<Control>,
}

/// The queue to the broker is full, or the connection is gone.
#[derive(Debug)]
pub(crate) struct Full;

#[derive(Debug, Clone, Default)]
pub(crate) struct Extras {
    pub(crate) expiry: Option<Duration>,
    pub(crate) correlation: Option<String>,
}

/// Publishes over one connection; never waits.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    client: AsyncClient,
    node: Node,
}

impl Publisher {
    fn topic(node: &Node, channel: Channel) -> String {
        Topic { fleet: node.fleet.clone(), node: node.node.clone(), channel }.to_string()
    }

    pub(crate) fn publish(
        &self,
        channel: Channel,
        payload: impl Into<Bytes>,
        extras: Extras,
    ) -> Result<(), Full> {
        let Extras { expiry, correlation } = extras;
        let qos = match channel {
            Channel::Telemetry => QoS::AtMostOnce,
            Channel::Birth
            | Channel::Status
            | Channel::Event
            | Channel::Reply
            | Channel::Offer
            | Channel::Revoke
            | Channel::Ack
            | Channel::Command
            | Channel::Update
            | Channel::Config => QoS::AtLeastOnce,
        };
        let properties = PublishProperties {
            message_expiry_interval: expiry.map(|expiry| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)),
            correlation_data: correlation.map(Bytes::from),
            content_type: Some("application/json".into()),
            ..PublishProperties::default()
        };
        let topic = Self::topic(&self.node, channel);
        let sent = self.client.try_publish_with_properties(
            topic,
            qos,
            channel.retained(),
            payload.into(),
            properties,
        );
        sent.map_err(|_| Full)
    }

    /// Asks for everything the gateway writes for this node.
    pub(crate) fn subscribe(&self) -> Result<(), Full> {
        let filters = node_filters(&self.node.fleet, &self.node.node);
        let filters = filters.map(|filter| Filter::new(filter, QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters).map_err(|_| Full)
    }

    /// Says goodbye after what was published before; the poller ends with it.
    pub(crate) fn disconnect(&self) -> Result<(), Full> {
        self.client.try_disconnect().map_err(|_| Full)
    }
}

/// The poller, to be spawned, and the owner's ends.
pub(crate) fn session(settings: Settings) -> (impl Future<Output = ()>, Inbox) {
    let (state, state_out) = watch::channel(State::Fresh);
    let (offers, offers_out) = mpsc::channel(OFFERS);
    let (overflow, overflow_out) = mpsc::channel(OVERFLOW);
    let (control, control_out) = mpsc::channel(CONTROL);
    let outlets = Outlets { state, offers, overflow, control };
    let inbox = Inbox { state: state_out, offers: offers_out, overflow: overflow_out, control: control_out };
    (run(settings, outlets), inbox)
}

/// Connects again and again, until the owner disconnects.
async fn run(settings: Settings, outlets: Outlets) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let error = match run_once(&settings, &outlets).await {
            Ok(()) => return,
            Err(error) => error,
        };
        let proxy = of_the_proxy(&settings, &error);
        let why = proxy.as_ref().map_or_else(|| in_one_line(&error), ToString::to_string);
        let refused = is_refusal(&error) || rejects_certificate(&why) || {
            let connected = matches!(&*outlets.state.borrow(), State::Connected { .. });
            !connected && may_have_been_refused(&error) && is_refused_when_asked(&settings).await
        };
        failures = if began.elapsed() > STABLE { 0 } else { failures + 1 };
        let pause = if refused || proxy.as_ref().is_some_and(ProxyError::is_firm) {
            // Nobody at the other end will change their mind within seconds.
            MAX_PAUSE / 2 + jitter(MAX_PAUSE / 2)
        } else {
            jitter(MAX_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(failures)))
        };
        if refused {
            tracing::error!(error = why, retry_in = ?pause, "the broker does not let this node in; is it still enrolled?");
        } else {
            tracing::warn!(error = why, retry_in = ?pause, "no connection to the broker");
        }
        outlets.state.send_replace(State::Lost { why, refused });
        tokio::time::sleep(pause).await;
    }
}

/// What the proxy has to do with it, where there is one.
fn of_the_proxy(settings: &Settings, error: &ConnectionError) -> Option<ProxyError> {
    let (node, proxy) = (&settings.node, settings.proxy.as_ref()?);
    match error {
        ConnectionError::Proxy(error) => {
            Some(proxy::explain(proxy, error, &format!("{}:{}", node.broker_host, node.broker_port)))
        }
        // A broker that is silent behind it looks the same.
        ConnectionError::Timeout(_) => Some(ProxyError::Silent { at: proxy.to_string() }),
        ConnectionError::MqttState(_)
        | ConnectionError::Tls(_)
        | ConnectionError::Io(_)
        | ConnectionError::ConnectionRefused(_)
        | ConnectionError::NotConnAck(_)
        | ConnectionError::RequestsDone => None,
    }
}

fn is_refusal(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::Banned
                | ConnectReturnCode::ClientIdentifierNotValid
                | ConnectReturnCode::BadClientId
        )
    )
}

/// Somebody was there and hung up.
fn may_have_been_refused(error: &ConnectionError) -> bool {
    use std::io::ErrorKind as Kind;
    let hung_up = |error: &std::io::Error| {
        !matches!(
            error.kind(),
            Kind::ConnectionRefused | Kind::TimedOut | Kind::HostUnreachable | Kind::NetworkUnreachable
        )
    };
    match error {
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => hung_up(error),
        ConnectionError::MqttState(_) | ConnectionError::Tls(_) => true,
        ConnectionError::Timeout(_)
        | ConnectionError::Proxy(_)
        | ConnectionError::ConnectionRefused(_)
        | ConnectionError::NotConnAck(_)
        | ConnectionError::RequestsDone => false,
    }
}

/// Asks the broker whether it is this node's certificate, on a connection of its own. With TLS 1.3 it says so when the client
/// is through with its handshake, and hangs up; on a slow board what the client has written by then makes the system
/// throw that word away (RFC 2525, 2.17). Here nothing is written. Not through a proxy.
async fn is_refused_when_asked(settings: &Settings) -> bool {
    if settings.proxy.is_some() {
        return false;
    }
    let (tls, host, port) =
        (settings.tls.clone(), settings.node.broker_host.clone(), settings.node.broker_port);
    let asked = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        use std::net::{TcpStream, ToSocketAddrs as _};
        let address = (&*host, port).to_socket_addrs().ok()?.next()?;
        let stream = TcpStream::connect_timeout(&address, ASKED).ok()?;
        stream.set_read_timeout(Some(ASKED)).ok()?;
        stream.set_write_timeout(Some(ASKED)).ok()?;
        let mut stream = match tls.connect(&host, stream) {
            Ok(stream) => stream,
            Err(native_tls::HandshakeError::Failure(error)) => return Some(in_one_line(&error)),
            Err(native_tls::HandshakeError::WouldBlock(_)) => return None,
        };
        stream.read(&mut [0]).err().map(|error| in_one_line(&error))
    });
    matches!(asked.await, Ok(Some(why)) if rejects_certificate(&why))
}

/// TLS 1.3 tells a client only after its handshake, so it comes as a plain read error; OpenSSL's text has the number.
fn rejects_certificate(why: &str) -> bool {
    let number = why.split("SSL alert number ").nth(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()));
    let number = number.and_then(|mut digits| digits.next()?.parse::<u8>().ok());
    // Of a certificate: bad, unsupported, revoked, expired, unknown; unknown CA, access denied, certificate required.
    matches!(number, Some(42..=46 | 48 | 49 | 116))
}

fn options(settings: &Settings) -> MqttOptions {
    let Settings { node, tls, proxy, keep_alive, session_expiry_s, will } = settings;
    let max_packet = MAX_MESSAGE + PACKET_ROOM;
    let mut options = MqttOptions::new(node.node.as_str(), &node.broker_host, node.broker_port);
    options
        .set_transport(Transport::Tls(TlsConfiguration::NativeConnector(tls.clone())))
        .set_keep_alive(*keep_alive)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(*session_expiry_s))
        .set_receive_maximum(Some(INFLIGHT))
        // 68 KiB; the library's own limit is 10 KiB, and what is longer ends the connection.
        .set_max_packet_size(u32::try_from(max_packet).ok())
        .set_outgoing_inflight_upper_limit(INFLIGHT)
        .set_request_channel_capacity(REQUESTS)
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_manual_acks(false);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT_S);
    options.set_network_options(network);
    if let Some(Proxy { host, port, login }) = proxy {
        let auth = match login.clone() {
            Some(Login { user, password }) => ProxyAuth::Basic { username: user, password },
            None => ProxyAuth::None,
        };
        options.set_proxy(rumqttc::Proxy { ty: ProxyType::Http, auth, addr: host.clone(), port: *port });
    }
    let topic = Publisher::topic(node, Channel::Status);
    options.set_last_will(LastWill::new(topic, will(), QoS::AtLeastOnce, true, None));
    options
}

/// One connection. Ok when the owner ended it.
async fn run_once(settings: &Settings, outlets: &Outlets) -> Result<(), ConnectionError> {
    let (client, mut events) = AsyncClient::new(options(settings), REQUESTS);
    let publisher = Publisher { client, node: settings.node.clone() };
    poll(&mut events, &publisher, outlets).await
}

async fn poll(
    events: &mut EventLoop,
    publisher: &Publisher,
    outlets: &Outlets,
) -> Result<(), ConnectionError> {
    loop {
        match events.poll().await? {
            Event::Incoming(Packet::ConnAck(ack)) => {
                let session_present = ack.session_present;
                outlets
                    .state
                    .send_replace(State::Connected { session_present, publisher: publisher.clone() });
            }
            Event::Incoming(Packet::Publish(publish)) => outlets.take(&publish),
            Event::Incoming(Packet::PubAck(ack)) => {
                if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
                    tracing::error!(reason = ?ack.reason, "the broker refused a message of this node");
                }
                // Full: the owner has other reasons to look at its outbox again.
                let _ = outlets.control.try_send(Control::Room);
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let refused = |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                if let Some(code) = ack.return_codes.iter().find(refused) {
                    tracing::error!(reason = ?code, "the broker refused a subscription of this node");
                }
            }
            Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
}

impl Outlets {
    /// Reads a message and hands it on, without waiting.
    fn take(&self, publish: &Publish) {
        let topic = String::from_utf8_lossy(&publish.topic);
        let channel = match topic.parse::<Topic>() {
            Ok(topic) => topic.channel,
            Err(error) => {
                tracing::warn!(%error, "message on a topic that is not ours");
                return;
            }
        };
        let json = publish.payload.as_ref();
        let read = match channel {
            Channel::Offer => serde_json::from_slice(json).map(|offer| self.offer(offer)),
            Channel::Revoke => {
                serde_json::from_slice(json).map(|revoke| self.control(channel, Control::Revoke(revoke)))
            }
            Channel::Ack => serde_json::from_slice(json).map(|ack| self.control(channel, Control::Ack(ack))),
            Channel::Command => {
                serde_json::from_slice(json).map(|command| self.control(channel, Control::Command(command)))
            }
            Channel::Config => {
                serde_json::from_slice(json).map(|config| self.control(channel, Control::Config(config)))
            }
            Channel::Birth
            | Channel::Status
            | Channel::Telemetry
            | Channel::Event
            | Channel::Reply
            | Channel::Update => {
                tracing::warn!(%topic, "message on a topic that only this node writes");
                return;
            }
        };
        if let Err(error) = read {
            tracing::warn!(%topic, %error, "message cannot be read and was dropped");
        }
    }

    fn offer(&self, offer: Box<Offer>) {
        if let Err(mpsc::error::TrySendError::Full(offer)) = self.offers.try_send(offer)
            && self.overflow.try_send(AttemptId::of(&offer)).is_err()
        {
            tracing::warn!(task = %offer.task, epoch = %offer.epoch, "too many offers at once, one was dropped");
        }
    }

    fn control(&self, channel: Channel, control: Control) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.control.try_send(control) {
            // Without its text: a configuration may hold a password.
            tracing::warn!(channel = channel.as_str(), "too many messages at once, one was dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_certificate_is_told_from_other_trouble_with_tls() {
        assert!(rejects_certificate(
            "IO: error:0A000418:SSL routines::tlsv1 alert unknown ca:SSL alert number 48"
        ));
        assert!(rejects_certificate("SSL alert number 45: certificate expired"));
        assert!(!rejects_certificate("SSL alert number 40"), "no cipher in common");
        assert!(!rejects_certificate("Connection reset by peer (os error 104)"));
    }
}
