//! Media over HTTPS: the segment in, the renditions out, as streams in bounded memory.
//!
//! ```text
//! gateway ──GET──▶ Fetch: channel of chunks ──▶ worker ──▶ Upload: channel of chunks ──PUT──▶ gateway
//! ```
//!
//! An upload ends well only by an explicit [`Upload::finish`]. If its sender goes away for any other reason the
//! chunked body is cut, which the gateway takes as failed: half a rendition is never published.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::error::in_one_line;
use headwater_protocol::message::Input;
use headwater_protocol::proxy::Proxy;
use headwater_protocol::{Code, Container, Evidence, Fault};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Client, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::proxy;

/// Chunks of about 16 KiB that wait between the network and the worker. Full: TCP slows the gateway down.
const FETCH_CHUNKS: usize = 64;
/// Frames of at most 256 KiB that wait for one upload. Full: the worker's socket is not read, so the worker waits.
const UPLOAD_CHUNKS: usize = 8;
/// Tries before the first byte of input has come; after it, a failure is final.
const FETCH_TRIES: u32 = 3;
const FETCH_PAUSE: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the pause between two segments of a stream, so that no segment pays for a handshake; shorter than
/// the 30 s after which servers close, so that no body is sent into a connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// The gateway's node address, with this node's certificate.
#[derive(Debug, Clone)]
pub(crate) struct Media {
    client: Client,
    base: Arc<str>,
    max_input: u64,
    silence: Duration,
}

impl Media {
    /// `tls` is the broker's too: one certificate, one set of roots, one context in memory.
    pub(crate) fn new(
        gateway_url: &str,
        tls: native_tls::TlsConnector,
        proxy: Option<&Proxy>,
        max_input: u64,
        silence: Duration,
    ) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true);
        let client = proxy::through(client, proxy)?.build()?;
        let base = gateway_url.trim_end_matches('/').into();
        Ok(Self { client, base, max_input, silence })
    }

    /// A request for what lies at the gateway, to be sent by the caller.
    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    /// A transfer that does not move for so long has failed.
    pub(crate) fn silence(&self) -> Duration {
        self.silence
    }

    /// Puts a text, whole or not at all.
    pub(crate) async fn text(&self, path: &str, text: String) -> Result<(), Fault> {
        let failed = |text: String| Fault::new(Code::UploadFailed, format!("cannot put the text: {text}"));
        let request = self.client.put(format!("{}{path}", self.base));
        let request = request.header(CONTENT_TYPE, "text/plain; charset=utf-8").body(text);
        match timeout(2 * self.silence, request.send()).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(failed(format!("the gateway answered {}", response.status()))),
            Ok(Err(error)) => Err(failed(in_one_line(&error))),
            Err(_) => Err(failed("the gateway does not take it".to_owned())),
        }
    }

    /// Starts to fetch; bytes wait in the channel, at most [`FETCH_CHUNKS`].
    pub(crate) fn fetch(&self, input: &Input) -> Fetch {
        let (sender, chunks) = mpsc::channel(FETCH_CHUNKS);
        let (media, input) = (self.clone(), input.clone());
        let task = tokio::spawn(async move {
            let last = match media.run_fetch(&input, &sender).await {
                Ok(()) => Chunk::End,
                Err(fault) => Chunk::Failed(fault),
            };
            // Nobody listens when the attempt is over.
            let _ = sender.send(last).await;
        });
        Fetch { chunks, task }
    }

    async fn run_fetch(&self, input: &Input, sender: &mpsc::Sender<Chunk>) -> Result<(), Fault> {
        let failed = |text: String| {
            Fault::new(Code::FetchFailed, format!("cannot fetch the segment: {text}"))
                .with_detail(&*input.path)
        };
        let url = format!("{}{}", self.base, input.path);
        // Not the client's own read timeout: that one also counts while a request's body is being sent.
        let silent = |_| failed(format!("the gateway said nothing for {} s", self.silence.as_secs()));
        let mut tries = 1;
        let mut response = loop {
            match timeout(self.silence, self.client.get(&url).send()).await.map_err(silent)? {
                Ok(response) if response.status() == StatusCode::OK => break response,
                Ok(response) if !response.status().is_server_error() || tries == FETCH_TRIES => {
                    return Err(failed(format!("the gateway answered {}", response.status())));
                }
                Err(error) if tries == FETCH_TRIES => return Err(failed(in_one_line(&error))),
                Ok(_) | Err(_) => {
                    tokio::time::sleep(FETCH_PAUSE * tries).await;
                    tries += 1;
                }
            }
        };
        let announced =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let allowed = self.max_input.min(input.bytes);
        if announced.is_some_and(|bytes: u64| bytes > allowed) {
            return Err(too_long(input.bytes));
        }
        let mut total = 0;
        loop {
            let chunk = timeout(self.silence, response.chunk()).await.map_err(silent)?;
            let Some(chunk) = chunk.map_err(|error| failed(in_one_line(&error)))? else { break };
            total += chunk.len() as u64;
            if total > allowed {
                return Err(too_long(input.bytes));
            }
            if sender.send(Chunk::Data(chunk)).await.is_err() {
                return Ok(());
            }
        }
        if total != input.bytes {
            return Err(failed(format!("{total} bytes came, the offer says {}", input.bytes)));
        }
        Ok(())
    }

    /// Puts what a failed attempt left behind. Best effort: the fault itself goes another way.
    pub(crate) async fn evidence(&self, path: &str, evidence: &Evidence) {
        // Plain structs: nothing in them can fail to be written as JSON.
        let body = serde_json::to_vec(evidence).unwrap_or_default();
        let request = self.client.put(format!("{}{path}", self.base));
        let request = request.header(CONTENT_TYPE, "application/json").timeout(EVIDENCE_PATIENCE).body(body);
        match request.send().await {
            Ok(response) if response.status().is_success() => tracing::debug!("evidence put"),
            Ok(response) => tracing::debug!(status = %response.status(), "evidence not taken"),
            Err(error) => tracing::debug!(error = in_one_line(&error), "evidence not put"),
        }
    }

    /// Starts to put; the request is made as soon as it runs, the body follows through the channel.
    pub(crate) fn upload(&self, path: &str, container: Container) -> Upload {
        let (sender, receiver) = mpsc::channel(UPLOAD_CHUNKS);
        let body =
            futures_util::stream::unfold(Some(receiver), |receiver: Option<mpsc::Receiver<Chunk>>| async {
                let mut receiver = receiver?;
                match receiver.recv().await {
                    Some(Chunk::Data(bytes)) => Some((Ok(bytes), Some(receiver))),
                    Some(Chunk::End) => None,
                    Some(Chunk::Failed(_)) | None => {
                        Some((Err(io::Error::other("the rendition is not whole")), None))
                    }
                }
            });
        let request = self
            .client
            .put(format!("{}{path}", self.base))
            .header(CONTENT_TYPE, container.content_type())
            // A last resort: while the body is being made, silence is the worker's; after it, `result` waits.
            .timeout(Duration::from_secs(3600))
            .body(Body::wrap_stream(body));
        let path = path.to_owned();
        let task = tokio::spawn(async move {
            let failed = |text: String| {
                Fault::new(Code::UploadFailed, format!("cannot put a rendition: {text}")).with_detail(path)
            };
            match request.send().await {
                Ok(response) if response.status().is_success() => {
                    // Read to its end, or the connection cannot be used again.
                    response.bytes().await.map_err(|error| failed(in_one_line(&error)))?;
                    Ok(())
                }
                Ok(response) => Err(failed(format!("the gateway answered {}", response.status()))),
                Err(error) => Err(failed(in_one_line(&error))),
            }
        });
        Upload { sender: Some(sender), task: Some(task), silence: self.silence }
    }
}

