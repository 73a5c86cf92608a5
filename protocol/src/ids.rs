//! Names that are safe in a topic, a path, a URL and a log line, by construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {bytes} bytes, at most {max} are allowed")]
    TooLong { what: &'static str, bytes: usize, max: usize },
    #[error("{what} has {found:?} at byte {at}; allowed are {allowed}")]
    BadCharacter { what: &'static str, found: char, at: usize, allowed: &'static str },
    #[error("{what} starts with {found:?}; it must start with a letter or a digit")]
    BadStart { what: &'static str, found: char },
}

fn check(what: &'static str, text: &str, max: usize, mixed: bool) -> Result<(), BadId> {
    let allowed = if mixed { "A-Z a-z 0-9 . _ -" } else { "a-z 0-9 _ -" };
    let Some(first) = text.chars().next() else {
        return Err(BadId::Empty { what });
    };
    if text.len() > max {
        return Err(BadId::TooLong { what, bytes: text.len(), max });
    }
    let bad = |c: char| {
        !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
            && !(mixed && (c.is_ascii_uppercase() || c == '.'))
    };
    if let Some((at, found)) = text.char_indices().find(|(_, c)| bad(*c)) {
        return Err(BadId::BadCharacter { what, found, at, allowed });
    }
    if !first.is_ascii_alphanumeric() {
        return Err(BadId::BadStart { what, found: first });
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, max $max:literal, mixed $mixed:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, BadId> {
                let text = text.into();
                check($what, &text, $max, $mixed)?;
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(
    /// The nodes of one operator. A topic level.
    FleetId, "fleet id", max 64, mixed false
);
id!(
    /// One board that runs the agent: topic level, MQTT user name and certificate name at once.
    NodeId, "node id", max 64, mixed false
);
id!(
    /// The unit a node does: one segment in, its renditions out.
    TaskId, "task id", max 64, mixed false
);
id!(
    /// One order to change what nodes run; the same for all nodes that get it.
    UpdateId, "update id", max 64, mixed false
);
id!(
    /// An ordered run of segments that share one ladder; the `manifest` of the push interface.
    StreamId, "stream id", max 128, mixed true
);
id!(
    /// One wanted output of a ladder; part of file names and URLs.
    RenditionName, "rendition name", max 64, mixed true
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_folder_or_a_topic_level_are_refused() {
        for text in ["", "..", ".", "../../etc", "a/b", "a+b", "#", "-x", "ä", "a b", "a\0"] {
            assert!(StreamId::new(text).is_err(), "{text:?} was taken");
            assert!(NodeId::new(text).is_err(), "{text:?} was taken");
        }
        assert!(NodeId::new("x".repeat(65)).is_err());
        assert!(StreamId::new("Show_1.final-cut").is_ok());
        assert!(NodeId::new("Orin").is_err(), "certificate names compare without case in places");
    }

    #[test]
    fn an_id_is_checked_when_it_is_parsed_from_json() {
        let error = serde_json::from_str::<NodeId>("\"a/b\"").unwrap_err().to_string();
        assert!(error.contains("node id has '/' at byte 1"), "{error}");
    }
}
