//! A node played by the test, with a certificate it really enrolled for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_protocol::message::{
    Ack, Command, CommandKind, DesiredConfig, Event, EventKind, EventNumber, Extra, Header, NodeState, Offer,
    Reply, Status,
};
use headwater_protocol::topic::{Channel, Topic, node_filters};
use headwater_protocol::{
    Container, Fault, FleetId, InputFacts, Millis, NodeId, RenditionReport, SegmentReport,
};
use reqwest::Client;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, LastWill, Packet};
use rumqttc::v5::{AsyncClient, Event as MqttEvent};
use tokio::sync::mpsc;

pub(crate) use crate::certificate::{Certificate, enroll};

use crate::board::{Board, Fate, Memory};
use crate::harness::Gateway;
use crate::testing;

/// What a node does with an offer.
#[derive(Clone)]
pub(crate) enum Manner {
    /// Fetches, puts renditions of made-up bytes, reports them.
    Works,
    Fails(Fault),
    Refuses(Fault),
    /// Accepts and says nothing more.
    Hangs,
    /// Reports renditions that it never put.
    Lies,
}

pub(crate) struct Node {
    pub(crate) name: NodeId,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) client: AsyncClient,
    /// Offers as they come.
    pub(crate) offers: mpsc::UnboundedReceiver<Offer>,
    pub(crate) acks: mpsc::UnboundedReceiver<Ack>,
    /// The broker's answers to what it published.
    pub(crate) pubacks: mpsc::UnboundedReceiver<String>,
    pub(crate) outbox: Arc<Mutex<u64>>,
    /// What of it is updated and configured.
    pub(crate) board: Arc<Memory>,
    poller: tokio::task::JoinHandle<()>,
}

pub(crate) fn fleet() -> FleetId {
    FleetId::new("home").unwrap()
}

pub(crate) fn header(seq: u64) -> Header {
    Header { seq, ..testing::header() }
}

pub(crate) fn content(rendition: &str) -> Vec<u8> {
    format!("rendition {rendition} ").repeat(1000).into_bytes()
}

impl Node {
    /// Enrols and connects; returns once the gateway sees it online.
    pub(crate) async fn start(gateway: &Gateway, name: &str, manner: Manner) -> Self {
        let token = gateway.token(name).await;
        let certificate = Arc::new(enroll(&token, name).await.1.unwrap());
        Self::connect(gateway, certificate, manner).await
    }

    /// The same, as a board that is updated by images.
    pub(crate) async fn start_board(gateway: &Gateway, name: &str, fate: Fate) -> Self {
        let token = gateway.token(name).await;
        let certificate = Arc::new(enroll(&token, name).await.1.unwrap());
        Self::connect_board(gateway, certificate, Memory::new(fate)).await
    }

    pub(crate) async fn connect(gateway: &Gateway, certificate: Arc<Certificate>, manner: Manner) -> Self {
        Self::connect_as(gateway, certificate, manner, Memory::new(Fate::Deaf), false).await
    }

    pub(crate) async fn connect_board(
        gateway: &Gateway,
        certificate: Arc<Certificate>,
        memory: Arc<Memory>,
    ) -> Self {
        Self::connect_as(gateway, certificate, Manner::Works, memory, true).await
    }

