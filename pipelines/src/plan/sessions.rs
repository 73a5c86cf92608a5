//! Sessions of devices that run only so many at once: what a plan has given away of them.

use std::collections::BTreeMap;
use std::fmt;

use headwater_protocol::CapabilityKind;
use headwater_protocol::media::pool;

use super::absent;
use super::encode::Said;
use crate::machine::{ElementFacts, Machine, Use};

/// How often elements of each pool are in the plan so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken(BTreeMap<String, u32>);

/// Why an element is not in a plan, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Why {
    pub text: String,
    /// It could be used and has no session left.
    pub full: Option<Full>,
}

/// Who has the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// This ladder alone: it is the same at any time.
    Ladder,
    /// Other streams too, which end some day.
    Others,
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        Self { text, full: None }
    }
}

impl From<&str> for Why {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Taken {
    pub(super) fn take(&mut self, said: &Said<'_>) {
        let pool = pool(CapabilityKind::Encode, &said.encoder.block, &said.element.factory);
        *self.0.entry(pool).or_default() += 1;
    }

    /// The first of `factories`, all for one `block`, that can be used like this and has a session left.
    pub(super) fn first<'m, 'f>(
        &self,
        machine: &'m Machine,
        factories: &'f [String],
        block: &str,
        used: Use<'_>,
    ) -> Result<(&'f str, &'m ElementFacts), Why> {
        let mut why = None;
        for (factory, facts) in machine.all_for(factories, used) {
            match self.full(machine, &pool(used.kind(), block, factory)) {
                None => return Ok((factory, facts)),
                Some(full) => why = Some(full),
            }
        }
        Err(why.unwrap_or_else(|| absent(machine, factories, used).into()))
    }

    fn full(&self, machine: &Machine, pool: &str) -> Option<Why> {
        let sessions = machine.sessions.get(pool)?;
        let taken = self.0.get(pool).copied().unwrap_or_default();
        if taken < sessions.ours {
            return None;
        }
        let others = sessions.most.saturating_sub(sessions.ours);
        let mut text = format!("{pool} runs {} at once", sessions.most);
        if others > 0 {
            text = format!("{text}, {others} for other streams");
        }
        if taken > 0 {
            text = format!("{text}, {taken} for larger renditions");
        }
        // With the others' it would do.
        let full = if taken < sessions.most { Full::Others } else { Full::Ladder };
        Some(Why { text, full: Some(full) })
    }
}
