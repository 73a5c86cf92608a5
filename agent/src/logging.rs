//! Logs on standard error, for people or as JSON lines; their end stays in memory.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, LogLevel};
use crate::log_ring::{self, Tee};

/// `RUST_LOG` wins over the configuration.
pub(crate) fn start(log: &Log) {
    let level = match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // The client library reports each refused packet on its own; this program says the same in better words.
    let fallback = || EnvFilter::new(format!("{level},rumqttc=off"));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| fallback());
    log_ring::keep(log.kept_kib);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Tee);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    match log.format {
        LogFormat::Text => builder.with_ansi(ansi).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).init(),
    }
}