    async fn connect_as(
        gateway: &Gateway,
        certificate: Arc<Certificate>,
        manner: Manner,
        memory: Arc<Memory>,
        updated: bool,
    ) -> Self {
        let name = certificate.grant.node.clone();
        let mut options = certificate.mqtt(gateway.broker.port(), name.as_str());
        let of = name.clone();
        let topic = move |channel| Topic { fleet: fleet(), node: of.clone(), channel }.to_string();
        let status =
            |state| serde_json::to_vec(&Status { header: header(1), state, extra: Extra::new() }).unwrap();
        let will = status(NodeState::Offline);
        options.set_last_will(LastWill::new(topic(Channel::Status), will, QoS::AtLeastOnce, true, None));
        let (client, mut events) = AsyncClient::new(options, 64);
        let (offer_tx, offers) = mpsc::unbounded_channel();
        let (ack_tx, acks) = mpsc::unbounded_channel();
        let (puback_tx, pubacks) = mpsc::unbounded_channel();
        let outbox = Arc::new(Mutex::new(0));
        let worker = Worker {
            client: client.clone(),
            https: certificate.https(),
            base: format!("https://{}", gateway.nodes),
            name: name.clone(),
            outbox: Arc::clone(&outbox),
            manner,
        };
        let board = Board {
            memory: Arc::clone(&memory),
            client: client.clone(),
            https: certificate.https(),
            base: format!("https://{}", gateway.nodes),
            birth: testing::birth(name.as_str()),
        };
        let filters: Vec<Filter> =
            node_filters(&fleet(), &name).map(|filter| Filter::new(filter, QoS::AtLeastOnce)).collect();
        let own = client.clone();
        let poller = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                        let birth = match updated {
                            true => board.birth(),
                            false => serde_json::to_vec(&board.birth).unwrap(),
                        };
                        let mut hello =
                            vec![(Channel::Birth, birth), (Channel::Status, status(NodeState::Online))];
                        hello.extend(board.said().map(|said| (Channel::Update, said)));
                        let hello = hello.into_iter().map(|(channel, payload)| (topic(channel), payload));
                        let hello: Vec<_> = hello.collect();
                        let (own, filters, board) = (own.clone(), filters.clone(), board.clone());
                        tokio::spawn(async move {
                            own.subscribe_many(filters).await.unwrap();
                            for (topic, payload) in hello {
                                own.publish(topic, QoS::AtLeastOnce, true, payload).await.unwrap();
                            }
                            board.go_on().await;
                        });
                    }
                    Ok(MqttEvent::Incoming(Packet::PubAck(ack))) => {
                        let _ = puback_tx.send(format!("{:?}", ack.reason));
                    }
                    Ok(MqttEvent::Incoming(Packet::Publish(publish))) => {
                        let said: Topic = std::str::from_utf8(&publish.topic).unwrap().parse().unwrap();
                        match said.channel {
                            Channel::Offer => {
                                let offer: Offer = serde_json::from_slice(&publish.payload).unwrap();
                                let worker = worker.clone();
                                let _ = offer_tx.send(offer.clone());
                                tokio::spawn(async move { worker.take(offer).await });
                            }
                            Channel::Ack => {
                                let _ = ack_tx.send(serde_json::from_slice(&publish.payload).unwrap());
                            }
                            Channel::Command => {
                                let command: Command = serde_json::from_slice(&publish.payload).unwrap();
                                let state = match command.command {
                                    CommandKind::Drain | CommandKind::Restart | CommandKind::Reboot => {
                                        Some(NodeState::Draining)
                                    }
                                    CommandKind::Resume | CommandKind::Probe => Some(NodeState::Online),
                                    CommandKind::Logs(_)
                                    | CommandKind::Update(_)
                                    | CommandKind::CancelUpdate { .. } => None,
                                };
                                let state = state.map(|state| (topic(Channel::Status), status(state)));
                                let (own, board, reply_to) =
                                    (own.clone(), board.clone(), topic(Channel::Reply));
                                tokio::spawn(async move {
                                    if let Some((topic, state)) = state {
                                        own.publish(topic, QoS::AtLeastOnce, true, state).await.unwrap();
                                    }
                                    let Some(fault) = board.command(command.command).await else { return };
                                    let reply = Reply {
                                        header: header(2),
                                        id: command.id,
                                        fault,
                                        extra: Extra::new(),
                                    };
                                    let reply = serde_json::to_vec(&reply).unwrap();
                                    own.publish(reply_to, QoS::AtLeastOnce, false, reply).await.unwrap();
                                });
                            }
                            Channel::Config => {
                                let desired: DesiredConfig =
                                    serde_json::from_slice(&publish.payload).unwrap();
                                let board = board.clone();
                                tokio::spawn(async move { board.configure(desired).await });
                            }
                            _ => {}
                        }
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let node = Self {
            name: name.clone(),
            certificate,
            client,
            offers,
            acks,
            pubacks,
            outbox,
            board: memory,
            poller,
        };
        gateway.wait_state(name.as_str(), NodeState::Online).await;
        node
    }

