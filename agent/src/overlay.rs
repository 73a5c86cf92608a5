//! What the operator set over MQTT, laid over the node's own file, which nobody touches.
//!
//! ```text
//!  desired ─▶ check ─┬─ refused ─▶ reported
//!                    └─▶ trial on disk ─▶ restart ─┬─ connected in time ─▶ in force, reported
//!                                                  └─ not, or three starts ─▶ the earlier one, reported, restart
//! ```

use std::io;
use std::path::{Path, PathBuf};

use headwater_protocol::message::{DesiredConfig, ReportedConfig};
use headwater_protocol::{Code, Fault};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::files;

/// A trial that ended so often without a connection is over, also where each start was too short for its deadline.
const STARTS: u8 = 3;
/// Of this board, and not to be changed from afar: they would cut it off, or lead its programs elsewhere.
const OWN: [&str; 3] = ["state_dir", "worker", "system"];
/// In no section, and the operator's.
const ALONE: [&str; 1] = ["proxy"];

type Settings = Map<String, Value>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) revision: u64,
    settings: Settings,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    wanted: Wanted,
    /// Of the agent, with it.
    starts: u8,
}

/// `config.json` of the state folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overlay {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_force: Option<Wanted>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<Trial>,
    /// The newest revision that is not on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reported: Option<ReportedConfig>,
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("config.json")
}

