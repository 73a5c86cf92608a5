//! `headwater-agent enroll TOKEN`: makes a key that stays here and gets its certificate.
//!
//! ```text
//! GET  ca             any server may answer; its certificate must have the token's SHA-256
//! POST certificate    only to a server that this CA vouches for: here the secret leaves the node
//! ```

use std::path::Path;
use std::time::Duration;

use headwater_protocol::enroll::{CA_PATH, CERTIFICATE_PATH, Grant, Request, Token};
use headwater_protocol::proxy::Proxy;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameBuilder, X509ReqBuilder};
use reqwest::{Certificate, Client, ClientBuilder, StatusCode, Url};

use crate::identity::{Identity, IdentityError, Node};
use crate::proxy::{self, ProxyError};

const TIMEOUT: Duration = Duration::from_secs(15);
/// A certificate and a sentence fit many times.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("cannot {verb} at {url}: {text}; check the address, the network and this board's clock")]
    Unreachable { verb: &'static str, url: String, text: String },
    #[error(
        "{url} shows a CA that is not the one of the token; nothing secret was sent. Ask the operator for a new token, and who else answers at this address"
    )]
    WrongCa { url: String },
    #[error(
        "what answers at {url} is not the gateway: {text}; nothing secret was sent. Check the address and what is on the way"
    )]
    Stranger { url: String, text: String },
    #[error("the gateway refused the token: {0}")]
    Refused(String),
    #[error("the gateway answered {status}: {text}")]
    Answer { status: StatusCode, text: String },
    #[error("the gateway's grant is not usable: {0}")]
    BadGrant(&'static str),
    #[error("OpenSSL: {0}")]
    Crypto(#[from] ErrorStack),
}

/// Enrols this node; on any error nothing is left behind.
pub(crate) async fn enroll(
    token: &Token,
    state_dir: &Path,
    proxy: Option<&Proxy>,
    force: bool,
) -> Result<Node, EnrollError> {
    Identity::may_store(state_dir, force)?;
    let base = token.url.trim_end_matches('/');
    // First of all: what a client says of a proxy that does not let it through does not help a person.
    if let Some(proxy) = proxy
        && let Ok(url) = Url::parse(base)
        && let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default())
    {
        proxy::try_out(proxy, host, port).await?;
    }
    let ca = fetch_ca(token, base, proxy).await?;
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let grant = post_request(token, base, &ca, &key, proxy).await?;
    check(token, &grant, &ca, &key)?;
    let identity = Identity {
        node: Node {
            fleet: grant.fleet,
            node: grant.node,
            gateway_url: base.to_owned(),
            broker_host: grant.broker_host,
            broker_port: grant.broker_port,
        },
        key: key.private_key_to_pem_pkcs8()?,
        certificate: grant.certificate.into_bytes(),
        ca: ca.to_pem()?,
    };
    identity.store(state_dir, force)?;
    Ok(identity.node)
}

fn client(proxy: Option<&Proxy>) -> Result<ClientBuilder, reqwest::Error> {
    let client = Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).http1_only();
    proxy::through(client, proxy)
}

fn unreachable(verb: &'static str, url: &str) -> impl FnOnce(reqwest::Error) -> EnrollError {
    let url = url.to_owned();
    move |error| EnrollError::Unreachable { verb, url, text: headwater_protocol::error::in_one_line(&error) }
}

async fn fetch_ca(token: &Token, base: &str, proxy: Option<&Proxy>) -> Result<X509, EnrollError> {
    let verb = "fetch the CA certificate";
    // Nothing is known about the server yet; the fingerprint below is the check, and nothing secret is sent.
    let client = client(proxy).and_then(|client| client.tls_danger_accept_invalid_certs(true).build());
    let client = client.map_err(unreachable(verb, base))?;
    let response = client.get(format!("{base}{CA_PATH}")).send().await.map_err(unreachable(verb, base))?;
    let (status, body) = read(response).await.map_err(unreachable(verb, base))?;
    // Anybody may have said that: a router's page, a proxy on the way. It says nothing of the token.
    let stranger = |text| EnrollError::Stranger { url: base.to_owned(), text };
    if status != StatusCode::OK {
        return Err(stranger(format!("it answered {status}: {}", printable(&body))));
    }
    let ca = X509::from_pem(&body).map_err(|_| stranger("what it shows is no certificate".to_owned()))?;
    if fingerprint(&ca)? != token.ca_sha256 {
        return Err(EnrollError::WrongCa { url: base.to_owned() });
    }
    Ok(ca)
}

fn fingerprint(certificate: &X509) -> Result<String, ErrorStack> {
    let digest = certificate.digest(MessageDigest::sha256())?;
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn post_request(
    token: &Token,
    base: &str,
    ca: &X509,
    key: &PKey<Private>,
    proxy: Option<&Proxy>,
) -> Result<Grant, EnrollError> {
    let verb = "ask for a certificate";
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, token.node.as_str())?;
    let name = name.build();
    let mut csr = X509ReqBuilder::new()?;
    csr.set_subject_name(&name)?;
    csr.set_pubkey(key)?;
    csr.sign(key, MessageDigest::sha256())?;
    let csr =
        String::from_utf8(csr.build().to_pem()?).map_err(|_| EnrollError::BadGrant("its CSR is not text"))?;
    let root = Certificate::from_pem(&ca.to_pem()?).map_err(unreachable(verb, base))?;
    let client = client(proxy).and_then(|client| client.tls_certs_only([root]).build());
    let client = client.map_err(unreachable(verb, base))?;
    let request = Request { node: token.node.clone(), secret: token.secret.clone(), csr };
    let sent = client.post(format!("{base}{CERTIFICATE_PATH}")).json(&request).send().await;
    let (status, body) =
        read(sent.map_err(unreachable(verb, base))?).await.map_err(unreachable(verb, base))?;
    match status {
        StatusCode::OK => serde_json::from_slice(&body)
            .map_err(|_| EnrollError::BadGrant("it is not what this version reads")),
        StatusCode::FORBIDDEN => Err(EnrollError::Refused(printable(&body))),
        status => Err(EnrollError::Answer { status, text: printable(&body) }),
    }
}

async fn read(mut response: reqwest::Response) -> Result<(StatusCode, Vec<u8>), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    Ok((response.status(), body))
}

fn printable(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(300).collect();
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

fn check(token: &Token, grant: &Grant, ca: &X509, key: &PKey<Private>) -> Result<(), EnrollError> {
    if grant.node != token.node || grant.fleet != token.fleet {
        return Err(EnrollError::BadGrant("it is for another node"));
    }
    let certificate = X509::from_pem(grant.certificate.as_bytes())
        .map_err(|_| EnrollError::BadGrant("its certificate cannot be read"))?;
    let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
    if name.is_none_or(|name| name.data().as_slice() != token.node.as_str().as_bytes()) {
        return Err(EnrollError::BadGrant("its certificate names another node"));
    }
    if !certificate.public_key()?.public_eq(key) {
        return Err(EnrollError::BadGrant("its certificate is for another key"));
    }
    let ca_key = ca.public_key()?;
    if !certificate.verify(&ca_key)? {
        return Err(EnrollError::BadGrant("its certificate is not signed by the fleet's CA"));
    }
    Ok(())
}
