//! `agent.toml`: what the operator may set. `dist/agent.toml` explains every key; a test loads it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_protocol::message::{Board, Limits as WireLimits};
use headwater_protocol::proxy::Proxy;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::proxy;

pub(crate) const DEFAULT_PATH: &str = "/etc/headwater/agent.toml";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// Without the line itself: it may hold a password.
    #[error("{path} is not a valid configuration: line {line}: {text}")]
    Parse { path: PathBuf, line: usize, text: String },
    #[error("{key} is {value}; it must be {must}")]
    Range { key: &'static str, value: u64, must: &'static str },
}

/// The file as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) state_dir: PathBuf,
    /// None: beside this program, then in `PATH`.
    pub(crate) worker: Option<PathBuf>,
    /// For everything that leaves the board.
    #[serde(deserialize_with = "proxy::read")]
    pub(crate) proxy: Option<Proxy>,
    pub(crate) limits: Limits,
    pub(crate) telemetry: Telemetry,
    pub(crate) mqtt: Mqtt,
    pub(crate) deadlines: Deadlines,
    pub(crate) log: Log,
    pub(crate) system: System,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) workers: u32,
    /// None: by the board.
    pub(crate) segments_in_flight: Option<u32>,
    pub(crate) queue: u32,
    pub(crate) max_input_mib: u64,
    pub(crate) worker_memory_mib: u64,
    pub(crate) worker_segments: u64,
    pub(crate) worker_age_minutes: u64,
    pub(crate) worker_idle_seconds: u64,
    /// None: by the board.
    pub(crate) spare_worker: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    pub(crate) interval_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mqtt {
    pub(crate) keep_alive_seconds: u64,
    pub(crate) session_expiry_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Deadlines {
    pub(crate) worker_start_seconds: u64,
    pub(crate) worker_silence_seconds: u64,
    pub(crate) probe_seconds: u64,
    pub(crate) transfer_silence_seconds: u64,
    pub(crate) drain_seconds: u64,
    pub(crate) config_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
    pub(crate) kept_kib: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct System {
    /// Of root's helper.
    pub(crate) socket: PathBuf,
    pub(crate) reserve_mib: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/headwater-agent"),
            worker: None,
            proxy: None,
            limits: Limits::default(),
            telemetry: Telemetry::default(),
            mqtt: Mqtt::default(),
            deadlines: Deadlines::default(),
            log: Log::default(),
            system: System::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: 2,
            segments_in_flight: None,
            queue: 4,
            max_input_mib: 300,
            worker_memory_mib: 1024,
            worker_segments: 1000,
            worker_age_minutes: 360,
            worker_idle_seconds: 30,
            spare_worker: None,
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { interval_seconds: 30 }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self { keep_alive_seconds: 20, session_expiry_seconds: 3600 }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            worker_start_seconds: 15,
            worker_silence_seconds: 10,
            probe_seconds: 300,
            transfer_silence_seconds: 15,
            drain_seconds: 60,
            config_seconds: 120,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info, kept_kib: 64 }
    }
}

impl Default for System {
    fn default() -> Self {
        Self { socket: crate::system::wire::SOCKET.into(), reserve_mib: 64 }
    }
}

/// The file at `path`, and its path. Without one, of the `usual` place, where a missing file is an empty one.
pub(crate) fn read(path: Option<&Path>, usual: &str) -> Result<(PathBuf, String), ConfigError> {
    let (path, may_miss) = match path {
        Some(path) => (path, false),
        None => (Path::new(usual), true),
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if may_miss && error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    Ok((path.to_owned(), text))
}

/// `path` is for the error.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::Parse { path: path.to_owned(), line, text: error.message().to_owned() }
    })
}

