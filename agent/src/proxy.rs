//! A board behind a proxy: everything that leaves it goes through HTTP CONNECT, and stays encrypted to the gateway.

use std::error::Error;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use async_http_proxy::{HttpError, http_connect_tokio, http_connect_tokio_with_basic_auth};
use percent_encoding::percent_decode_str;
use reqwest::{ClientBuilder, Url};
use serde::{Deserialize as _, Deserializer, de};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For the proxy to take a connection and to answer; it may have to look up a name and connect itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where it is, and who we are there. Neither `Debug` nor `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) login: Option<Login>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Without what was written: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a proxy is written http://host:port or http://user:password@host:port, with special characters percent-encoded"
)]
pub(crate) struct BadProxy;

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let url = Url::parse(text).map_err(|_| BadProxy)?;
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !plain {
            return Err(BadProxy);
        }
        let host = url.host_str().ok_or(BadProxy)?.to_owned();
        let port = url.port_or_known_default().ok_or(BadProxy)?;
        let decode =
            |part: &str| percent_decode_str(part).decode_utf8().map(String::from).map_err(|_| BadProxy);
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                Some(Login { user: decode(user)?, password: decode(password.unwrap_or_default())? })
            }
        };
        Ok(Self { host, port, login })
    }
}

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

impl Proxy {
    /// Asks for a way to a host, and does not take it: to say what is wrong before anything depends on it.
    pub(crate) async fn try_out(&self, host: &str, port: u16) -> Result<(), ProxyError> {
        let connect = async {
            let mut stream = TcpStream::connect(self.to_string()).await?;
            match &self.login {
                Some(Login { user, password }) => {
                    http_connect_tokio_with_basic_auth(&mut stream, host, port, user, password).await
                }
                None => http_connect_tokio(&mut stream, host, port).await,
            }
        };
        match timeout(PATIENCE, connect).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.explain(&error, &format!("{host}:{port}"))),
            Err(_) => Err(ProxyError::Silent { at: self.to_string() }),
        }
    }

    /// What an error of the tunnel means; `error` may have it below itself.
    pub(crate) fn explain(&self, error: &(dyn Error + 'static), to: &str) -> ProxyError {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<HttpError>() {
                return self.understand(error, to);
            }
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return self.unreachable(error);
            }
            cause = error.source();
        }
        ProxyError::Unreachable { at: self.to_string(), text: error.to_string() }
    }

    fn unreachable(&self, error: &io::Error) -> ProxyError {
        ProxyError::Unreachable { at: self.to_string(), text: error.to_string() }
    }

    fn understand(&self, error: &HttpError, to: &str) -> ProxyError {
        let (at, to) = (self.to_string(), to.to_owned());
        match error {
            // Of its words, which were no text.
            HttpError::IoError(error) if error.kind() == io::ErrorKind::InvalidData => {
                ProxyError::NoProxy { at }
            }
            HttpError::IoError(error) => self.unreachable(error),
            // Some proxies mean a wrong password by 401.
            HttpError::HttpCode200(401 | 407) if self.login.is_some() => ProxyError::WrongLogin { at },
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Proxy {
        text.parse().unwrap()
    }

    #[test]
    fn a_proxy_is_an_address_with_or_without_a_login() {
        let bare = parsed("http://proxy.example:3128");
        assert_eq!((&*bare.host, bare.port, bare.login.is_none()), ("proxy.example", 3128, true));
        let full = parsed("http://me:p%40ss%3A%2Fw@[::1]:8080/");
        assert_eq!((&*full.host, full.port), ("[::1]", 8080));
        let login = full.login.unwrap();
        assert_eq!((&*login.user, &*login.password), ("me", "p@ss:/w"));
        for bad in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "socks5://proxy:1080",
            "http://proxy:3128/path",
            "http://:1",
        ] {
            assert_eq!(bad.parse::<Proxy>(), Err(BadProxy), "{bad}");
        }
    }

    #[test]
    fn no_text_of_a_proxy_has_its_password() {
        let proxy = parsed("http://me:s3cret@proxy:3128");
        for text in [format!("{proxy:?}"), proxy.to_string(), format!("{:?}", Some(&proxy))] {
            assert!(
                text.contains("proxy:3128") && !text.contains("s3cret") && !text.contains("me:"),
                "{text}"
            );
        }
        let wrong = "http://me:s3cret@proxy:port".parse::<Proxy>().unwrap_err().to_string();
        assert!(!wrong.contains("s3cret"), "{wrong}");
    }

    #[test]
    fn each_answer_of_a_proxy_says_what_is_to_be_done() {
        let (bare, full) = (parsed("http://p:1"), parsed("http://a:b@p:1"));
        let told = |proxy: &Proxy, error| proxy.explain(&error, "gw:9936");
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
