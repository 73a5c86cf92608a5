//! What these paths take and give, as JSON.

use std::collections::BTreeMap;

use headwater_protocol::NodeId;
use headwater_protocol::message::ReportedConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::owner::{Configured, Steer};
use crate::rollout::{Campaign, Member, Plan};

/// `POST /api/v1/updates`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateRequest {
    pub selector: String,
    /// SHA-256 of a bundle that was uploaded.
    pub bundle: String,
    #[serde(flatten)]
    pub plan: Plan,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/updates/{id}`
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SteerRequest {
    pub action: Steer,
}

/// An update; in lists without its nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateView {
    #[serde(flatten)]
    pub update: Campaign,
    /// Nodes by where they are with it.
    pub counts: BTreeMap<String, usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<UpdateNodeView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateNodeView {
    pub node: NodeId,
    #[serde(flatten)]
    pub member: Member,
}

impl UpdateView {
    /// All of it.
    pub fn whole(update: &Campaign) -> Self {
        let nodes = update.members.iter();
        let nodes = nodes.map(|(node, member)| UpdateNodeView { node: node.clone(), member: member.clone() });
        Self { nodes: nodes.collect(), ..Self::short(update) }
    }

    pub fn short(update: &Campaign) -> Self {
        let counts = counts(update.members.values());
        Self { update: update.without_members(), counts, nodes: Vec::new() }
    }
}

fn counts<'a>(members: impl Iterator<Item = &'a Member>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for member in members {
        *counts.entry(member.progress.as_str().to_owned()).or_insert(0) += 1;
    }
    counts
}

/// `POST /api/v1/nodes/{node}/logs`; the answer is text.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LogsRequest {
    /// Of the log's end.
    pub max_bytes: u64,
}

/// `GET` and `POST /api/v1/nodes/{node}/config`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfigView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredView>,
    /// Its answer to the newest revision it read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<ReportedConfig>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DesiredView {
    pub revision: u64,
    pub settings: Map<String, Value>,
}

impl From<Configured> for ConfigView {
    fn from(Configured { desired, reported }: Configured) -> Self {
        let desired = desired.map(|mut desired| {
            desired.settings.values_mut().for_each(hide);
            DesiredView { revision: desired.revision, settings: desired.settings }
        });
        Self { desired, reported }
    }
}

/// Who may look need not know the user and password in an address, a proxy's.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some((_, host)) = rest.rsplit_once('@')
            {
                *text = format!("{scheme}://***@{host}");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::Object(values) => values.values_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Desired;
    use serde_json::json;

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        let settings = json!({"proxy": "http://me:p@s3cret@proxy:3128", "log": {"level": "debug", "to": ["ftp://s3cret@x"]}});
        let desired = Some(Desired { revision: 1, settings: settings.as_object().cloned().unwrap() });
        let view = ConfigView::from(Configured { desired, reported: None });
        assert_eq!(
            Value::Object(view.desired.unwrap().settings),
            json!({"proxy": "http://***@proxy:3128", "log": {"level": "debug", "to": ["ftp://***@x"]}})
        );
    }
}
