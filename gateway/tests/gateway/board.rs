//! The part of a played node that is updated, configured, and read the log of.

use std::sync::{Arc, Mutex};

use headwater_gateway::secret::sha256_hex;
use headwater_protocol::message::{Birth, CommandKind, DesiredConfig, Extra, Logs, ReportedConfig};
use headwater_protocol::topic::{Channel, Topic};
use headwater_protocol::update::{BundleKind, Installation, UpdateOrder, UpdateState, UpdateStatus};
use headwater_protocol::{Code, Fault, NodeId, UpdateId};
use reqwest::Client;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;

use crate::node::{fleet, header};

/// What a board does with an order.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// Fetches it, installs it, starts anew with it.
    Works,
    /// The same, but the new version does not prove itself.
    RollsBack,
    /// Fetches it and waits for its window.
    Waits,
    Refuses(Fault),
    /// Hears nothing of it.
    Deaf,
}

/// What of a board outlives its connection.
pub(crate) struct Memory {
    pub(crate) fate: Mutex<Fate>,
    said: Mutex<Option<UpdateStatus>>,
    version: Mutex<String>,
    config: Mutex<Option<ReportedConfig>>,
    /// Ids of orders it took, each once.
    pub(crate) orders: Mutex<Vec<UpdateId>>,
    /// Whether each of them might be a downgrade.
    pub(crate) allowed: Mutex<Vec<bool>>,
}

pub(crate) const LOG: &str = "first line\nlast line\n";

impl Memory {
    pub(crate) fn new(fate: Fate) -> Arc<Self> {
        Arc::new(Self {
            fate: Mutex::new(fate),
            said: Mutex::new(None),
            version: Mutex::new("0.1.0".into()),
            config: Mutex::new(None),
            orders: Mutex::new(Vec::new()),
            allowed: Mutex::new(Vec::new()),
        })
    }

    pub(crate) fn version(&self) -> String {
        self.version.lock().unwrap().clone()
    }

    pub(crate) fn runs(&self, version: &str) {
        *self.version.lock().unwrap() = version.to_owned();
    }

    fn fate(&self) -> Fate {
        self.fate.lock().unwrap().clone()
    }
}

#[derive(Clone)]
pub(crate) struct Board {
    pub(crate) memory: Arc<Memory>,
    pub(crate) client: AsyncClient,
    pub(crate) https: Client,
    pub(crate) base: String,
    pub(crate) birth: Birth,
}

impl Board {
    fn name(&self) -> &NodeId {
        &self.birth.node
    }

    pub(crate) fn birth(&self) -> Vec<u8> {
        let mut birth = self.birth.clone();
        birth.installation = Some(Installation {
            updates_by: Some(BundleKind::Rauc),
            compatible: "board-x".into(),
            version: self.memory.version(),
            slot: None,
            privileged: true,
        });
        birth.config = self.memory.config.lock().unwrap().clone();
        serde_json::to_vec(&birth).unwrap()
    }

    /// Its retained word, said again after each connection.
    pub(crate) fn said(&self) -> Option<Vec<u8>> {
        self.memory.said.lock().unwrap().as_ref().map(|status| serde_json::to_vec(status).unwrap())
    }

    async fn publish(&self, channel: Channel, payload: Vec<u8>) {
        let topic = Topic { fleet: fleet(), node: self.name().clone(), channel }.to_string();
        self.client.publish(topic, QoS::AtLeastOnce, true, payload).await.unwrap();
    }

    async fn say(&self, order: &UpdateId, version: &str, state: UpdateState) {
        let status = UpdateStatus {
            header: header(3),
            id: order.clone(),
            version: version.into(),
            state,
            extra: Extra::new(),
        };
        *self.memory.said.lock().unwrap() = Some(status.clone());
        self.publish(Channel::Update, serde_json::to_vec(&status).unwrap()).await;
    }

    /// Its reply's fault; none where it says nothing at all.
    pub(crate) async fn command(&self, command: CommandKind) -> Option<Option<Fault>> {
        match command {
            CommandKind::Update(order) => match self.memory.fate() {
                Fate::Deaf => None,
                Fate::Refuses(fault) => Some(Some(fault)),
                Fate::Works | Fate::RollsBack | Fate::Waits => {
                    let new = {
                        let mut orders = self.memory.orders.lock().unwrap();
                        let new = !orders.contains(&order.id);
                        if new {
                            orders.push(order.id.clone());
                            self.memory.allowed.lock().unwrap().push(order.allow_downgrade);
                        }
                        new
                    };
                    if new {
                        let own = self.clone();
                        tokio::spawn(async move { own.install(*order).await });
                    }
                    Some(None)
                }
            },
            CommandKind::CancelUpdate { id } => {
                let fault = Fault::new(Code::Revoked, "given up");
                self.say(&id, "", UpdateState::Failed { fault }).await;
                Some(None)
            }
            CommandKind::Logs(Logs { path, max_bytes }) => {
                let kept = LOG.len().saturating_sub(max_bytes as usize);
                let put =
                    self.https.put(format!("{}{path}", self.base)).body(&LOG[kept..]).send().await.unwrap();
                assert_eq!(put.status(), 201);
                Some(None)
            }
            CommandKind::Drain
            | CommandKind::Resume
            | CommandKind::Restart
            | CommandKind::Reboot
            | CommandKind::Probe => Some(None),
        }
    }

    async fn install(&self, order: UpdateOrder) {
        let UpdateOrder { id, bundle, .. } = &order;
        self.say(id, &bundle.version, UpdateState::Fetching { bytes: 0 }).await;
        let fetched = self.https.get(format!("{}{}", self.base, bundle.path)).send().await.unwrap();
        assert_eq!(fetched.status(), 200);
        assert_eq!(sha256_hex(&fetched.bytes().await.unwrap()), bundle.sha256);
        self.say(id, &bundle.version, UpdateState::Waiting).await;
        match self.memory.fate() {
            Fate::Works | Fate::RollsBack => self.begin(id, &bundle.version).await,
            Fate::Waits | Fate::Deaf | Fate::Refuses(_) => {}
        }
    }

    /// After a connection: what waited goes on, if it may.
    pub(crate) async fn go_on(&self) {
        let said = self.memory.said.lock().unwrap().clone();
        if let Some(UpdateStatus { id, version, state: UpdateState::Waiting, .. }) = said
            && matches!(self.memory.fate(), Fate::Works)
        {
            self.begin(&id, &version).await;
        }
    }

    async fn begin(&self, id: &UpdateId, version: &str) {
        for state in
            [UpdateState::Installing { percent: 50 }, UpdateState::Restarting, UpdateState::Verifying]
        {
            self.say(id, version, state).await;
        }
        if matches!(self.memory.fate(), Fate::Works) {
            *self.memory.version.lock().unwrap() = version.to_owned();
            self.publish(Channel::Birth, self.birth()).await;
            self.say(id, version, UpdateState::Done).await;
        } else {
            let fault = Fault::new(Code::Unhealthy, "the probe did not pass");
            self.say(id, version, UpdateState::RolledBack { fault }).await;
        }
    }

    /// Takes a configuration, unless it has the key `bad`, and says so in a birth.
    pub(crate) async fn configure(&self, desired: DesiredConfig) {
        let bad = desired.settings.contains_key("bad");
        let fault = bad.then(|| Fault::new(Code::BadConfig, "there is no key bad"));
        *self.memory.config.lock().unwrap() = Some(ReportedConfig { revision: desired.revision, fault });
        self.publish(Channel::Birth, self.birth()).await;
    }
}
