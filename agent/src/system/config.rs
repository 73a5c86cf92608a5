//! `system.toml`: what root's helper trusts and where it finds things. The agent cannot write it.

use std::path::{Path, PathBuf};

use headwater_protocol::update::MAX_HEALTH;
use serde::Deserialize;

use crate::config::{self, ConfigError};

pub(crate) const DEFAULT_PATH: &str = "/etc/headwater/system.toml";

/// `dist/system.toml` explains every key; a test loads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) user: String,
    pub(crate) state_dir: PathBuf,
    pub(crate) bundles: PathBuf,
    pub(crate) update_keyring: PathBuf,
    pub(crate) allow_downgrade: bool,
    pub(crate) rauc_config: PathBuf,
    pub(crate) idle_seconds: u64,
    pub(crate) install_seconds: u64,
    pub(crate) max_health_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user: "headwater-agent".to_owned(),
            state_dir: "/var/lib/headwater-system".into(),
            bundles: "/var/lib/headwater-agent/update".into(),
            update_keyring: "/etc/headwater/update-keyring.pem".into(),
            allow_downgrade: true,
            rauc_config: "/etc/rauc/system.conf".into(),
            idle_seconds: 10,
            install_seconds: 3600,
            max_health_seconds: MAX_HEALTH.0 / 1000,
        }
    }
}

impl Config {
    /// Reads `path`. Without one, reads the default place, where a missing file means defaults.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, text) = config::read(path, DEFAULT_PATH)?;
        config::parse(&path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_names_every_key_with_its_default() {
        let text = include_str!("../../dist/system.toml");
        let keys =
            |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
        let keys: Vec<String> = text.lines().filter_map(keys).filter(|line| !line.is_empty()).collect();
        assert_eq!(toml::from_str::<Config>(&keys.join("\n")).unwrap(), Config::default());
        assert_eq!(keys.len(), 9, "a key is missing from dist/system.toml, or this count is old");
    }
}
