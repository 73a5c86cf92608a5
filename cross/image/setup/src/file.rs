//! `headwater.toml` as a person writes it, and what is wrong with it. `boot/headwater.toml` explains every key.

use std::str::{self, FromStr};

use headwater_protocol::enroll::{BadToken, Token};
use headwater_protocol::proxy::{BadProxy, Proxy};
use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BoardFile {
    /// Where it stands is known too, so that it can be taken off the card.
    pub(crate) token: Option<Spanned<String>>,
    pub(crate) hostname: Option<String>,
    pub(crate) time_servers: Vec<String>,
    /// `http://[user:password@]host:port`
    pub(crate) proxy: Option<String>,
    pub(crate) wifi: Option<Wifi>,
    pub(crate) ssh: Ssh,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wifi {
    pub(crate) ssid: String,
    /// None: an open network.
    pub(crate) password: Option<String>,
    /// ISO 3166, for the channels that are allowed.
    pub(crate) country: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ssh {
    pub(crate) keys: Vec<String>,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum BadFile {
    #[error("line {line} is not UTF-8 text; save the file once more, with the encoding UTF-8")]
    Encoding { line: usize },
    #[error("line {line}: {text}")]
    Toml { line: usize, text: String },
    #[error("{0}")]
    Token(#[from] BadToken),
    #[error("hostname {0:?} is not a name; use letters, digits and hyphens, at most 63")]
    Hostname(String),
    #[error("time_servers: {0:?} is not a host name or an address")]
    TimeServer(String),
    #[error("proxy: {0}")]
    Proxy(#[from] BadProxy),
    #[error("wifi.ssid must have 1 to 32 bytes")]
    Ssid,
    // The password itself is never shown.
    #[error("wifi.password must have 8 to 63 plain characters (or be the 64 hex digits of the key)")]
    WifiPassword,
    #[error("wifi.country {0:?} is not a country; write two capital letters, as \"DE\"")]
    Country(String),
    #[error("ssh.keys: {0:?} is not a public key; copy the whole line of the .pub file")]
    SshKey(String),
}

impl BoardFile {
    /// The file as an editor left it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, BadFile> {
        let end = match str::from_utf8(bytes) {
            // UTF-16 without a mark.
            Ok(text) => match text.find('\0') {
                Some(at) => at,
                None => return text.parse(),
            },
            Err(error) => error.valid_up_to(),
        };
        Err(BadFile::Encoding { line: line_of(&bytes[..end]) })
    }

    /// The token, if one is there.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.get_ref().trim()).filter(|token| !token.is_empty())
    }

    /// The proxy, if one is there.
    pub(crate) fn proxy(&self) -> Option<&str> {
        let proxy = self.proxy.as_deref().map(|proxy| proxy.trim().trim_end_matches('/'));
        proxy.filter(|proxy| !proxy.is_empty())
    }

    fn check(&self) -> Result<(), BadFile> {
        if let Some(token) = self.token() {
            token.parse::<Token>()?;
        }
        if let Some(name) = self.hostname.as_ref().filter(|name| !is_label(name)) {
            return Err(BadFile::Hostname(name.clone()));
        }
        if let Some(server) = self.time_servers.iter().find(|server| !is_host(server)) {
            return Err(BadFile::TimeServer(server.clone()));
        }
        if let Some(proxy) = self.proxy() {
            proxy.parse::<Proxy>()?;
        }
        if let Some(wifi) = &self.wifi {
            wifi.check()?;
        }
        if let Some(key) = self.ssh.keys.iter().find(|key| !is_key(key)) {
            return Err(BadFile::SshKey(key.chars().take(40).collect()));
        }
        Ok(())
    }
}

impl Wifi {
    fn check(&self) -> Result<(), BadFile> {
        if !(1..=32).contains(&self.ssid.len()) {
            return Err(BadFile::Ssid);
        }
        if self.password.as_ref().is_some_and(|password| !is_passphrase(password) && !is_raw_key(password)) {
            return Err(BadFile::WifiPassword);
        }
        let country = |text: &String| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        match &self.country {
            Some(text) if !country(text) => Err(BadFile::Country(text.clone())),
            Some(_) | None => Ok(()),
        }
    }
}

/// IEEE 802.11: 8 to 63 printable ASCII characters.
fn is_passphrase(text: &str) -> bool {
    (8..=63).contains(&text.len()) && text.bytes().all(|byte| (32..=126).contains(&byte))
}

pub(crate) fn is_raw_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// RFC 1123.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':'))
}

fn is_key(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let kind = words.next().is_some_and(|kind| kind.starts_with("ssh-") || kind.starts_with("ecdsa-"));
    kind && words.next().is_some_and(|key| key.starts_with("AAAA")) && !text.contains(['\n', '\r'])
}

impl FromStr for BoardFile {
    type Err = BadFile;

    fn from_str(text: &str) -> Result<Self, BadFile> {
        let board: Self = toml::from_str(text).map_err(|error| complaint(text, &error))?;
        board.check()?;
        Ok(board)
    }
}

/// Without the text of the line, which may hold a secret: the complaint goes to a file that others read.
fn complaint(text: &str, error: &toml::de::Error) -> BadFile {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    BadFile::Toml { line: line_of(before.as_bytes()), text: error.message().to_owned() }
}

fn line_of(before: &[u8]) -> usize {
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const TOKEN: &str = concat!(
        "hw1/home/north/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/",
        "0123456789abcdef0123456789abcdef/https://10.0.2.2:9936"
    );

    #[test]
    fn the_file_on_the_card_says_nothing_until_someone_writes_in_it() {
        let shipped: BoardFile = include_str!("../../boot/headwater.toml").parse().unwrap();
        assert_eq!(shipped.token(), None);
        assert_eq!((shipped.hostname, shipped.wifi, shipped.ssh), (None, None, Ssh::default()));
    }

    #[test]
    fn every_key_that_the_file_on_the_card_explains_can_be_used() {
        let shipped = include_str!("../../boot/headwater.toml");
        let used: String = shipped
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let board: BoardFile = used.replace("token = \"\"", &format!("token = \"{TOKEN}\"")).parse().unwrap();
        assert_eq!(board.token(), Some(TOKEN));
        assert_eq!(board.proxy(), Some("http://192.168.1.2:3128"));
        assert!(board.hostname.is_some() && board.wifi.is_some() && !board.time_servers.is_empty());
        assert!(!board.ssh.keys.is_empty());
    }

    #[test]
    fn mistakes_are_told_in_words() {
        let cases = [
            ("token = \"abc\"", "not an enrolment token"),
            ("hostname = \"two words\"", "not a name"),
            ("time_servers = [\"a b\"]", "time_servers"),
            ("proxy = \"proxy.example:3128\"", "http://host:port"),
            ("proxy = \"https://proxy.example:3128\"", "http://host:port"),
            ("proxy = \"http://proxy.example:0\"", "http://host:port"),
            ("proxy = \"http://:hush@proxy.example:3128\"", "http://host:port"),
            ("proxy = \"http://me:a#b@proxy.example:3128\"", "percent-encoded"),
            ("proxy = 'http://me:a\\b@proxy.example:3128'", "percent-encoded"),
            ("proxy = \"http://999.1.1.1:3128\"", "http://host:port"),
            ("[wifi]\nssid = \"\"", "wifi.ssid"),
            ("[wifi]\nssid = \"barn\"\npassword = \"short\"", "8 to 63"),
            ("[wifi]\nssid = \"barn\"\ncountry = \"de\"", "two capital letters"),
            ("[ssh]\nkeys = [\"AAAA\"]", "not a public key"),
            ("[wifi]\npassword = \"long enough\"", "ssid"),
        ];
        for (text, wanted) in cases {
            let told = text.parse::<BoardFile>().unwrap_err().to_string();
            assert!(told.contains(wanted), "{text}: {told}");
        }
    }

    #[test]
    fn a_proxy_may_want_a_name_and_a_password() {
        for text in [
            "http://proxy.example:3128",
            "http://10.0.0.1:8080",
            "http://[fd00::1]:3128",
            "http://me:hush:%40@proxy.example:3128",
            "http://proxy.example",
        ] {
            let board: BoardFile = format!("proxy = \"{text}\"").parse().unwrap();
            assert_eq!(board.proxy(), Some(text));
        }
        let slash: BoardFile = "proxy = \" http://proxy.example:3128/ \"".parse().unwrap();
        assert_eq!(slash.proxy(), Some("http://proxy.example:3128"));
        assert_eq!("proxy = \"\"".parse::<BoardFile>().unwrap().proxy(), None);
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_told_by_its_line() {
        let text = "hostname = \"north\"\n[wifi]\nssid = \"M\u{fc}ller\"\n";
        let ansi: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        let utf_16: Vec<u8> = "token = \"\"".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = [b"\xff\xfe", &*utf_16].concat();
        for (bytes, line) in [(&ansi, 3), (&marked, 1), (&utf_16, 1)] {
            assert_eq!(BoardFile::read(bytes), Err(BadFile::Encoding { line }));
        }
        assert!(BoardFile::read(text.as_bytes()).is_ok());
    }

    #[test]
    fn a_byte_order_mark_changes_nothing_and_the_token_is_where_it_is() {
        let text = format!("\u{feff}token = \"{TOKEN}\"\r\n");
        let board = BoardFile::read(text.as_bytes()).unwrap();
        assert_eq!(board.token(), Some(TOKEN));
        assert_eq!(&text[board.token.unwrap().span()], format!("\"{TOKEN}\""));
    }

    #[test]
    fn a_complaint_shows_no_secret() {
        for text in [
            "[wifi]\nssid = \"barn\"\npassword = \"hush-hush",
            "[wifi]\npasword = \"hush-hush\"",
            "token = hush-hush",
            "proxy = \"me:hush@proxy.example\"",
        ] {
            let told = text.parse::<BoardFile>().unwrap_err().to_string();
            assert!(!told.contains("hush"), "{told}");
        }
    }
}
