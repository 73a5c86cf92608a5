//! Listeners: accept, handshake, serve HTTP/1.1, each with its bound and its deadline.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use headwater_protocol::NodeId;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::identity::Identity;
use crate::leftover::Leftover;

/// Whose certificate a request came with: none, or the node's that the fleet's CA vouches for.
#[derive(Debug, Clone)]
pub struct Peer(pub Option<Shown>);

/// A node's certificate.
#[derive(Debug, Clone)]
pub struct Shown {
    pub node: NodeId,
    pub sha256: String,
}

#[derive(Debug, Clone)]
pub struct From(pub SocketAddr);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS certificates: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("TLS: {0}")]
    Config(#[from] rustls::Error),
    #[error("TLS client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// TLS for nodes: a certificate is asked for, and without one only enrolment is open.
pub fn tls(identity: &Identity) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity.ca_pem.as_bytes())?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let chain = vec![CertificateDer::from_pem_slice(identity.server.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(identity.server.key.as_bytes())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[derive(Clone)]
pub struct Server {
    pub app: Router,
    pub tls: Option<TlsAcceptor>,
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Longest time in which a client takes nothing of an answer. Nodes fetch ahead, and read on once they have room.
    pub takes: Option<Duration>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("connections", &self.connections).finish_non_exhaustive()
    }
}

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time for a request's head, and the longest idle time of a kept connection.
const HEAD: Duration = Duration::from_secs(30);
/// Longest time in which a client of the public listener takes nothing of an answer.
pub const TAKES: Duration = Duration::from_secs(30);

impl Server {
    /// Accepts until `stop`; ends once every connection has ended its request.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.connections));
        let tracker = TaskTracker::new();
        loop {
            let permit = tokio::select! {
                () = stop.cancelled() => break,
                permit = Arc::clone(&permits).acquire_owned() => match permit {
                    Ok(permit) => permit,
                    // Nobody closes this semaphore.
                    Err(_) => break,
                },
            };
            let (stream, from) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, most likely; ending connections give some back.
                        tracing::warn!(%error, "not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let (server, stop) = (self.clone(), stop.clone());
            tracker.spawn(async move {
                let _permit = permit;
                server.connection(stream, from, stop).await;
            });
        }
        drop(listener);
        tracker.close();
        tracker.wait().await;
    }

    async fn connection(self, stream: TcpStream, from: SocketAddr, stop: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %from, "no TCP_NODELAY");
        }
        let Some(tls) = &self.tls else {
            return http(stream, self.app, Peer(None), from, self.takes, stop).await;
        };
        let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, %from, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%from, "TLS handshake took too long"),
        };
        let peer = stream.get_ref().1.peer_certificates().and_then(|chain| {
            let certificate = chain.first()?;
            Some(Shown { node: name(certificate)?, sha256: crate::secret::sha256_hex(certificate) })
        });
        http(stream, self.app, Peer(peer), from, self.takes, stop).await;
    }
}

/// The common name of a certificate that the CA has signed, if it is a node's.
fn name(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let common = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    NodeId::new(common).ok().filter(|node| node.as_str() != crate::identity::GATEWAY)
}

async fn http<S>(
    stream: S,
    app: Router,
    peer: Peer,
    from: SocketAddr,
    takes: Option<Duration>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(From(from));
        let mut app = app.clone();
        async move {
            Ok::<_, Infallible>(
                app.call(Leftover::of(request).map(Body::new)).await.unwrap_or_else(|e| match e {}),
            )
        }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(takes);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(64)
        .max_buf_size(256 * 1024)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %from, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    // The clock is the test's: it jumps to the deadline once nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_finish_its_head_or_asks_nothing_more_is_closed() {
        for said in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let (mut client, server) = tokio::io::duplex(4096);
            let from = SocketAddr::from(([127, 0, 0, 1], 1));
            let serving =
                tokio::spawn(http(server, Router::new(), Peer(None), from, None, CancellationToken::new()));
            client.write_all(said.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let began = tokio::time::Instant::now();
            // Ends only when the other side closes.
            client.read_to_end(&mut answer).await.unwrap();
            assert!(began.elapsed() <= HEAD + Duration::from_secs(1), "{said:?}");
            serving.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_its_answer_is_hung_up_on_and_a_slow_one_is_not() {
        const BYTES: usize = 1 << 20;
        let app = || Router::new().route("/", axum::routing::get(async || vec![0; BYTES]));
        for (takes, pause, whole) in [
            (Some(TAKES), TAKES - Duration::from_secs(1), true),
            (Some(TAKES), TAKES * 2, false),
            (None, TAKES * 2, true),
        ] {
            let (mut client, server) = tokio::io::duplex(256 * 1024);
            let from = SocketAddr::from(([127, 0, 0, 1], 1));
            let serving =
                tokio::spawn(http(server, app(), Peer(None), from, takes, CancellationToken::new()));
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut taken = 0;
            let mut part = vec![0; 64 * 1024];
            loop {
                tokio::time::sleep(pause).await;
                match client.read(&mut part).await.unwrap() {
                    0 => break,
                    bytes => taken += bytes,
                }
                if taken > BYTES {
                    break;
                }
            }
            assert_eq!(taken > BYTES, whole, "{taken} bytes after {pause:?} each");
            drop(client);
            serving.await.unwrap();
        }
    }
}