impl Overlay {
    /// An unreadable file is as none: the node's own file is in force, and the broker has the newest revision.
    pub(crate) fn load(state_dir: &Path) -> Self {
        let bytes = std::fs::read(path(state_dir)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(crate) fn store(&self, state_dir: &Path) -> io::Result<()> {
        files::write_atomically(&path(state_dir), &serde_json::to_vec(self).map_err(io::Error::other)?, 0o600)
    }

    /// The configuration of this start. True where the overlay has changed and must be stored first.
    pub(crate) fn start(&mut self, own: &Config, file: &toml::Table) -> (Config, bool) {
        let before = self.clone();
        if let Some(trial) = &mut self.trial {
            trial.starts += 1;
            if trial.starts > STARTS {
                self.roll_back(&format!("the agent did not connect in {STARTS} starts"));
            }
        }
        let mut config = None;
        if let Some(trial) = &self.trial {
            match lay(file, &trial.wanted.settings) {
                Ok(laid) => config = Some(laid),
                // The node's own file has changed since.
                Err(fault) => self.refuse(fault),
            }
        }
        if config.is_none()
            && let Some(wanted) = &self.in_force
        {
            match lay(file, &wanted.settings) {
                Ok(laid) => config = Some(laid),
                Err(fault) => {
                    tracing::error!(
                        reason = fault.text,
                        "the settings from MQTT do not fit this node's file any more"
                    );
                    self.reported = Some(ReportedConfig { revision: wanted.revision, fault: Some(fault) });
                }
            }
        }
        (config.unwrap_or_else(|| own.clone()), *self != before)
    }

    pub(crate) fn on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// What is to be tried, or what is to be said at once. None: it is known.
    pub(crate) fn read(&mut self, file: &toml::Table, desired: DesiredConfig) -> Option<Result<Wanted, ()>> {
        let DesiredConfig { revision, settings, .. } = desired;
        let known = self.reported.as_ref().map(|reported| reported.revision);
        let tried = self.trial.as_ref().map(|trial| trial.wanted.revision);
        if known == Some(revision) || tried == Some(revision) {
            return None;
        }
        let fault = lay(file, &settings).err();
        let same = self.in_force.as_ref().map_or(settings.is_empty(), |wanted| wanted.settings == settings);
        if fault.is_none() && !same {
            return Some(Ok(Wanted { revision, settings }));
        }
        if fault.is_none() {
            self.in_force = Some(Wanted { revision, settings });
        }
        self.reported = Some(ReportedConfig { revision, fault });
        Some(Err(()))
    }

    /// The next start is with it.
    pub(crate) fn try_out(&mut self, wanted: Wanted) {
        self.trial = Some(Trial { wanted, starts: 0 });
    }

    /// It has proved itself. False where nothing is on trial.
    pub(crate) fn commit(&mut self) -> bool {
        let Some(Trial { wanted, .. }) = self.trial.take() else { return false };
        self.reported = Some(ReportedConfig { revision: wanted.revision, fault: None });
        self.in_force = Some(wanted);
        true
    }

    pub(crate) fn roll_back(&mut self, why: &str) {
        self.refuse(Fault::new(Code::ConfigRolledBack, format!("{why}; the earlier configuration is back")));
    }

    /// Nothing is on trial any more, and this is why.
    pub(crate) fn refuse(&mut self, fault: Fault) {
        if let Some(Trial { wanted, .. }) = self.trial.take() {
            tracing::error!(
                revision = wanted.revision,
                reason = fault.text,
                "the configuration is not in force"
            );
            self.reported = Some(ReportedConfig { revision: wanted.revision, fault: Some(fault) });
        }
    }
}

/// The node's file with the settings over it, checked.
fn lay(file: &toml::Table, settings: &Settings) -> Result<Config, Fault> {
    let bad = |key: &str, why: &str| Err(Fault::new(Code::BadConfig, format!("{key}: {why}")));
    if let Some(key) = OWN.iter().find(|key| settings.contains_key(**key)) {
        return bad(key, "it is this board's own and can only be changed in its agent.toml");
    }
    let mut leaves = Vec::new();
    for (section, value) in settings {
        match value {
            Value::Object(keys) => {
                leaves.extend(keys.iter().map(|(key, value)| (Some(section), key.as_str(), value)));
            }
            _ if ALONE.contains(&section.as_str()) => leaves.push((None, section, value)),
            _ => return bad(section, "there is no such key outside a section"),
        }
    }
    let mut laid = file.clone();
    for (section, key, value) in leaves {
        let name = section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}"));
        let Ok(value) = serde_json::from_value::<toml::Value>(value.clone()) else {
            return bad(&name, "the value is of no kind that a configuration has");
        };
        let empty = || toml::Value::Table(toml::Table::new());
        let table = match section {
            Some(section) => laid.entry(section).or_insert_with(empty).as_table_mut(),
            None => Some(&mut laid),
        };
        let Some(table) = table else { return bad(&name, "there is no such section") };
        table.insert(key.to_owned(), value);
        // After each key, so that the first one that is wrong is named.
        let config = laid.clone().try_into::<Config>();
        let checked = config.map_err(|error| error.message().to_owned());
        let checked = checked.and_then(|config| config.check().map_err(|error| error.to_string()));
        if let Err(why) = checked {
            return bad(&name, &why);
        }
    }
    laid.try_into().map_err(|error: toml::de::Error| Fault::new(Code::BadConfig, error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::Millis;
    use headwater_protocol::message::{Header, TimeSource};
    use serde_json::json;

    fn desired(revision: u64, settings: Value) -> DesiredConfig {
        let header = Header { v: 1, ts: Millis(0), ts_src: TimeSource::Rtc, boot_id: String::new(), seq: 0 };
        let Value::Object(settings) = settings else { panic!("no settings") };
        DesiredConfig { header, revision, settings, extra: Map::new() }
    }

    fn file() -> (Config, toml::Table) {
        let table: toml::Table = toml::from_str("[limits]\nworkers = 1\nqueue = 7\n").unwrap();
        (table.clone().try_into().unwrap(), table)
    }

    fn code(overlay: &Overlay) -> Option<Code> {
        overlay.reported.as_ref()?.fault.as_ref().map(|fault| fault.code)
    }

    /// The agent starts: what is in force, and what the disk has afterwards.
    fn start(folder: &Path) -> (Config, Overlay) {
        let (own, table) = file();
        let mut overlay = Overlay::load(folder);
        let (config, changed) = overlay.start(&own, &table);
        if changed {
            overlay.store(folder).unwrap();
        }
        (config, overlay)
    }

    #[test]
    fn settings_are_laid_over_the_nodes_file_and_stay_once_the_node_has_connected() {
        let home = tempfile::tempdir().unwrap();
        let (mut overlay, (_, table)) = (Overlay::default(), file());
        let wanted =
            overlay.read(&table, desired(4, json!({ "limits": { "workers": 3 } }))).unwrap().unwrap();
        overlay.try_out(wanted);
        overlay.store(home.path()).unwrap();
        let (config, mut overlay) = start(home.path());
        assert_eq!((config.limits.workers, config.limits.queue), (3, 7));
        assert_eq!(overlay.reported, None, "it is on trial");
        assert!(overlay.commit());
        overlay.store(home.path()).unwrap();
        let (config, mut overlay) = start(home.path());
        assert_eq!((config.limits.workers, overlay.on_trial()), (3, false));
        assert_eq!(overlay.reported, Some(ReportedConfig { revision: 4, fault: None }));
        assert!(
            overlay.read(&table, desired(4, json!({ "limits": { "workers": 9 } }))).is_none(),
            "retained"
        );
    }

    #[test]
    fn what_does_not_connect_is_rolled_back_and_not_tried_again() {
        let home = tempfile::tempdir().unwrap();
        let (mut overlay, (_, table)) = (Overlay::default(), file());
        let first = overlay.read(&table, desired(1, json!({ "limits": { "queue": 2 } }))).unwrap().unwrap();
        overlay.try_out(first);
        overlay.commit();
        let worse = desired(2, json!({ "mqtt": { "keep_alive_seconds": 6 } }));
        let wanted = overlay.read(&table, worse.clone()).unwrap().unwrap();
        overlay.try_out(wanted);
        overlay.store(home.path()).unwrap();
        // Power cuts: no start lived to its deadline.
        for _ in 0..STARTS {
            assert_eq!(start(home.path()).0.mqtt.keep_alive_seconds, 6);
        }
        let (config, mut overlay) = start(home.path());
        assert_eq!((config.mqtt.keep_alive_seconds, config.limits.queue), (20, 2), "the earlier revision");
        assert_eq!(code(&overlay), Some(Code::ConfigRolledBack));
        assert!(overlay.read(&table, worse).is_none());
    }

    #[test]
    fn a_wrong_key_or_value_is_refused_by_name_and_the_boards_own_are_never_taken() {
        let (_, table) = file();
        for (settings, word) in [
            (json!({ "limits": { "workerz": 3 } }), "limits.workerz"),
            (json!({ "limits": { "workers": 3, "queue": 900 } }), "limits.queue"),
            (json!({ "limits": { "workers": "three" } }), "limits.workers"),
            (json!({ "limits": { "workers": null } }), "limits.workers"),
            (json!({ "limit": { "workers": 3 } }), "limit"),
            (json!({ "workers": 3 }), "workers"),
            (json!({ "proxy": 3 }), "proxy"),
            (json!({ "proxy": "https://me:s3cret@proxy:3128" }), "proxy"),
            (json!({ "proxy": { "host": "x" } }), "proxy.host"),
            (json!({ "worker": "/tmp/x" }), "worker"),
            (json!({ "state_dir": "/tmp" }), "state_dir"),
            (json!({ "system": { "socket": "/tmp/x" } }), "system"),
        ] {
            let mut overlay = Overlay::default();
            assert_eq!(overlay.read(&table, desired(1, settings)), Some(Err(())));
            let fault = overlay.reported.unwrap().fault.unwrap();
            assert_eq!(fault.code, Code::BadConfig);
            assert!(fault.text.starts_with(word) && !fault.text.contains("s3cret"), "{}", fault.text);
        }
    }

    #[test]
    fn a_proxy_is_set_and_one_of_the_nodes_file_is_taken_away() {
        let table: toml::Table = toml::from_str("proxy = \"http://a:1\"").unwrap();
        let set = |proxy: &str| {
            let settings = json!({ "proxy": proxy });
            lay(&table, settings.as_object().unwrap()).unwrap().proxy.map(|proxy| proxy.to_string())
        };
        assert_eq!(set("http://me:s3cret@b:2").as_deref(), Some("b:2"));
        assert_eq!(set(""), None);
    }

    #[test]
    fn a_file_of_the_node_that_has_changed_since_comes_first() {
        let (_, table) = file();
        let mut overlay = Overlay::default();
        let wanted = overlay.read(&table, desired(1, json!({ "limits": { "queue": 2 } }))).unwrap().unwrap();
        overlay.try_out(wanted);
        overlay.commit();
        // By hand, and of an older version: its sections are of another kind.
        let table: toml::Table = toml::from_str("limits = 1").unwrap();
        let (config, changed) = overlay.start(&Config::default(), &table);
        assert_eq!((config, changed, code(&overlay)), (Config::default(), true, Some(Code::BadConfig)));
    }
}
