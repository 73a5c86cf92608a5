//! `gateway.toml`: every key, its unit in its name, its default and its rule.
//!
//! [`Config`] is the wire type; what is read is checked by [`Config::check`], so that a daemon that
//! starts has settings that make sense together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use headwater_protocol::livepeer::{self, BadProfiles, Profile};
use headwater_protocol::{FleetId, Ladder};
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of the fleet; part of every topic and certificate.
    pub fleet: FleetId,
    pub state_dir: PathBuf,
    pub http: Http,
    pub nodes: Nodes,
    pub broker: Broker,
    pub media: Media,
    pub limits: Limits,
    pub retry: Retry,
    pub ladder: DefaultLadder,
    pub log: Log,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    pub listen: SocketAddr,
    /// File with the bearer token of those who push; needed where `listen` is not loopback.
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nodes {
    pub listen: SocketAddr,
    /// Host name or address under which nodes reach this gateway.
    pub advertise_host: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Broker {
    /// Where the embedded mosquitto listens.
    pub listen: SocketAddr,
    pub mosquitto: PathBuf,
    /// Host name or address under which nodes reach the broker.
    pub advertise_host: Option<String>,
    /// An own broker instead, `mqtts://host:port`.
    pub url: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// `file:///…`; `state_dir/media` unless told.
    pub url: Option<String>,
    pub keep_minutes: Option<u64>,
    /// Memory for segments between their arrival and their fetch.
    pub cache_mib: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub max_segment_mib: u64,
    pub max_rendition_mib: u64,
    pub max_bundle_mib: u64,
    pub streams: usize,
    pub in_flight_per_stream: usize,
    /// Segments that may wait for a node, over all streams.
    pub waiting: usize,
    pub connections: usize,
    pub body_idle_seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    pub attempts: u32,
    pub accept_seconds: u64,
    pub progress_seconds: u64,
    pub runtime_factor: u64,
    pub runtime_min_seconds: u64,
    /// From a segment's last byte until its caller gets an answer whatever happens.
    pub deadline_seconds: u64,
    /// How long a segment waits for a node where none is there any more.
    pub absent_seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultLadder {
    pub presets: Vec<String>,
    pub profiles: Vec<Profile>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    /// As `tracing-subscriber` reads it: `info`, `headwater_gateway=debug`, …
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "http.listen is {0}, which others can reach; set http.token_file to a file with the token that \
         pushes must carry, or listen on 127.0.0.1"
    )]
    OpenToAll(SocketAddr),
    #[error("{path}, the push token, is empty or shorter than 16 characters; write a longer one")]
    ShortToken { path: PathBuf },
    #[error("{key} is {value}; it must be {rule}")]
    Range { key: &'static str, value: u64, rule: &'static str },
    #[error("[ladder]: {0}")]
    Ladder(#[from] BadProfiles),
    #[error("[ladder] is empty; name presets or profiles")]
    NoLadder,
    #[error("broker.url {0:?} is not mqtts://HOST[:PORT]")]
    BrokerUrl(String),
    #[error("media.url {0:?} is not usable; only file:///ABSOLUTE/PATH is built in")]
    MediaUrl(String),
    #[error("broker.{0} is set without broker.url; the embedded broker makes its own certificates")]
    BrokerFiles(&'static str),
    #[error("broker.cert_file and broker.key_file belong together; set both or none")]
    HalfIdentity,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // A constant that is an id.
            fleet: FleetId::new("home").unwrap_or_else(|_| unreachable!("home is an id")),
            state_dir: "/var/lib/headwater-gateway".into(),
            http: Http::default(),
            nodes: Nodes::default(),
            broker: Broker::default(),
            media: Media::default(),
            limits: Limits::default(),
            retry: Retry::default(),
            ladder: DefaultLadder::default(),
            log: Log::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9935)), token_file: None }
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9936)), advertise_host: None }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8883)),
            mosquitto: "mosquitto".into(),
            advertise_host: None,
            url: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_segment_mib: 300,
            max_rendition_mib: 600,
            max_bundle_mib: 2048,
            streams: 256,
            in_flight_per_stream: 16,
            waiting: 256,
            connections: 1024,
            body_idle_seconds: 30,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            accept_seconds: 3,
            progress_seconds: 10,
            runtime_factor: 10,
            runtime_min_seconds: 20,
            deadline_seconds: 120,
            absent_seconds: 10,
        }
    }
}

