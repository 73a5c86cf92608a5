//! The gateway as seen from here: requests, and sentences for what can go wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_gateway::depot::Stored;
use headwater_gateway::operate::views::{ConfigView, LogsRequest, SteerRequest, UpdateRequest, UpdateView};
use headwater_gateway::owner::{Change, Steer};
use headwater_gateway::views::{
    CommandRequest, EnrollReply, EnrollRequest, ErrorView, EvidenceView, NodeCommand, NodeView, StreamView,
};
use headwater_protocol::error::in_one_line;
use headwater_protocol::{Millis, NodeId, StreamId, UpdateId};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::human;

/// A question to the gateway's API is answered from memory.
const ANSWER: Duration = Duration::from_secs(15);
/// A board reads its log, and sends it over whatever line it has.
const LOGS: Duration = Duration::from_secs(10 * 60);
/// What is read of an error's body; more than one sentence is not shown.
const MAX_ERROR_BODY: usize = 4096;
/// Largest JSON answer: a stream of a day in 2 s segments is about 60 MB.
const MAX_JSON: usize = 256 * 1024 * 1024;
const MAX_TOKEN: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no gateway at {url}: start headwater-gateway or pass --gateway")]
    NoGateway { url: Url },
    #[error("the gateway at {url} did not answer within {}", human::span(*.after))]
    Silent { url: Url, after: Duration },
    #[error("the connection to the gateway at {url} failed: {text}")]
    Connection { url: Url, text: String },
    #[error("the gateway says no ({status}): {text}")]
    Refused { status: StatusCode, text: String },
    #[error("what answers at {url} is not a Headwater gateway of this version: {text}")]
    Strange { url: Url, text: String },
    #[error(
        "cannot read the operator's token {}: {source}; the gateway writes it on its first start, run this as \
         a user who may read it or pass --token-file",
        path.display()
    )]
    Token { path: PathBuf, source: std::io::Error },
    #[error("{} holds no operator's token", path.display())]
    BadToken { path: PathBuf },
    #[error(
        "the operator's token is not sent to {url}, for anybody on the way could read it: \
         use https, or a tunnel as of `ssh -N -L 9935:127.0.0.1:9935 HOST`"
    )]
    InTheClear { url: Url },
    #[error("cannot set up HTTP: {0}")]
    Setup(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    http: reqwest::Client,
    base: Url,
    token_file: PathBuf,
}