impl Config {
    /// Reads `path`, as settings and as it is written. Without one, reads the default place, where a missing file means
    /// defaults.
    pub(crate) fn load(path: Option<&Path>) -> Result<(Self, toml::Table), ConfigError> {
        let (path, text) = read(path, DEFAULT_PATH)?;
        let config: Self = parse(&path, &text)?;
        config.check()?;
        Ok((config, parse(&path, &text)?))
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let Self { state_dir: _, worker: _, proxy: _, limits, telemetry, mqtt, deadlines, log, system } =
            self;
        let range = |key, value: u64, low, high, must| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(ConfigError::Range { key, value, must }) }
        };
        range("limits.workers", limits.workers.into(), 1, 64, "1 to 64")?;
        let in_flight = limits.segments_in_flight.unwrap_or(1);
        range("limits.segments_in_flight", in_flight.into(), 1, 16, "1 to 16")?;
        range("limits.queue", limits.queue.into(), 0, 64, "0 to 64")?;
        range("limits.max_input_mib", limits.max_input_mib, 1, 4096, "1 to 4096")?;
        range("limits.worker_memory_mib", limits.worker_memory_mib, 64, 1 << 20, "64 to 1048576")?;
        range("limits.worker_segments", limits.worker_segments, 1, 1_000_000, "1 to 1000000")?;
        range("limits.worker_age_minutes", limits.worker_age_minutes, 1, 100_000, "1 to 100000")?;
        range("limits.worker_idle_seconds", limits.worker_idle_seconds, 1, 86_400, "1 to 86400")?;
        range("telemetry.interval_seconds", telemetry.interval_seconds, 1, 3600, "1 to 3600")?;
        // The client library stops the program on a keep-alive below 5 s.
        range("mqtt.keep_alive_seconds", mqtt.keep_alive_seconds, 5, 1200, "5 to 1200")?;
        range("deadlines.worker_start_seconds", deadlines.worker_start_seconds, 1, 300, "1 to 300")?;
        range("deadlines.worker_silence_seconds", deadlines.worker_silence_seconds, 2, 300, "2 to 300")?;
        range("deadlines.probe_seconds", deadlines.probe_seconds, 5, 600, "5 to 600")?;
        range("deadlines.transfer_silence_seconds", deadlines.transfer_silence_seconds, 1, 300, "1 to 300")?;
        range("deadlines.drain_seconds", deadlines.drain_seconds, 0, 3600, "0 to 3600")?;
        range("deadlines.config_seconds", deadlines.config_seconds, 5, 3600, "5 to 3600")?;
        range("log.kept_kib", log.kept_kib, 0, 256, "0 to 256")?;
        range("system.reserve_mib", system.reserve_mib, 0, 1 << 20, "0 to 1048576")
    }
}

impl Limits {
    /// Two where a second core fills the gaps of the first segment's beginning and end: fetching, draining, putting.
    /// More only adds memory, since one segment's encoders use all cores in its middle.
    pub(crate) fn in_flight(&self, board: &Board) -> u32 {
        let usual = if board.cpus >= 2 && is_roomy(board) { 2 } else { 1 };
        self.segments_in_flight.unwrap_or(usual)
    }

    pub(crate) fn spare_worker(&self, board: &Board) -> bool {
        self.spare_worker.unwrap_or_else(|| is_roomy(board))
    }

    pub(crate) fn wire(&self, board: &Board) -> WireLimits {
        WireLimits {
            workers: self.workers,
            in_flight: self.in_flight(board),
            queue: self.queue,
            max_input_bytes: self.max_input_mib * 1024 * 1024,
        }
    }

    pub(crate) fn worker_idle(&self) -> Duration {
        Duration::from_secs(self.worker_idle_seconds)
    }
}

/// A board sold with 2 GiB: the kernel and a video core keep up to a quarter of it.
fn is_roomy(board: &Board) -> bool {
    board.memory_bytes >= 3 << 29
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_board_does_one_segment_at_once_and_keeps_no_spare_worker_unless_told() {
        let mut board = crate::board::board("");
        let mut limits = Limits::default();
        (board.cpus, board.memory_bytes) = (4, 2_000_000_000);
        assert_eq!((limits.in_flight(&board), limits.spare_worker(&board)), (2, true));
        board.memory_bytes = 1_000_000_000;
        assert_eq!((limits.in_flight(&board), limits.spare_worker(&board)), (1, false));
        (limits.segments_in_flight, limits.spare_worker) = (Some(3), Some(true));
        assert_eq!((limits.in_flight(&board), limits.spare_worker(&board)), (3, true));
    }

    #[test]
    fn the_example_file_names_every_key_with_its_default() {
        let text = include_str!("../dist/agent.toml");
        // Keys are shown commented out with one '#' and no space; prose has "# ".
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
                Some(_) | None => format!("{line}\n"),
            })
            .collect();
        let mut config: Config = toml::from_str(&uncommented).unwrap();
        assert!(config.worker.take().is_some(), "the example shows `worker`");
        // By the board where they are left out.
        assert_eq!(config.limits.segments_in_flight.take(), Some(2));
        assert_eq!(config.limits.spare_worker.take(), Some(true));
        assert_eq!(config, Config::default());
        config.check().unwrap();
        let keys = uncommented.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        assert_eq!(keys, 26, "a key is missing from dist/agent.toml, or this count is old");
    }

    #[test]
    fn a_misspelt_key_and_a_wild_value_are_refused_by_name() {
        let parse = |text: &str| parse::<Config>(Path::new("a.toml"), text).unwrap_err().to_string();
        let error = parse("[limits]\nqueue = 2\nworker = 1");
        assert!(error.contains("line 3: unknown field `worker`"), "{error}");
        for wrong in
            ["proxy = \"http://me:s3cret@host:port\"", "proxy = \"http://me:s3cret@host:1\nx", "proxy = 3"]
        {
            let error = parse(wrong);
            assert!(error.contains("a.toml is not") && !error.contains("s3cret"), "{error}");
        }
        let mut config = Config::default();
        config.mqtt.keep_alive_seconds = 1;
        assert!(config.check().unwrap_err().to_string().contains("mqtt.keep_alive_seconds is 1"));
    }
}
