//! The session with the broker; the one file that names the MQTT client library.
//!
//! ```text
//! owner ──Outgoing──▶ publisher ──▶ client ┄┄▶ poller ──Incoming──▶ owner
//! ```
//!
//! The poller never publishes. It may wait for the owner, because the owner never waits for the
//! publisher: what does not fit into the publisher's queue is given back to it at once.

use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::FleetId;
use headwater_protocol::message::MAX_MESSAGE;
use headwater_protocol::topic::{Topic, gateway_filters};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Filter, Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::identity::Pair;

/// Messages that may wait for the client; a full queue is an error of the sender, who knows what to do.
const OUTGOING: usize = 512;

#[derive(Debug, Clone)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    pub ca_pem: String,
    pub identity: Pair,
    pub fleet: FleetId,
}

#[derive(Debug)]
pub enum Incoming {
    /// Connected and subscribed.
    Up,
    Down,
    Message {
        topic: Topic,
        payload: Bytes,
    },
}

#[derive(Debug)]
pub struct Outgoing {
    pub topic: Topic,
    pub payload: Vec<u8>,
    /// Not sent after this, and told to the broker as the message's expiry.
    pub life: Duration,
    pub correlation: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    #[error("broker certificates: {0}")]
    Tls(#[from] native_tls::Error),
}

/// Where to put messages for nodes.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<(Instant, Outgoing)>);

impl Publisher {
    /// False where the queue is full or the daemon stops: the message is lost, and its lease or the
    /// next resend makes up for it.
    pub fn send(&self, message: Outgoing) -> bool {
        self.0.try_send((Instant::now() + message.life, message)).is_ok()
    }
}

/// Starts the session; it reconnects until `stop`.
pub fn start(
    settings: &Settings,
    incoming: mpsc::Sender<Incoming>,
    stop: CancellationToken,
) -> Result<Publisher, MqttError> {
    let connector = native_tls::TlsConnector::builder()
        .add_root_certificate(native_tls::Certificate::from_pem(settings.ca_pem.as_bytes())?)
        .disable_built_in_roots(true)
        .identity(native_tls::Identity::from_pkcs8(
            settings.identity.certificate.as_bytes(),
            settings.identity.key.as_bytes(),
        )?)
        .min_protocol_version(Some(native_tls::Protocol::Tlsv12))
        .build()?;
    let mut options = MqttOptions::new(crate::identity::GATEWAY, &settings.host, settings.port);
    options
        .set_transport(Transport::Tls(TlsConfiguration::NativeConnector(connector)))
        .set_keep_alive(Duration::from_secs(15))
        .set_clean_start(true)
        .set_connection_timeout(5)
        .set_receive_maximum(Some(256))
        // The topic and MQTT's own fields come on top of the message.
        .set_max_packet_size(Some(MAX_MESSAGE as u32 + 4096))
        .set_outgoing_inflight_upper_limit(64);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);

    let (client, events) = AsyncClient::new(options, 64);
    let (outgoing, queue) = mpsc::channel(OUTGOING);
    let (connected, connections) = mpsc::channel(4);
    let filters: Vec<String> = gateway_filters(&settings.fleet).collect();
    tokio::spawn(publish(client.clone(), queue, stop.clone()));
    tokio::spawn(subscribe(client, filters, connections, stop.clone()));
    tokio::spawn(poll(events, incoming, connected, stop));
    Ok(Publisher(outgoing))
}

async fn publish(
    client: AsyncClient,
    mut queue: mpsc::Receiver<(Instant, Outgoing)>,
    stop: CancellationToken,
) {
    loop {
        let (until, message) = tokio::select! {
            () = stop.cancelled() => break,
            message = queue.recv() => match message {
                Some(message) => message,
                None => break,
            },
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            tracing::warn!(topic = %message.topic, "not sent in time");
            continue;
        }
        let retained = message.topic.channel.retained();
        // Whole seconds, rounded up: zero would mean dead on arrival. What is retained stays until it is replaced.
        let expiry = u32::try_from(left.as_secs()).unwrap_or(u32::MAX - 1) + 1;
        let properties = PublishProperties {
            message_expiry_interval: (!retained).then_some(expiry),
            correlation_data: message.correlation.map(Bytes::from),
            content_type: Some("application/json".to_owned()),
            ..PublishProperties::default()
        };
        let sent = client.publish_with_properties(
            message.topic.to_string(),
            QoS::AtLeastOnce,
            retained,
            message.payload,
            properties,
        );
        tokio::select! {
            () = stop.cancelled() => break,
            sent = sent => if let Err(error) = sent {
                tracing::error!(%error, topic = %message.topic, "not published");
            },
        }
    }
    let _ = client.try_disconnect();
}

async fn subscribe(
    client: AsyncClient,
    filters: Vec<String>,
    mut connections: mpsc::Receiver<()>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            next = connections.recv() => if next.is_none() { return },
        }
        let filters = filters.iter().map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce));
        if let Err(error) = client.subscribe_many(filters).await {
            tracing::error!(%error, "not subscribed");
        }
    }
}

async fn poll(
    mut events: EventLoop,
    incoming: mpsc::Sender<Incoming>,
    connected: mpsc::Sender<()>,
    stop: CancellationToken,
) {
    let mut failures = 0u32;
    let mut up = false;
    // After a stop the disconnect must still go out, but nobody waits long for it.
    let last = {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::pin!(last);
    loop {
        let event = tokio::select! {
            () = &mut last => return,
            event = events.poll() => event,
        };
        let message = match event {
            Ok(Event::Incoming(Packet::ConnAck(ack))) if ack.code == ConnectReturnCode::Success => {
                failures = 0;
                // One connection at a time; a full queue already holds a wish to subscribe.
                let _ = connected.try_send(());
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => {
                up = true;
                Incoming::Up
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                match std::str::from_utf8(&publish.topic).map(str::parse::<Topic>) {
                    Ok(Ok(topic)) => Incoming::Message { topic, payload: publish.payload },
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "message dropped");
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "message dropped: topic is not text");
                        continue;
                    }
                }
            }
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => continue,
            Err(error) => {
                if stop.is_cancelled() {
                    return;
                }
                failures += 1;
                report(&error, failures);
                if up {
                    up = false;
                    if incoming.send(Incoming::Down).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause(failures)) => continue,
                }
            }
        };
        if incoming.send(message).await.is_err() {
            return;
        }
    }
}

fn report(error: &ConnectionError, failures: u32) {
    match failures {
        1 => tracing::warn!(%error, "broker connection lost; trying again"),
        _ => tracing::debug!(%error, failures, "broker not reached"),
    }
}

/// Full jitter over a range that doubles from 200 ms to 5 s.
fn pause(failures: u32) -> Duration {
    let top = (200u64 << failures.min(5).saturating_sub(1)).min(5000);
    let mut bytes = [0u8; 8];
    // Without random numbers the pause is the longest one.
    let random = getrandom::fill(&mut bytes).map_or(top, |()| u64::from_le_bytes(bytes));
    Duration::from_millis(20 + random % top)
}
