//! Which node may fetch and put what: the nodes listener's view of running attempts.
//!
//! The scheduler alone opens and ends grants; the listener reads them and notes what was put.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_protocol::{Container, Epoch, NodeId, RenditionName, StreamId, TaskId};

#[derive(Debug, Clone)]
pub struct Grant {
    pub node: NodeId,
    pub stream: StreamId,
    pub segment: u64,
    pub container: Container,
    pub bytes: u64,
    pub outputs: Vec<(RenditionName, Container)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("no such attempt")]
    Unknown,
    #[error("this attempt is another node's")]
    OtherNode,
    #[error("this attempt has ended")]
    Ended,
}

#[derive(Debug)]
struct Entry {
    grant: Grant,
    /// Bytes of each rendition that is whole.
    put: HashMap<RenditionName, u64>,
    ended: bool,
}

/// Ended grants that are still told apart from unknown ones.
const REMEMBERED: usize = 1024;

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<(TaskId, Epoch), Entry>,
    ended: std::collections::VecDeque<(TaskId, Epoch)>,
}

#[derive(Debug, Clone, Default)]
pub struct Grants(Arc<Mutex<Table>>);

impl Grants {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // Every change below is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open(&self, task: TaskId, epoch: Epoch, grant: Grant) {
        self.table().entries.insert((task, epoch), Entry { grant, put: HashMap::new(), ended: false });
    }

    pub fn end(&self, task: &TaskId, epoch: Epoch) {
        let mut table = self.table();
        let key = (task.clone(), epoch);
        let Some(entry) = table.entries.get_mut(&key) else { return };
        if entry.ended {
            return;
        }
        entry.ended = true;
        table.ended.push_back(key);
        while table.ended.len() > REMEMBERED {
            if let Some(old) = table.ended.pop_front() {
                table.entries.remove(&old);
            }
        }
    }

    pub fn check(&self, task: &TaskId, epoch: Epoch, node: &NodeId) -> Result<Grant, Denied> {
        match self.given(task, epoch, node)? {
            (grant, false) => Ok(grant),
            (_, true) => Err(Denied::Ended),
        }
    }

    /// What was given to this node, and whether it has ended.
    pub fn given(&self, task: &TaskId, epoch: Epoch, node: &NodeId) -> Result<(Grant, bool), Denied> {
        let table = self.table();
        let entry = table.entries.get(&(task.clone(), epoch)).ok_or(Denied::Unknown)?;
        if entry.grant.node != *node {
            return Err(Denied::OtherNode);
        }
        Ok((entry.grant.clone(), entry.ended))
    }

    /// A rendition is whole in the store.
    pub fn note_put(
        &self,
        task: &TaskId,
        epoch: Epoch,
        name: RenditionName,
        bytes: u64,
    ) -> Result<(), Denied> {
        let mut table = self.table();
        let entry = table.entries.get_mut(&(task.clone(), epoch)).ok_or(Denied::Unknown)?;
        if entry.ended {
            return Err(Denied::Ended);
        }
        entry.put.insert(name, bytes);
        Ok(())
    }

    pub fn puts(&self, task: &TaskId, epoch: Epoch) -> HashMap<RenditionName, u64> {
        self.table().entries.get(&(task.clone(), epoch)).map(|entry| entry.put.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_open_to_its_node_alone_and_until_its_end() {
        let grants = Grants::default();
        let (task, node) = (TaskId::new("t").unwrap(), NodeId::new("a").unwrap());
        let grant = Grant {
            node: node.clone(),
            stream: StreamId::new("s").unwrap(),
            segment: 0,
            container: Container::Ts,
            bytes: 1,
            outputs: vec![],
        };
        grants.open(task.clone(), Epoch(1), grant);
        assert!(grants.check(&task, Epoch(1), &node).is_ok());
        let other = NodeId::new("b").unwrap();
        assert_eq!(grants.check(&task, Epoch(1), &other).unwrap_err(), Denied::OtherNode);
        assert_eq!(grants.check(&task, Epoch(2), &node).unwrap_err(), Denied::Unknown);
        grants.end(&task, Epoch(1));
        assert_eq!(grants.check(&task, Epoch(1), &node).unwrap_err(), Denied::Ended);
    }
}
