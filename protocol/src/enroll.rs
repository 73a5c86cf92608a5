//! How a node gets its certificate.
//!
//! 1. The operator gets a [`Token`] from the gateway and hands it to the node.
//! 2. The node fetches [`CA_PATH`] and goes on only if the certificate's SHA-256 is the token's.
//! 3. Trusting that certificate alone, it posts a [`Request`] to [`CERTIFICATE_PATH`] and gets a [`Grant`].
//!
//! The secret is sent only in step 3, to a server that has proved itself. The key never leaves the node.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{BadId, FleetId, NodeId};

/// `GET`: the fleet's CA certificate, PEM.
pub const CA_PATH: &str = "/enroll/v1/ca";
/// `POST` [`Request`] -> [`Grant`]: 200; 403 where the token is unknown, used or expired; 400 with a sentence.
pub const CERTIFICATE_PATH: &str = "/enroll/v1/certificate";

/// `hw1/FLEET/NODE/CA-SHA256/SECRET/URL`, works once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub fleet: FleetId,
    pub node: NodeId,
    /// SHA-256 of the CA certificate's DER, 64 hex digits.
    pub ca_sha256: String,
    /// 32 hex digits.
    pub secret: String,
    /// The gateway's address for nodes, `https://host:port`.
    pub url: String,
}

/// Why a text is not a token. Never shows the text: it may be nearly right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("this is not an enrolment token; it looks like hw1/FLEET/NODE/…/…/https://…, copy it whole")]
    Shape,
    #[error("the token's {0} is damaged; copy it whole")]
    Part(&'static str),
    #[error("the token names a bad id: {0}")]
    Id(#[from] BadId),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fleet, node, ca_sha256, secret, url } = self;
        write!(f, "hw1/{fleet}/{node}/{ca_sha256}/{secret}/{url}")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(for {} of {}, secret hidden)", self.node, self.fleet)
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let parts: Vec<&str> = text.trim().splitn(6, '/').collect();
        let &["hw1", fleet, node, ca_sha256, secret, url] = parts.as_slice() else {
            return Err(BadToken::Shape);
        };
        let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex(ca_sha256, 64) {
            return Err(BadToken::Part("fingerprint"));
        }
        if !hex(secret, 32) {
            return Err(BadToken::Part("secret"));
        }
        if !url.starts_with("https://") {
            return Err(BadToken::Part("address"));
        }
        Ok(Self {
            fleet: fleet.parse()?,
            node: node.parse()?,
            ca_sha256: ca_sha256.to_ascii_lowercase(),
            secret: secret.to_owned(),
            url: url.to_owned(),
        })
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Request {
    pub node: NodeId,
    pub secret: String,
    /// PKCS#10, PEM; its common name is the node.
    pub csr: String,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request(for {}, secret hidden)", self.node)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// PEM; common name is the node, organisation is the fleet.
    pub certificate: String,
    /// PEM of the fleet's CA.
    pub ca: String,
    pub fleet: FleetId,
    pub node: NodeId,
    /// Where the broker listens for nodes.
    pub broker_host: String,
    pub broker_port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_a_damaged_one_is_not_shown() {
        let token = Token {
            fleet: FleetId::new("home").unwrap(),
            node: NodeId::new("orin-1").unwrap(),
            ca_sha256: "ab".repeat(32),
            secret: "0123456789abcdef0123456789abcdef".into(),
            url: "https://gw.example:9936".into(),
        };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        let cut = token.to_string().replace("89abcdef/", "/");
        assert_eq!(cut.parse::<Token>(), Err(BadToken::Part("secret")));
        assert!(!format!("{token:?}").contains("0123456789"));
    }
}
