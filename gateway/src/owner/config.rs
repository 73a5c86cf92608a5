//! What the operator wants of the nodes' configurations: stored, then published retained; nodes answer in their birth.

use std::time::Duration;

use headwater_protocol::NodeId;
use headwater_protocol::message::{Birth, DesiredConfig, Extra, MAX_MESSAGE, ReportedConfig};
use headwater_protocol::topic::Channel;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::{Event, Handle, Running, Stopped};
use crate::schedule::Now;
use crate::store::{Desired, Write};

/// How long a configuration may wait for the broker's connection; the node's next birth makes up for it.
const LIFE: Duration = Duration::from_secs(30);

/// A change of what is wanted. Keys are `section.key`.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Change {
    #[serde(default)]
    pub set: Map<String, Value>,
    #[serde(default)]
    pub unset: Vec<String>,
}

/// What is wanted of a node, and what it says of it.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    pub desired: Option<Desired>,
    pub reported: Option<ReportedConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureError {
    #[error("no node is called {0}")]
    Unknown(NodeId),
    #[error("{0:?} is no key of a configuration; write section.key, or key")]
    Key(String),
    #[error("{0:?} is a section; name a key of it")]
    Section(String),
    #[error("the configuration would be larger than a message can be")]
    TooLarge,
    #[error("the configuration could not be stored: {0}")]
    Store(String),
}

pub(super) type Answer = oneshot::Sender<Result<Configured, ConfigureError>>;

impl Handle {
    /// Makes a change, an empty one too, and gives what holds then.
    pub async fn configure(
        &self,
        node: NodeId,
        change: Change,
    ) -> Result<Result<Configured, ConfigureError>, Stopped> {
        let (answer, configured) = oneshot::channel();
        self.events.send(Event::Configure { node, change, answer }).await.map_err(|_| Stopped)?;
        configured.await.map_err(|_| Stopped)
    }
}

impl Running {
    pub(super) async fn configure(&mut self, node: NodeId, change: Change, answer: Answer, now: Now) {
        let Some(known) = self.owner.core.fleet().get(&node) else {
            return drop(answer.send(Err(ConfigureError::Unknown(node))));
        };
        let reported = known.birth.as_ref().and_then(|birth| birth.config.clone());
        let before = self.configs.get(&node).cloned();
        let settings = before.as_ref().map(|desired| desired.settings.clone()).unwrap_or_default();
        let settings = match changed(settings, change) {
            Ok(settings) => settings,
            Err(error) => return drop(answer.send(Err(error))),
        };
        // Where nothing was ever wanted, wanting nothing is no change.
        if before.as_ref().map_or(settings.is_empty(), |desired| desired.settings == settings) {
            return drop(answer.send(Ok(Configured { desired: before, reported })));
        }
        // A lost database must not make a node ignore what is new.
        let seen = reported.as_ref().map_or(0, |reported: &ReportedConfig| reported.revision);
        let revision = before.map_or(0, |desired| desired.revision).max(seen) + 1;
        let desired = Desired { revision, settings };
        let write = Write::Config { node: node.clone(), desired: desired.clone() };
        if let Err(error) = self.owner.store.write_now(vec![write]).await {
            return drop(answer.send(Err(ConfigureError::Store(error.to_string()))));
        }
        tracing::info!(%node, revision, "configuration wanted");
        let message = self.desired(&desired, now);
        self.send(&node, Channel::Config, &message, LIFE, None);
        self.configs.insert(node, desired.clone());
        // Who asked may be gone.
        drop(answer.send(Ok(Configured { desired: Some(desired), reported })));
    }

    /// A node that shows another revision than the wanted one has not got it: the broker forgot it, or lost it.
    pub(super) fn remind(&mut self, node: &NodeId, birth: &Birth, now: Now) {
        let reported = birth.config.as_ref().map_or(0, |config| config.revision);
        let Some(desired) = self.configs.get(node).filter(|desired| desired.revision != reported).cloned()
        else {
            return;
        };
        let message = self.desired(&desired, now);
        self.send(node, Channel::Config, &message, LIFE, None);
    }

    fn desired(&mut self, desired: &Desired, now: Now) -> DesiredConfig {
        let Desired { revision, settings } = desired.clone();
        DesiredConfig { header: self.owner.core.header(now), revision, settings, extra: Extra::new() }
    }
}

/// The settings after a change.
fn changed(mut settings: Map<String, Value>, change: Change) -> Result<Map<String, Value>, ConfigureError> {
    for (path, value) in change.set {
        let (sections, key) = split(&path)?;
        let mut table = &mut settings;
        for section in sections {
            let inner = table.entry(section).or_insert_with(|| Value::Object(Map::new()));
            table = inner.as_object_mut().ok_or_else(|| ConfigureError::Key(path.clone()))?;
        }
        if table.get(key).is_some_and(Value::is_object) && !value.is_object() {
            return Err(ConfigureError::Section(path));
        }
        table.insert(key.to_owned(), value);
    }
    for path in change.unset {
        let (sections, key) = split(&path)?;
        remove(&mut settings, &sections, key);
    }
    let size = serde_json::to_vec(&settings).map_or(usize::MAX, |bytes| bytes.len());
    // The header and MQTT's own part need little of the rest.
    if size > MAX_MESSAGE - 1024 {
        return Err(ConfigureError::TooLarge);
    }
    Ok(settings)
}

fn split(path: &str) -> Result<(Vec<&str>, &str), ConfigureError> {
    let mut parts: Vec<&str> = path.split('.').collect();
    let fits = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    match parts.pop() {
        Some(key) if fits(&key) && parts.iter().all(fits) && parts.len() < 4 => Ok((parts, key)),
        Some(_) | None => Err(ConfigureError::Key(path.to_owned())),
    }
}

/// Removes a key, and sections that are empty without it.
fn remove(table: &mut Map<String, Value>, sections: &[&str], key: &str) {
    let Some((first, rest)) = sections.split_first() else {
        table.remove(key);
        return;
    };
    if let Some(inner) = table.get_mut(*first).and_then(Value::as_object_mut) {
        remove(inner, rest, key);
        if inner.is_empty() {
            table.remove(*first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(before: Value, set: Value, unset: &[&str]) -> Result<Value, ConfigureError> {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let unset = unset.iter().map(|key| (*key).to_owned()).collect();
        changed(object(before), Change { set: object(set), unset }).map(Value::Object)
    }

    #[test]
    fn what_is_set_is_laid_over_and_what_is_unset_leaves_no_empty_section() {
        let both = after(json!({"a": {"x": 1}}), json!({"a.y": "z", "level": "debug"}), &[]).unwrap();
        assert_eq!(both, json!({"a": {"x": 1, "y": "z"}, "level": "debug"}));
        assert_eq!(
            after(both, json!({}), &["a.x", "a.y", "a.never", "b.c"]).unwrap(),
            json!({"level": "debug"})
        );
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        for bad in ["", ".", "a.", ".a", "a b", "a.b.c.d.e", "a=b"] {
            assert!(matches!(after(json!({}), json!({bad: 1}), &[]), Err(ConfigureError::Key(_))), "{bad:?}");
        }
        let section = after(json!({"a": {"x": 1}}), json!({"a": 1}), &[]);
        assert!(matches!(section, Err(ConfigureError::Section(_))));
        let large = after(json!({}), json!({"a": "x".repeat(70_000)}), &[]);
        assert_eq!(large, Err(ConfigureError::TooLarge));
    }
}
