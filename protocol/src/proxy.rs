//! Where an HTTP proxy is. The agent takes nothing that this refuses, and so nobody writes it into its configuration.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where it is, and who we are there. Neither `Debug` nor `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name, IPv4, or IPv6 in brackets.
    pub host: String,
    pub port: u16,
    pub login: Option<Login>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// Without what was written: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a proxy is written http://host:port or http://user:password@host:port, with special characters percent-encoded"
)]
pub struct BadProxy;

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

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(hidden)")
    }
}

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let rest = text.strip_prefix("http://").ok_or(BadProxy)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(|c: char| c.is_control() || matches!(c, '/' | '?' | '#' | '\\')) {
            return Err(BadProxy);
        }
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login.parse()?), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            // The last colon of an IPv6 address is within its brackets.
            Some((host, port)) if !port.ends_with(']') => (host, read_port(port)?),
            Some(_) | None => (place, 80),
        };
        if is_host(host) { Ok(Self { host: host.to_owned(), port, login }) } else { Err(BadProxy) }
    }
}

impl FromStr for Login {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() {
            return Err(BadProxy);
        }
        Ok(Self { user: decode(user)?, password: decode(password)? })
    }
}

fn read_port(text: &str) -> Result<u16, BadProxy> {
    let port = text.parse().ok().filter(|port| *port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
    port.ok_or(BadProxy)
}

/// Never one that a URL could not have: HTTP clients read the address once more, as a URL.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    // What ends in a number is an address and no name.
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    // Which names in Punycode are right, only tables of all scripts say.
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !text.to_ascii_lowercase().starts_with("xn--")
}

/// `%` and two hex digits are a byte; a `%` before something else is itself.
fn decode(text: &str) -> Result<String, BadProxy> {
    let hex = |at: usize| text.as_bytes().get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two digits are below 256.
                bytes.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| BadProxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Proxy {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_proxy_is_an_address_with_or_without_a_login() {
        for (text, host, port) in [
            ("http://proxy.example:3128", "proxy.example", 3128),
            ("http://proxy.example:3128/", "proxy.example", 3128),
            ("http://3proxy:1", "3proxy", 1),
            ("http://my_proxy", "my_proxy", 80),
            ("http://10.0.0.1:65535", "10.0.0.1", 65535),
            ("http://[fd00::1]:8080", "[fd00::1]", 8080),
            ("http://[::1]", "[::1]", 80),
        ] {
            assert_eq!(parsed(text), Proxy { host: host.to_owned(), port, login: None }, "{text}");
        }
    }

    #[test]
    fn a_login_may_have_any_character_in_one_way_or_another() {
        for (text, user, password) in [
            ("http://me@proxy:3128", "me", ""),
            ("http://me:p%40ss%3A%2Fw@[::1]:8080/", "me", "p@ss:/w"),
            ("http://me:p@ss:w rd@proxy:3128", "me", "p@ss:w rd"),
            ("http://m%C3%BCller:gr\u{fc}n@proxy:3128", "m\u{fc}ller", "gr\u{fc}n"),
            ("http://me:100%@proxy:3128", "me", "100%"),
            ("http://me:%4@proxy:3128", "me", "%4"),
        ] {
            let login = Login { user: user.to_owned(), password: password.to_owned() };
            assert_eq!(parsed(text).login, Some(login), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("http://{}:1", "a".repeat(64));
        for bad in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "socks5://proxy:1080",
            "http://",
            "http://:1",
            "http://proxy:",
            "http://proxy:0",
            "http://proxy:+1",
            "http://proxy:65536",
            "http://proxy:port",
            "http://proxy:3128/path",
            "http://proxy:3128?",
            "http://proxy:3128#",
            "http://proxy:3128 ",
            "http://two words:3128",
            "http://a..b:3128",
            "http://999.1.1.1:3128",
            "http://10.1:3128",
            "http://proxy.0x1:3128",
            "http://[::1:3128",
            "http://[fe80::1%eth0]:3128",
            "http://fd00::1:3128",
            "http://xn--a:3128",
            "http://m\u{fc}ller:3128",
            "http://:hush@proxy:3128",
            "http://me:a#b@proxy:3128",
            "http://me:a?b@proxy:3128",
            "http://me:a/b@proxy:3128",
            "http://me:a\\b@proxy:3128",
            "http://me:a\tb@proxy:3128",
            "http://me:%ff@proxy:3128",
            long.as_str(),
        ] {
            assert_eq!(bad.parse::<Proxy>(), Err(BadProxy), "{bad}");
        }
    }

    #[test]
    fn no_text_of_a_proxy_has_its_password() {
        let proxy = parsed("http://me:s3cret@proxy:3128");
        for text in [format!("{proxy:?}"), proxy.to_string()] {
            assert!(
                text.contains("proxy:3128") && !text.contains("s3cret") && !text.contains("me:"),
                "{text}"
            );
        }
        assert!(!format!("{:?}", proxy.login).contains("s3cret"));
        let wrong = "http://me:s3cret@proxy:port".parse::<Proxy>().unwrap_err().to_string();
        assert!(!wrong.contains("s3cret"), "{wrong}");
    }
}