impl Gateway {
    pub(crate) fn new(base: Url, token_file: PathBuf) -> Result<Self, ClientError> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")));
        // A proxy for the wide world cannot reach this machine's own gateway.
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|e| ClientError::Setup(in_one_line(&e)))?;
        Ok(Self { http, base, token_file })
    }

    /// The address of a path below the gateway's.
    pub(crate) fn url(&self, path: &str) -> Url {
        // Our own paths are made of ids and constants, which always join; the base is the honest fallback.
        self.base.join(path.trim_start_matches('/')).unwrap_or_else(|_| self.base.clone())
    }

    /// Whether anything answers there, before an input is downloaded and cut for it.
    pub(crate) async fn greet(&self) -> Result<(), ClientError> {
        self.send(self.http.get(self.url("healthz")).timeout(ANSWER)).await.map(drop)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_url(self.url(path)).await
    }

    async fn get_url<T: DeserializeOwned>(&self, url: Url) -> Result<T, ClientError> {
        let request = self.introduced(self.http.get(url).timeout(ANSWER));
        let response = self.send(request).await?;
        self.json(checked(response).await?).await
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<NodeView>, ClientError> {
        self.get("api/v1/nodes").await
    }

    pub(crate) async fn streams(&self) -> Result<Vec<StreamView>, ClientError> {
        self.get("api/v1/streams").await
    }

    pub(crate) async fn stream(&self, stream: &StreamId) -> Result<StreamView, ClientError> {
        self.get(&format!("api/v1/streams/{stream}")).await
    }

    pub(crate) async fn evidence(
        &self,
        stream: &StreamId,
        segment: u64,
    ) -> Result<Vec<EvidenceView>, ClientError> {
        self.get(&format!("api/v1/streams/{stream}/{segment}/evidence")).await
    }

    pub(crate) async fn enroll(&self, node: &NodeId, valid: Duration) -> Result<EnrollReply, ClientError> {
        let body = EnrollRequest { node: node.clone(), valid: Some(Millis(valid.as_millis() as u64)) };
        let response = self.operator("api/v1/enroll", &body).await?;
        self.json(response).await
    }

    /// The nodes that a selector means.
    pub(crate) async fn select(&self, selector: &str) -> Result<Vec<NodeView>, ClientError> {
        let mut url = self.url("api/v1/nodes");
        url.query_pairs_mut().append_pair("select", selector);
        self.get_url(url).await
    }

    pub(crate) async fn bundle(&self, sha256: &str) -> Result<Option<Stored>, ClientError> {
        match self.get(&format!("api/v1/bundles/{sha256}")).await {
            Ok(stored) => Ok(Some(stored)),
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Without a deadline: the gateway gives up on silence.
    pub(crate) async fn upload(&self, body: reqwest::Body) -> Result<Stored, ClientError> {
        let token = self.token()?;
        let request = self.http.put(self.url("api/v1/bundles")).bearer_auth(token).body(body);
        self.json(checked(self.send(request).await?).await?).await
    }

    pub(crate) async fn start_update(&self, request: &UpdateRequest) -> Result<UpdateView, ClientError> {
        let response = self.operator("api/v1/updates", request).await?;
        self.json(response).await
    }

    pub(crate) async fn updates(&self) -> Result<Vec<UpdateView>, ClientError> {
        self.get("api/v1/updates").await
    }

    pub(crate) async fn update(&self, id: &UpdateId) -> Result<UpdateView, ClientError> {
        self.get(&format!("api/v1/updates/{id}")).await
    }

    pub(crate) async fn steer(&self, id: &UpdateId, action: Steer) -> Result<UpdateView, ClientError> {
        let response = self.operator(&format!("api/v1/updates/{id}"), &SteerRequest { action }).await?;
        self.json(response).await
    }

    pub(crate) async fn config(&self, node: &NodeId) -> Result<ConfigView, ClientError> {
        self.get(&format!("api/v1/nodes/{node}/config")).await
    }

    pub(crate) async fn configure(&self, node: &NodeId, change: &Change) -> Result<ConfigView, ClientError> {
        let response = self.operator(&format!("api/v1/nodes/{node}/config"), change).await?;
        self.json(response).await
    }

    /// A node's log, to be read to its end.
    pub(crate) async fn logs(&self, node: &NodeId, max_bytes: u64) -> Result<Response, ClientError> {
        self.operator_within(&format!("api/v1/nodes/{node}/logs"), &LogsRequest { max_bytes }, LOGS).await
    }

    pub(crate) async fn command(&self, node: &NodeId, command: NodeCommand) -> Result<(), ClientError> {
        // The gateway says sooner that the node does not answer.
        let limit = command.patience() + ANSWER;
        let path = format!("api/v1/nodes/{node}/command");
        self.operator_within(&path, &CommandRequest { command }, limit).await.map(drop)
    }

    /// One push of one segment; the answer's head. The caller sets its deadline.
    pub(crate) fn push(&self, path: &str) -> RequestBuilder {
        self.introduced(self.http.request(Method::POST, self.url(path)))
    }

    /// The operator's, where it may be sent: never in the clear over a network.
    fn token(&self) -> Result<String, ClientError> {
        if !is_loopback(&self.base) && self.base.scheme() != "https" {
            return Err(ClientError::InTheClear { url: self.base.clone() });
        }
        read_token(&self.token_file)
    }

    /// With the token where there is one: a gateway beyond loopback wants it for everything.
    fn introduced(&self, request: RequestBuilder) -> RequestBuilder {
        match self.token() {
            Ok(token) => request.bearer_auth(token),
            Err(_without) => request,
        }
    }

    /// What only the operator may do: his token goes along.
    async fn operator<T: Serialize>(&self, path: &str, body: &T) -> Result<Response, ClientError> {
        self.operator_within(path, body, ANSWER).await
    }

    async fn operator_within<T: Serialize>(
        &self,
        path: &str,
        body: &T,
        limit: Duration,
    ) -> Result<Response, ClientError> {
        let token = self.token()?;
        let request = self.http.post(self.url(path)).bearer_auth(token).json(body).timeout(limit);
        checked(self.send(request).await?).await
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| self.explain(&error))
    }

    pub(crate) fn explain(&self, error: &reqwest::Error) -> ClientError {
        let url = self.base.clone();
        if error.is_timeout() {
            ClientError::Silent { url, after: ANSWER }
        } else if error.is_connect() && refused(error) {
            ClientError::NoGateway { url }
        } else {
            ClientError::Connection { url, text: in_one_line(error) }
        }
    }

    async fn json<T: DeserializeOwned>(&self, mut response: Response) -> Result<T, ClientError> {
        let strange = |text| ClientError::Strange { url: self.base.clone(), text };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.explain(&e))? {
            if body.len() + chunk.len() > MAX_JSON {
                return Err(strange("its answer does not end".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|e| strange(e.to_string()))
    }
}

/// The answer, if it is one of success; else what the gateway says of it.
async fn checked(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    Err(ClientError::Refused { status, text: error_text(response).await })
}

/// The sentence in an error's body: ours is JSON, Livepeer's is plain text.
pub(crate) async fn error_text(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BODY - body.len())]);
        if body.len() >= MAX_ERROR_BODY {
            break;
        }
    }
    let text = match serde_json::from_slice::<ErrorView>(&body) {
        Ok(view) => view.error,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    let text = human::tame(&text);
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

fn read_token(path: &Path) -> Result<String, ClientError> {
    let error = |source| ClientError::Token { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(error)?.len() > MAX_TOKEN {
        return Err(ClientError::BadToken { path: path.to_owned() });
    }
    let token = std::fs::read_to_string(path).map_err(error)?;
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::BadToken { path: path.to_owned() });
    }
    Ok(token.to_owned())
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn refused(error: &(dyn std::error::Error + 'static)) -> bool {
    sources(error).any(|error| {
        error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    })
}

fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(url: &str) -> Gateway {
        Gateway::new(Url::parse(url).unwrap(), PathBuf::from("/nowhere/token")).unwrap()
    }

    #[tokio::test]
    async fn a_closed_port_is_explained_as_a_gateway_that_does_not_run() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = gateway(&format!("http://{free}/")).nodes().await.unwrap_err().to_string();
        assert_eq!(error, format!("no gateway at http://{free}/: start headwater-gateway or pass --gateway"));
    }

    #[tokio::test]
    async fn a_missing_token_is_explained_before_anything_is_sent() {
        let node = NodeId::new("a").unwrap();
        let error = gateway("http://127.0.0.1:1/").command(&node, NodeCommand::Drain).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/token"), "{error}");
    }

    #[tokio::test]
    async fn the_token_is_not_sent_in_the_clear_over_a_network() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret").unwrap();
        let at = |url: &str| Gateway::new(Url::parse(url).unwrap(), file.path().to_owned()).unwrap();
        for open in ["http://gateway.example:9935/", "http://192.0.2.1:9935/"] {
            let restart = at(open).command(&NodeId::new("a").unwrap(), NodeCommand::Restart).await;
            assert!(matches!(restart, Err(ClientError::InTheClear { .. })), "{restart:?}");
            let upload = at(open).upload(reqwest::Body::from("bundle")).await;
            assert!(matches!(upload, Err(ClientError::InTheClear { .. })), "{upload:?}");
        }
        for closed in ["http://127.0.0.1:9935/", "http://[::1]:9935/", "https://gateway.example/"] {
            assert_eq!(at(closed).token().unwrap(), "secret");
        }
    }

    #[test]
    fn a_token_file_with_anything_but_a_token_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for bad in ["", "\n", "two words", "x\ny"] {
            std::fs::write(&file, bad).unwrap();
            assert!(matches!(read_token(&file), Err(ClientError::BadToken { .. })), "{bad:?} was taken");
        }
        std::fs::write(&file, "secret\n").unwrap();
        assert_eq!(read_token(&file).unwrap(), "secret");
    }
}