    /// The connection breaks without a word: the broker publishes the last will.
    pub(crate) fn cut(&self) {
        self.poller.abort();
    }

    pub(crate) async fn offer(&mut self) -> Offer {
        tokio::time::timeout(crate::harness::LONG, self.offers.recv()).await.expect("no offer").unwrap()
    }

    pub(crate) async fn say(&self, offer: &Offer, event: EventKind) {
        say(&self.client, &self.name, &self.outbox, offer, event).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

#[derive(Clone)]
struct Worker {
    client: AsyncClient,
    https: Client,
    base: String,
    name: NodeId,
    outbox: Arc<Mutex<u64>>,
    manner: Manner,
}

impl Worker {
    async fn say(&self, offer: &Offer, event: EventKind) {
        say(&self.client, &self.name, &self.outbox, offer, event).await;
    }

    async fn take(self, offer: Offer) {
        match &self.manner {
            Manner::Refuses(fault) => {
                return self.say(&offer, EventKind::Refused { fault: fault.clone() }).await;
            }
            Manner::Works | Manner::Fails(_) | Manner::Hangs | Manner::Lies => {}
        }
        self.say(&offer, EventKind::Accepted).await;
        match &self.manner {
            Manner::Fails(fault) => self.say(&offer, EventKind::Failed { fault: fault.clone() }).await,
            Manner::Hangs | Manner::Refuses(_) => {}
            Manner::Lies => self.say(&offer, EventKind::Done { report: Box::new(report(&offer)) }).await,
            Manner::Works => {
                let input =
                    self.https.get(format!("{}{}", self.base, offer.input.path)).send().await.unwrap();
                assert_eq!(input.status(), 200);
                assert_eq!(input.bytes().await.unwrap().len() as u64, offer.input.bytes);
                put_all(&self.https, &self.base, &offer).await;
                self.say(&offer, EventKind::Done { report: Box::new(report(&offer)) }).await;
            }
        }
    }
}

pub(crate) async fn put_all(https: &Client, base: &str, offer: &Offer) {
    for output in &offer.outputs {
        let body = content(output.rendition.as_str());
        let put = https.put(format!("{base}{}", output.path)).body(body).send().await.unwrap();
        assert_eq!(put.status(), 201);
    }
}

async fn say(client: &AsyncClient, name: &NodeId, outbox: &Mutex<u64>, offer: &Offer, event: EventKind) {
    let n = {
        let mut last = outbox.lock().unwrap();
        *last += 1;
        *last
    };
    let event = Event {
        header: header(n),
        number: Some(EventNumber { outbox: "box".into(), n }),
        task: offer.task.clone(),
        epoch: offer.epoch,
        event,
        extra: Extra::new(),
    };
    let topic = Topic { fleet: fleet(), node: name.clone(), channel: Channel::Event }.to_string();
    client.publish(topic, QoS::AtLeastOnce, false, serde_json::to_vec(&event).unwrap()).await.unwrap();
}

pub(crate) fn report(offer: &Offer) -> SegmentReport {
    let renditions = offer
        .ladder
        .renditions()
        .iter()
        .map(|r| RenditionReport {
            name: r.name.clone(),
            container: r.container,
            bytes: content(r.name.as_str()).len() as u64,
            width: r.width,
            height: r.height,
            frames: 60,
            keyframes: 1,
            pixels: 60 * u64::from(r.width.0 * r.height.0),
            first_pts: 0,
            duration: Millis(2000),
            copied: false,
        })
        .collect();
    SegmentReport {
        input: InputFacts {
            container: Container::Ts,
            bytes: offer.input.bytes,
            video: None,
            audio_streams: 0,
            duration: Millis(2000),
            errors: 0,
        },
        renditions,
        wall_us: 1000,
        cpu_us: 1000,
        warm: false,
    }
}