/// For evidence, which nobody waits for.
const EVIDENCE_PATIENCE: Duration = Duration::from_secs(5);

fn too_long(offered: u64) -> Fault {
    Fault::new(Code::TooLarge, format!("the segment is longer than the {offered} bytes that were offered"))
}

/// What travels through the channels.
#[derive(Debug)]
pub(crate) enum Chunk {
    Data(Bytes),
    End,
    Failed(Fault),
}

/// A running `GET`; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Fetch {
    chunks: mpsc::Receiver<Chunk>,
    task: JoinHandle<()>,
}

impl Fetch {
    pub(crate) async fn next(&mut self) -> Chunk {
        let gone = || Chunk::Failed(Fault::new(Code::FetchFailed, "the fetch ended without a result"));
        self.chunks.recv().await.unwrap_or_else(gone)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A running `PUT`; dropping it cuts it.
#[derive(Debug)]
pub(crate) struct Upload {
    sender: Option<mpsc::Sender<Chunk>>,
    /// None once its result has been taken.
    task: Option<JoinHandle<Result<(), Fault>>>,
    silence: Duration,
}

impl Upload {
    /// Hands on bytes; an error is the upload's own.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        let Some(sender) = &self.sender else {
            return Err(Fault::new(Code::BadOutput, "the worker wrote to a rendition that it had finished"));
        };
        match timeout(self.silence, sender.send(Chunk::Data(bytes))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.early_end().await),
            Err(_) => {
                Err(Fault::new(Code::UploadFailed, "cannot put a rendition: the gateway does not take it"))
            }
        }
    }

    /// Ends the body well.
    pub(crate) async fn finish(&mut self) -> Result<(), Fault> {
        match self.sender.take() {
            Some(sender) => match timeout(self.silence, sender.send(Chunk::End)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(self.early_end().await),
                Err(_) => Err(Fault::new(
                    Code::UploadFailed,
                    "cannot put a rendition: the gateway does not take it",
                )),
            },
            None => Ok(()),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.sender.is_none()
    }

    /// The request ended before its body did: never a success, whatever the gateway answered.
    async fn early_end(&mut self) -> Fault {
        let early = "cannot put a rendition: the gateway answered before it had all of it";
        self.result().await.err().unwrap_or_else(|| Fault::new(Code::UploadFailed, early))
    }

    /// Waits for the gateway's answer, once. A body that was not finished is cut.
    pub(crate) async fn result(&mut self) -> Result<(), Fault> {
        self.sender = None;
        let failed = |text| Err(Fault::new(Code::UploadFailed, text));
        let Some(task) = &mut self.task else { return failed("the upload has ended before") };
        let result = timeout(self.silence, &mut *task).await;
        match result {
            Ok(result) => {
                self.task = None;
                result.unwrap_or_else(|_| failed("the upload was stopped"))
            }
            Err(_) => failed("cannot put a rendition: the gateway does not answer"),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
