//! What a failed attempt leaves behind for people: its pipeline's graph and the last lines of every log.
//!
//! A worker sends it before `Failed`; the agent adds the fault and what the worker printed, and puts it to the
//! gateway, which keeps it for a while. Too large for an event over MQTT, and never needed for a decision.

use serde::{Deserialize, Serialize};

use crate::error::{Fault, last_bytes};

/// A chain of elements as Graphviz draws it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// What the chain does: `decode`, `encode`, …
    pub chain: String,
    /// In the language of Graphviz; cut where it is too long.
    pub dot: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// None from a worker, whose fault follows in a frame of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<Graph>,
    /// Last lines of the media framework's log, of this segment only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// The end of what the worker and its libraries printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

impl Evidence {
    /// Bytes of all graphs together; a ladder of four rungs has about 30 KiB.
    pub const MAX_GRAPHS: usize = 64 * 1024;
    /// Bytes of a log's end.
    pub const MAX_LOG: usize = 16 * 1024;
    /// Bytes as JSON, in which quotes and line ends take two: also the largest frame of a worker.
    pub const MAX_JSON: usize = 256 * 1024;

    /// Keeps what fits: the first graphs whole, the one that does not fit cut, and the ends of the logs.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let mut left = Self::MAX_GRAPHS;
        for graph in &mut self.graphs {
            if graph.dot.len() > left {
                graph.dot.truncate((0..=left).rev().find(|at| graph.dot.is_char_boundary(*at)).unwrap_or(0));
            }
            left -= graph.dot.len();
        }
        self.graphs.retain(|graph| !graph.dot.is_empty());
        self.log = last_bytes(&self.log, Self::MAX_LOG).to_owned();
        self.output = last_bytes(&self.output, Self::MAX_LOG).to_owned();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_and_keeps_the_first_graphs_and_the_last_lines() {
        let graph = |length: usize| Graph { chain: "decode".into(), dot: "ä".repeat(length / 2) };
        let evidence = Evidence {
            fault: None,
            graphs: vec![graph(60_000), graph(60_000), graph(60_000)],
            log: format!("{}last", "x".repeat(100_000)),
            output: "\"\n".repeat(50_000),
        }
        .bounded();
        let lengths: Vec<usize> = evidence.graphs.iter().map(|graph| graph.dot.len()).collect();
        assert_eq!(lengths, [60_000, 5_536], "whole, cut, gone");
        assert!(evidence.log.ends_with("last"));
        assert!(serde_json::to_vec(&evidence).unwrap().len() <= Evidence::MAX_JSON);
    }
}
