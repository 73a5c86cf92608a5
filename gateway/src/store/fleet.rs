//! Updates, desired configurations and births: kept as they are, found by their ids.

use std::collections::BTreeMap;

use headwater_protocol::message::Birth;
use headwater_protocol::{NodeId, UpdateId};
use rusqlite::{Connection, Row, params};
use serde_json::{Map, Value};

use crate::rollout::{Campaign, Member};

/// Ended updates that are remembered, the newest ones.
pub const REMEMBERED: usize = 100;
/// Nodes whose births are, those heard of last; each is a message of at most 64 KiB.
const BIRTHS: i64 = 10_000;

/// What the operator wants of a node's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    pub revision: u64,
    pub settings: Map<String, Value>,
}

fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: String = row.get(column)?;
    let read = serde_json::from_str(&text);
    Ok(read.inspect_err(|error| tracing::error!(%error, "a row is left out: it cannot be read")).ok())
}

pub(super) fn campaigns(connection: &Connection) -> rusqlite::Result<BTreeMap<UpdateId, Campaign>> {
    let mut found = BTreeMap::new();
    let mut statement = connection.prepare("SELECT body FROM updates")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(campaign) = parsed::<Campaign>(row, 0)? {
            found.insert(campaign.id.clone(), campaign);
        }
    }
    let mut statement = connection.prepare("SELECT update_id, node, body FROM update_nodes")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, node): (String, String) = (row.get(0)?, row.get(1)?);
        // Only ids were ever written.
        let (Ok(id), Ok(node)) = (UpdateId::new(id), NodeId::new(node)) else { continue };
        if let (Some(campaign), Some(member)) = (found.get_mut(&id), parsed::<Member>(row, 2)?) {
            campaign.members.insert(node, member);
        }
    }
    Ok(found)
}

pub(super) fn configs(connection: &Connection) -> rusqlite::Result<BTreeMap<NodeId, Desired>> {
    let mut found = BTreeMap::new();
    let mut statement = connection.prepare("SELECT node, revision, settings FROM configs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (node, revision): (String, i64) = (row.get(0)?, row.get(1)?);
        if let (Ok(node), Some(settings)) = (NodeId::new(node), parsed(row, 2)?) {
            found.insert(node, Desired { revision: revision.cast_unsigned(), settings });
        }
    }
    Ok(found)
}

/// The last birth of each node, and when it was heard of last, since 1970.
pub(super) fn births(connection: &Connection) -> rusqlite::Result<BTreeMap<NodeId, (u64, Birth)>> {
    let mut found = BTreeMap::new();
    let mut statement = connection.prepare("SELECT seen, birth FROM births")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let seen: i64 = row.get(0)?;
        if let Some(birth) = parsed::<Birth>(row, 1)? {
            found.insert(birth.node.clone(), (seen.cast_unsigned(), birth));
        }
    }
    Ok(found)
}

pub(super) fn save_birth(connection: &Connection, birth: &Birth, seen: u64) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO births(node, seen, birth) VALUES(?,?,?)")?
        .execute(params![birth.node.as_str(), seen.cast_signed(), super::write::json(birth)?])?;
    connection
        .prepare_cached(
            "DELETE FROM births WHERE node NOT IN (SELECT node FROM births ORDER BY seen DESC LIMIT ?)",
        )?
        .execute(params![BIRTHS])
}

pub(super) fn save_seen(connection: &Connection, node: &NodeId, seen: u64) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("UPDATE births SET seen=? WHERE node=?")?
        .execute(params![seen.cast_signed(), node.as_str()])
}

/// The update as a whole; its nodes are rows of their own.
pub(super) fn save(connection: &Connection, campaign: &Campaign) -> rusqlite::Result<usize> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(sql)?.execute(values);
    run(
        "INSERT INTO updates(update_id, created, ended, body) VALUES(?,?,?,?)
         ON CONFLICT(update_id) DO UPDATE SET ended=excluded.ended, body=excluded.body",
        params![
            campaign.id.as_str(),
            campaign.created.0.cast_signed(),
            campaign.head.state.is_final(),
            super::write::json(campaign)?
        ],
    )?;
    run(
        "DELETE FROM updates WHERE ended=1 AND update_id NOT IN
         (SELECT update_id FROM updates ORDER BY created DESC LIMIT ?)",
        params![REMEMBERED as i64],
    )?;
    run("DELETE FROM update_nodes WHERE update_id NOT IN (SELECT update_id FROM updates)", params![])
}

pub(super) fn save_node(
    connection: &Connection,
    update: &UpdateId,
    node: &NodeId,
    member: &Member,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO update_nodes(update_id, node, body) VALUES(?,?,?)")?
        .execute(params![update.as_str(), node.as_str(), super::write::json(member)?])
}

pub(super) fn save_config(
    connection: &Connection,
    node: &NodeId,
    desired: &Desired,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO configs(node, revision, settings) VALUES(?,?,?)")?
        .execute(params![
            node.as_str(),
            desired.revision.cast_signed(),
            super::write::json(&desired.settings)?
        ])
}
