//! `headwater config`: what is wanted of the nodes' configurations, and what they say of it.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use headwater_gateway::operate::views::ConfigView;
use headwater_gateway::owner::Change;
use headwater_protocol::NodeId;
use serde_json::{Map, Value, json};

use crate::args::{Config, Wait};
use crate::client::{ClientError, Gateway};
use crate::fleet::{FleetError, Style, print};
use crate::human;
use crate::operate::{AT_ONCE, OperateError, complain, select};

/// Between two looks at what a node says.
const LOOK: Duration = Duration::from_millis(500);

/// `workers.count=2`; the value as TOML, or as text where it is none.
pub(crate) fn parse_setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    let parsed = toml::from_str::<Map<String, Value>>(&format!("value = {value}"));
    // A second line would be a second key.
    let value = parsed.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    let value = value.unwrap_or_else(|| Value::String(text[key.len() + 1..].to_owned()));
    Ok((key.trim().to_owned(), value))
}

/// True where every node reports that it holds.
pub(crate) async fn run(gateway: &Gateway, style: Style, args: &Config) -> Result<bool, OperateError> {
    let (selector, change, wait) = match args {
        Config::Get { selector } => (selector, None, Duration::ZERO),
        Config::Set { selector, settings, wait: Wait { wait } } => {
            let set = settings.iter().cloned().collect();
            (selector, Some(Change { set, unset: Vec::new() }), *wait)
        }
        Config::Unset { selector, keys, wait: Wait { wait } } => {
            (selector, Some(Change { set: Map::new(), unset: keys.clone() }), *wait)
        }
    };
    let nodes = select(gateway, selector).await?;
    let one = nodes.len() == 1;
    let change = change.as_ref();
    let ask = async |node: NodeId| {
        let view = match change {
            None => gateway.config(&node).await,
            Some(change) => changed(gateway, &node, change, wait).await,
        };
        (node, view)
    };
    let mut answers = stream::iter(nodes).map(ask).buffered(AT_ONCE);
    let mut all = true;
    while let Some((node, view)) = answers.next().await {
        let view = match view {
            Ok(view) => view,
            // One node's reason is the reason of all.
            Err(error) if one => return Err(error.into()),
            Err(error) => {
                all = false;
                complain(style, &node, json!({ "node": node }), &error)?;
                continue;
            }
        };
        all &= change.is_none() || holds(&view);
        if style.json {
            print(&json!({ "node": node, "config": view }).to_string())?;
        } else {
            print(&text(&node, &view).map_err(FleetError::Json)?)?;
        }
    }
    Ok(all)
}

/// Makes the change and waits for the node's word on it.
async fn changed(
    gateway: &Gateway,
    node: &NodeId,
    change: &Change,
    wait: Duration,
) -> Result<ConfigView, ClientError> {
    let until = Instant::now() + wait;
    let mut view = gateway.configure(node, change).await?;
    while !answered(&view) && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        // The change is made; a look that fails is made again.
        match gateway.config(node).await {
            Ok(newer) => view = newer,
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => {}
        }
    }
    Ok(view)
}

/// Whether the newest revision was read.
fn answered(view: &ConfigView) -> bool {
    let wanted = view.desired.as_ref().map_or(0, |desired| desired.revision);
    view.reported.as_ref().map_or(0, |reported| reported.revision) >= wanted
}

fn holds(view: &ConfigView) -> bool {
    answered(view) && view.reported.as_ref().is_none_or(|reported| reported.fault.is_none())
}

fn text(node: &NodeId, view: &ConfigView) -> Result<String, serde_json::Error> {
    let Some(desired) = &view.desired else {
        return Ok(format!("{node}: nothing is wanted; its own file counts"));
    };
    let says = match &view.reported {
        _ if !answered(view) => "it has not answered yet; it will get it when it connects".to_owned(),
        Some(reported) => match &reported.fault {
            None => "it holds".to_owned(),
            Some(fault) => format!("refused, the earlier one holds: {}", human::tame(&fault.to_string())),
        },
        None => "it holds".to_owned(),
    };
    let mut lines = vec![format!("{node}: revision {}, {says}", desired.revision)];
    let mut flat = Vec::new();
    flatten(&desired.settings, "", &mut flat)?;
    lines.extend(flat);
    Ok(lines.join("\n"))
}

/// `  workers.count = 2`
fn flatten(
    table: &Map<String, Value>,
    above: &str,
    lines: &mut Vec<String>,
) -> Result<(), serde_json::Error> {
    for (key, value) in table {
        match value {
            Value::Object(inner) => flatten(inner, &format!("{above}{key}."), lines)?,
            other => lines.push(format!("  {above}{key} = {}", serde_json::to_string(other)?)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_toml_or_else_text() {
        let value = |text: &str| parse_setting(text).unwrap();
        assert_eq!(value("workers.count=2"), ("workers.count".into(), json!(2)));
        assert_eq!(value("a=true"), ("a".into(), json!(true)));
        assert_eq!(value("log.level=debug"), ("log.level".into(), json!("debug")));
        assert_eq!(value("a=\"2\""), ("a".into(), json!("2")));
        assert_eq!(value("a=[1, 2]"), ("a".into(), json!([1, 2])));
        assert_eq!(value("a=x=y"), ("a".into(), json!("x=y")));
        assert_eq!(value("a=1\nb = 2"), ("a".into(), json!("1\nb = 2")), "one key at a time");
        assert!(parse_setting("a").is_err());
    }

    #[test]
    fn what_a_node_says_is_told_apart_from_silence() {
        let node = NodeId::new("orin-1").unwrap();
        let says = |view: Value| text(&node, &serde_json::from_value(view).unwrap()).unwrap();
        let desired = json!({"revision": 3, "settings": {"log": {"level": "debug"}}});
        assert_eq!(says(json!({})), "orin-1: nothing is wanted; its own file counts");
        let waits = says(json!({"desired": desired, "reported": {"revision": 2}}));
        assert!(
            waits.contains("has not answered") && waits.ends_with("\n  log.level = \"debug\""),
            "{waits}"
        );
        assert!(says(json!({"desired": desired, "reported": {"revision": 3}})).contains("it holds"));
        let fault = json!({"code": "bad_config", "text": "log.level is none"});
        let refused = says(json!({"desired": desired, "reported": {"revision": 3, "fault": fault}}));
        assert!(
            refused.contains("refused, the earlier one holds: bad_config: log.level is none"),
            "{refused}"
        );
    }
}
