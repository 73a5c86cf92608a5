//! A board behind a proxy: everything that leaves it goes through HTTP CONNECT, and stays encrypted to the gateway.

use std::error::Error;
use std::io;
use std::time::Duration;

use async_http_proxy::{HttpError, http_connect_tokio, http_connect_tokio_with_basic_auth};
use headwater_protocol::proxy::{Login, Proxy};
use reqwest::ClientBuilder;
use serde::{Deserialize as _, Deserializer, de};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For the proxy to take a connection and to answer; it may have to look up a name and connect itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Empty is none: so the operator can take a proxy away that the node's own file names.
pub(crate) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Proxy>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
}

/// Makes a client go through the proxy, or through none: never one of the environment, which MQTT would not take.
pub(crate) fn through(client: ClientBuilder, proxy: Option<&Proxy>) -> Result<ClientBuilder, reqwest::Error> {
    let client = client.no_proxy();
    let Some(proxy) = proxy else { return Ok(client) };
    let to = reqwest::Proxy::all(format!("http://{proxy}"))?;
    Ok(client.proxy(match &proxy.login {
        Some(Login { user, password }) => to.basic_auth(user, password),
        None => to,
    }))
}

/// Why there is no way through.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the proxy {at} cannot be reached: {text}; check `proxy` in agent.toml, and the network")]
    Unreachable { at: String, text: String },
    #[error("the proxy {at} does not answer; check `proxy` in agent.toml, and the network")]
    Silent { at: String },
    #[error(
        "the proxy {at} wants to know who asks; write http://user:password@{at} as `proxy` in agent.toml"
    )]
    NoLogin { at: String },
    #[error("the proxy {at} does not take the user and password of `proxy` in agent.toml")]
    WrongLogin { at: String },
    #[error(
        "the proxy {at} does not let this board through to {to} (status {status}); ask who runs it to allow CONNECT to this host and port"
    )]
    Forbids { at: String, to: String, status: u16 },
    #[error(
        "the proxy {at} cannot reach {to} (status {status}); is the gateway up, and does the proxy know its name?"
    )]
    Beyond { at: String, to: String, status: u16 },
    #[error("what answers at {at} is no HTTP proxy; check `proxy` in agent.toml")]
    NoProxy { at: String },
}

impl ProxyError {
    /// Somebody must change something first.
    pub(crate) fn is_firm(&self) -> bool {
        match self {
            ProxyError::NoLogin { .. }
            | ProxyError::WrongLogin { .. }
            | ProxyError::Forbids { .. }
            | ProxyError::NoProxy { .. } => true,
            ProxyError::Unreachable { .. } | ProxyError::Silent { .. } | ProxyError::Beyond { .. } => false,
        }
    }
}

/// Asks for a way to a host, and does not take it: to say what is wrong before anything depends on it.
pub(crate) async fn try_out(proxy: &Proxy, host: &str, port: u16) -> Result<(), ProxyError> {
    let connect = async {
        let mut stream = TcpStream::connect(proxy.to_string()).await?;
        match &proxy.login {
            Some(Login { user, password }) => {
                http_connect_tokio_with_basic_auth(&mut stream, host, port, user, password).await
            }
            None => http_connect_tokio(&mut stream, host, port).await,
        }
    };
    match timeout(PATIENCE, connect).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(explain(proxy, &error, &format!("{host}:{port}"))),
        Err(_) => Err(ProxyError::Silent { at: proxy.to_string() }),
    }
}

/// What an error of the tunnel means; `error` may have it below itself.
pub(crate) fn explain(proxy: &Proxy, error: &(dyn Error + 'static), to: &str) -> ProxyError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return understand(proxy, error, to);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return unreachable(proxy, error);
        }
        cause = error.source();
    }
    unreachable(proxy, error)
}

fn unreachable(proxy: &Proxy, error: &(dyn Error + 'static)) -> ProxyError {
    ProxyError::Unreachable { at: proxy.to_string(), text: error.to_string() }
}

fn understand(proxy: &Proxy, error: &HttpError, to: &str) -> ProxyError {
    let (at, to) = (proxy.to_string(), to.to_owned());
    match error {
        // Of its words, which were no text.
        HttpError::IoError(error) if error.kind() == io::ErrorKind::InvalidData => ProxyError::NoProxy { at },
        HttpError::IoError(error) => unreachable(proxy, error),
        // Some proxies mean a wrong password by 401.
        HttpError::HttpCode200(401 | 407) if proxy.login.is_some() => ProxyError::WrongLogin { at },
        HttpError::HttpCode200(401 | 407) => ProxyError::NoLogin { at },
        HttpError::HttpCode200(status @ 500..) => ProxyError::Beyond { at, to, status: *status },
        HttpError::HttpCode200(status) => ProxyError::Forbids { at, to, status: *status },
        HttpError::HttpParseError(_)
        | HttpError::MaximumResponseHeaderLengthExceeded(_)
        | HttpError::EndOfFile
        | HttpError::NoHttpCode
        | HttpError::NoHttpReason
        | HttpError::HttpReasonConnectionEstablished(_) => ProxyError::NoProxy { at },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Proxy {
        text.parse().unwrap()
    }

    #[test]
    fn whatever_is_a_proxy_is_one_for_the_http_client_too() {
        for text in [
            "http://proxy.example",
            "http://3proxy:1",
            "http://my_proxy:3128",
            "http://-odd-.a-:3128",
            "http://10.0.0.1:65535/",
            "http://[fd00::1]:8080",
            "http://m\u{fc}ller:p@ss w%C3%B6rd%@proxy:3128",
        ] {
            let client = through(reqwest::Client::builder(), Some(&parsed(text)));
            assert!(client.is_ok_and(|client| client.build().is_ok()), "{text}");
        }
    }

    #[test]
    fn each_answer_of_a_proxy_says_what_is_to_be_done() {
        let (bare, full) = (parsed("http://p:1"), parsed("http://a:b@p:1"));
        let told = |proxy: &Proxy, error| explain(proxy, &error, "gw:9936");
        assert!(matches!(told(&bare, HttpError::HttpCode200(407)), ProxyError::NoLogin { .. }));
        assert!(matches!(told(&full, HttpError::HttpCode200(401)), ProxyError::WrongLogin { .. }));
        let forbids = told(&full, HttpError::HttpCode200(403));
        assert!(forbids.is_firm() && forbids.to_string().contains("allow CONNECT to this host and port"));
        let beyond = told(&full, HttpError::HttpCode200(502));
        assert!(!beyond.is_firm() && beyond.to_string().contains("p:1 cannot reach gw:9936"));
        assert!(matches!(told(&bare, HttpError::NoHttpCode), ProxyError::NoProxy { .. }));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(matches!(told(&bare, refused.into()), ProxyError::Unreachable { .. }));
    }
}