impl Default for DefaultLadder {
    fn default() -> Self {
        Self { presets: vec!["P240p30fps4x3".into(), "P360p30fps16x9".into()], profiles: vec![] }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

impl Media {
    pub fn keep_minutes(&self) -> u64 {
        self.keep_minutes.unwrap_or(60)
    }

    pub fn cache_bytes(&self) -> usize {
        usize::try_from(self.cache_mib.unwrap_or(128)).unwrap_or(128) << 20
    }
}

impl Limits {
    pub fn max_segment_bytes(&self) -> u64 {
        self.max_segment_mib << 20
    }

    pub fn max_rendition_bytes(&self) -> u64 {
        self.max_rendition_mib << 20
    }
}

impl Config {
    /// Reads and checks a file; every key it does not know is an error.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        Ok(config)
    }

    /// The rules that no single key can show.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.http.listen.ip().is_loopback() && self.http.token_file.is_none() {
            return Err(ConfigError::OpenToAll(self.http.listen));
        }
        self.push_token()?;
        self.default_ladder()?;
        let range = |key, value, low: u64, high: u64, rule| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::Range { key, value, rule }),
        };
        range("limits.max_segment_mib", self.limits.max_segment_mib, 1, 4096, "1 to 4096")?;
        range("limits.max_rendition_mib", self.limits.max_rendition_mib, 1, 16384, "1 to 16384")?;
        range("limits.max_bundle_mib", self.limits.max_bundle_mib, 1, 65_536, "1 to 65536")?;
        range("limits.streams", self.limits.streams as u64, 1, 100_000, "1 to 100000")?;
        range("limits.in_flight_per_stream", self.limits.in_flight_per_stream as u64, 1, 1024, "1 to 1024")?;
        range("limits.waiting", self.limits.waiting as u64, 1, 100_000, "1 to 100000")?;
        range("limits.connections", self.limits.connections as u64, 8, 100_000, "8 to 100000")?;
        range("limits.body_idle_seconds", self.limits.body_idle_seconds, 1, 600, "1 to 600")?;
        range("retry.attempts", self.retry.attempts.into(), 1, 16, "1 to 16")?;
        range("retry.accept_seconds", self.retry.accept_seconds, 1, 60, "1 to 60")?;
        range("retry.progress_seconds", self.retry.progress_seconds, 2, 600, "2 to 600")?;
        range("retry.runtime_factor", self.retry.runtime_factor, 1, 1000, "1 to 1000")?;
        range("retry.runtime_min_seconds", self.retry.runtime_min_seconds, 1, 3600, "1 to 3600")?;
        range("retry.deadline_seconds", self.retry.deadline_seconds, 1, 3600, "1 to 3600")?;
        range("retry.absent_seconds", self.retry.absent_seconds, 0, 3600, "0 to 3600")?;
        range("media.keep_minutes", self.media.keep_minutes(), 1, 525_600, "1 to 525600")?;
        range("media.cache_mib", self.media.cache_mib.unwrap_or(128), 0, 65_536, "0 to 65536")?;
        self.broker_url()?;
        let broker = &self.broker;
        if broker.url.is_none() {
            for (name, file) in [
                ("ca_file", &broker.ca_file),
                ("cert_file", &broker.cert_file),
                ("key_file", &broker.key_file),
            ] {
                if file.is_some() {
                    return Err(ConfigError::BrokerFiles(name));
                }
            }
        }
        if broker.cert_file.is_some() != broker.key_file.is_some() {
            return Err(ConfigError::HalfIdentity);
        }
        Ok(())
    }

    /// The token that a push must carry, where one is wanted.
    pub fn push_token(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.http.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let token = text.trim().to_owned();
        if token.len() < 16 {
            return Err(ConfigError::ShortToken { path: path.clone() });
        }
        Ok(Some(token))
    }

    /// Renditions of a stream whose caller names none.
    pub fn default_ladder(&self) -> Result<Vec<Profile>, ConfigError> {
        let mut profiles = Vec::new();
        for name in &self.ladder.presets {
            profiles.push(livepeer::preset(name)?);
        }
        profiles.extend(self.ladder.profiles.iter().cloned());
        if profiles.is_empty() {
            return Err(ConfigError::NoLadder);
        }
        let _: Ladder = livepeer::ladder(&profiles, headwater_protocol::Container::Ts)?;
        Ok(profiles)
    }

    /// Host and port of the operator's own broker.
    pub fn broker_url(&self) -> Result<Option<(String, u16)>, ConfigError> {
        let Some(text) = &self.broker.url else { return Ok(None) };
        let bad = || ConfigError::BrokerUrl(text.clone());
        let url = url::Url::parse(text).map_err(|_| bad())?;
        if url.scheme() != "mqtts" || !url.username().is_empty() || url.password().is_some() {
            return Err(bad());
        }
        let host = url.host_str().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        Ok(Some((host, url.port().unwrap_or(8883))))
    }

    /// Folder of the media store.
    pub fn media_dir(&self) -> Result<PathBuf, ConfigError> {
        let Some(text) = &self.media.url else { return Ok(self.state_dir.join("media")) };
        url::Url::parse(text)
            .ok()
            .filter(|url| url.scheme() == "file")
            .and_then(|url| url.to_file_path().ok())
            .ok_or_else(|| ConfigError::MediaUrl(text.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_names_every_key_and_is_the_default() {
        let text = include_str!("../dist/gateway.toml");
        let shown: Config = toml::from_str(text).unwrap();
        shown.check().unwrap();
        assert_eq!(
            format!("{shown:?}"),
            format!(
                "{:?}",
                Config {
                    media: Media { url: None, keep_minutes: Some(60), cache_mib: Some(128) },
                    ..Config::default()
                }
            )
        );
        // The keys that are commented out are real ones, too.
        for key in ["token_file", "advertise_host", "url", "ca_file", "cert_file", "key_file", "profiles"] {
            assert!(text.contains(&format!("# {key} = ")), "{key} is not explained");
        }
    }

    #[test]
    fn a_gateway_that_others_can_reach_needs_a_token() {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from(([0, 0, 0, 0], 9935));
        assert!(config.check().unwrap_err().to_string().contains("http.token_file"));
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let error = toml::from_str::<Config>("[retry]\natempts = 3\n").unwrap_err().to_string();
        assert!(error.contains("atempts"), "{error}");
    }
}
