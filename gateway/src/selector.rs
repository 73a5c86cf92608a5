//! Which nodes an operator means.
//!
//! ```text
//! SELECTOR = group, group, …      any of them
//! group    = term + term + …      all of them
//! term     = all | orin-* | KEY=VALUE | KEY!=VALUE | version<0.2.0 | version<=… | version>… | version>=…
//! KEY      = node board arch version state
//! ```
//!
//! A bare word is a node's name; names and values may hold `*` and `?`. `version` is that of the node's image or
//! package, or of its agent where it has neither; versions are ordered as Debian orders them. Of a node that never said what it is
//! only its name and state can be asked.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use headwater_protocol::NodeId;
use headwater_protocol::message::{Birth, NodeState};
use headwater_protocol::version;
use wildmatch::WildMatch;

#[derive(Debug, Clone)]
pub struct Selector {
    text: String,
    any: Vec<Vec<Term>>,
}

#[derive(Debug, Clone)]
enum Term {
    All,
    Like { key: Key, pattern: WildMatch, wanted: bool },
    Version { order: &'static [Ordering], than: String },
}

#[derive(Debug, Clone, Copy)]
enum Key {
    Node,
    Board,
    Arch,
    Version,
    State,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSelector {
    #[error(
        "the selector has an empty part; write all, a name, orin-*, board=…, arch=…, version<…; comma is or, + is and"
    )]
    Empty,
    #[error("{0:?} cannot be asked of a node; there are node, board, arch, version and state")]
    Key(String),
    #[error("{0} has no order; only version can be compared with < and >")]
    Order(String),
}

/// What of a node is asked.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub node: &'a NodeId,
    pub state: NodeState,
    pub birth: Option<&'a Birth>,
}

impl Selector {
    pub fn matches(&self, facts: Facts<'_>) -> bool {
        self.any.iter().any(|all| all.iter().all(|term| term.matches(facts)))
    }
}

impl Term {
    fn matches(&self, facts: Facts<'_>) -> bool {
        match self {
            Term::All => true,
            Term::Like { key, pattern, wanted } => {
                facts.get(*key).is_some_and(|value| pattern.matches(value) == *wanted)
            }
            Term::Version { order, than } => {
                facts.get(Key::Version).is_some_and(|value| order.contains(&version::compare(value, than)))
            }
        }
    }
}

impl Facts<'_> {
    fn get(&self, key: Key) -> Option<&str> {
        match key {
            Key::Node => Some(self.node.as_str()),
            Key::State => Some(match self.state {
                NodeState::Online => "online",
                NodeState::Draining => "draining",
                NodeState::Offline => "offline",
            }),
            Key::Board => self.birth.map(|birth| birth.board.profile.as_str()),
            Key::Arch => self.birth.map(|birth| birth.board.arch.as_str()),
            Key::Version => self.birth.map(running_version),
        }
    }
}

/// Of a node's image or package; of its agent where it has neither.
pub fn running_version(birth: &Birth) -> &str {
    match &birth.installation {
        Some(installed) if !installed.version.is_empty() => &installed.version,
        Some(_) | None => &birth.agent_version,
    }
}

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let groups = text.split(',').map(|group| group.split('+').map(term).collect());
        Ok(Self { text: text.to_owned(), any: groups.collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn term(text: &str) -> Result<Term, BadSelector> {
    let text = text.trim();
    let Some(at) = text.find(['!', '<', '>', '=']) else {
        return match text {
            "" => Err(BadSelector::Empty),
            "all" => Ok(Term::All),
            name => Ok(Term::Like { key: Key::Node, pattern: WildMatch::new(name), wanted: true }),
        };
    };
    let (name, rest) = text.split_at(at);
    let key = match name.trim() {
        "node" => Key::Node,
        "board" => Key::Board,
        "arch" => Key::Arch,
        "version" => Key::Version,
        "state" => Key::State,
        other => return Err(BadSelector::Key(other.to_owned())),
    };
    // The longer signs first: `<=` begins with `<`.
    let signs: [(&str, Option<bool>, &'static [Ordering]); 6] = [
        ("!=", Some(false), &[]),
        ("<=", None, &[Ordering::Less, Ordering::Equal]),
        (">=", None, &[Ordering::Greater, Ordering::Equal]),
        ("<", None, &[Ordering::Less]),
        (">", None, &[Ordering::Greater]),
        ("=", Some(true), &[]),
    ];
    let found = signs.iter().find_map(|(sign, wanted, order)| {
        rest.strip_prefix(sign).map(|value| (value.trim(), *wanted, *order))
    });
    match found {
        None | Some(("", ..)) => Err(BadSelector::Empty),
        Some((value, Some(wanted), _)) => Ok(Term::Like { key, pattern: WildMatch::new(value), wanted }),
        Some((value, None, order)) => match key {
            Key::Version => Ok(Term::Version { order, than: value.to_owned() }),
            Key::Node | Key::Board | Key::Arch | Key::State => {
                Err(BadSelector::Order(name.trim().to_owned()))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::testing::birth;

    fn matches(selector: &str, name: &str) -> bool {
        let (node, birth) = (NodeId::new(name).unwrap(), birth(name, "0.1.0"));
        let facts = Facts { node: &node, state: NodeState::Online, birth: Some(&birth) };
        selector.parse::<Selector>().unwrap().matches(facts)
    }

    #[test]
    fn a_comma_is_or_and_a_plus_is_and() {
        for yes in [
            "all",
            "orin-1",
            "orin-*",
            "pi,orin-?",
            "board=generic+arch=x86_64",
            "version<0.2.0",
            "version>=0.1.0",
            "version!=0.2.0",
            "nobody,state=online",
            "orin-1+version=0.1.*",
            " orin-1 + all ",
        ] {
            assert!(matches(yes, "orin-1"), "{yes} does not match");
        }
        for no in ["orin", "pi-*", "orin-1+version>0.1.0", "board!=generic", "version<0.1.0", "state=offline"]
        {
            assert!(!matches(no, "orin-1"), "{no} matches");
        }
    }

    #[test]
    fn what_a_node_never_said_matches_neither_way() {
        let node = NodeId::new("a").unwrap();
        let facts = Facts { node: &node, state: NodeState::Offline, birth: None };
        let matches = |text: &str| text.parse::<Selector>().unwrap().matches(facts);
        assert!(matches("a") && matches("all") && matches("state=offline"));
        assert!(!matches("board=x") && !matches("board!=x") && !matches("version<9"));
    }

    #[test]
    fn a_selector_that_means_nothing_is_refused_by_name() {
        let error = |text: &str| text.parse::<Selector>().unwrap_err();
        assert_eq!(error(""), BadSelector::Empty);
        assert_eq!(error("a,,b"), BadSelector::Empty);
        assert_eq!(error("board="), BadSelector::Empty);
        assert_eq!(error("colour=red"), BadSelector::Key("colour".into()));
        assert_eq!(error("board<3"), BadSelector::Order("board".into()));
    }
}
