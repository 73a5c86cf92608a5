//! Which elements of this board are not used any more until it boots again.
//!
//! ```text
//!   worker still there after SIGKILL ───────────────────────▶ held
//!   hung or crashed ──▶ suspect ── another segment, within an hour, nothing served between ──▶ held
//!                          └────── a segment served ──▶ trusted
//! ```
//!
//! Only elements with a device behind them are ever held: a driver that hangs stays so until the next boot, and
//! every later user of it hangs too, while software starts afresh with each process. Where several elements were
//! in use nobody can tell which one it was, so all of them are held. What is held is on disk with the boot's id,
//! so that a restarted agent does not meet the same driver again; suspicion is not, and is forgotten with the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_protocol::TaskId;
use headwater_protocol::worker::Avoid;
use serde::{Deserialize, Serialize};

use crate::files;

/// Two failures further apart than this have nothing to do with each other.
const MEMORY: Duration = Duration::from_secs(3600);

/// What a worker that used hardware met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Hung,
    Crashed,
    /// No signal ends it.
    Stuck,
}

#[derive(Debug, Clone)]
struct Suspicion {
    /// The same segment may come again and is no second witness.
    task: Option<TaskId>,
    at: Instant,
}

/// The file, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    boot_id: String,
    elements: Vec<Avoid>,
}

#[derive(Debug)]
pub(crate) struct Quarantine {
    held: Held,
    suspects: BTreeMap<String, Suspicion>,
}

impl Quarantine {
    /// `earlier` counts where it is of this boot.
    pub(crate) fn new(boot_id: &str, earlier: Option<Held>) -> Self {
        let held = earlier.filter(|held| held.boot_id == boot_id);
        let held = held.unwrap_or_else(|| Held { boot_id: boot_id.to_owned(), elements: Vec::new() });
        Self { held, suspects: BTreeMap::new() }
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    pub(crate) fn avoid(&self) -> Arc<[Avoid]> {
        self.held.elements.as_slice().into()
    }

    pub(crate) fn holds(&self, element: &str) -> bool {
        self.held.elements.iter().any(|held| held.element == element)
    }

    /// A worker that used `elements` met trouble, at work on `task` or on its way to it. True where an element is newly held.
    pub(crate) fn met(
        &mut self,
        now: Instant,
        task: Option<&TaskId>,
        elements: &BTreeSet<String>,
        trouble: Trouble,
    ) -> bool {
        let before = self.held.elements.len();
        for element in elements {
            if self.holds(element) {
                continue;
            }
            let earlier = self.suspects.get(element);
            let again = earlier.is_some_and(|earlier| {
                now.duration_since(earlier.at) <= MEMORY && (task.is_none() || earlier.task.as_ref() != task)
            });
            let reason = match trouble {
                Trouble::Stuck => "a worker that used it could not be killed: its driver hangs",
                Trouble::Hung if again => "it hung or crashed on two segments in a row, last it hung",
                Trouble::Crashed if again => "it hung or crashed on two segments in a row, last it crashed",
                Trouble::Hung | Trouble::Crashed => {
                    self.suspects.insert(element.clone(), Suspicion { task: task.cloned(), at: now });
                    continue;
                }
            };
            self.suspects.remove(element);
            self.held.elements.push(Avoid { element: element.clone(), reason: reason.to_owned() });
        }
        self.held.elements.len() > before
    }

    /// A worker that used `elements` did a segment.
    pub(crate) fn served(&mut self, elements: &BTreeSet<String>) {
        self.suspects.retain(|element, _| !elements.contains(element));
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("quarantine.json")
}

/// None where there is nothing or nothing to be read.
pub(crate) fn load(state_dir: &Path) -> Option<Held> {
    serde_json::from_slice(&std::fs::read(file(state_dir)).ok()?).ok()
}

pub(crate) fn save(state_dir: &Path, held: &Held) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(held).map_err(std::io::Error::other)?;
    files::write_atomically(&file(state_dir), &bytes, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn task(name: &str) -> TaskId {
        TaskId::new(name).unwrap()
    }

    fn held(quarantine: &Quarantine) -> Vec<String> {
        quarantine.avoid().iter().map(|avoid| avoid.element.clone()).collect()
    }

    #[test]
    fn what_no_signal_ends_is_held_at_once_and_software_is_never() {
        let (mut quarantine, now) = (Quarantine::new("b1", None), Instant::now());
        assert!(!quarantine.met(now, Some(&task("t1")), &set(&[]), Trouble::Stuck));
        assert!(quarantine.met(now, Some(&task("t1")), &set(&["dec", "enc"]), Trouble::Stuck));
        assert_eq!(held(&quarantine), ["dec", "enc"]);
        assert!(!quarantine.met(now, None, &set(&["enc"]), Trouble::Stuck), "once");
    }

    #[test]
    fn two_segments_in_a_row_within_an_hour_are_one_too_many() {
        let (mut quarantine, now) = (Quarantine::new("b1", None), Instant::now());
        let enc = set(&["enc"]);
        assert!(!quarantine.met(now, Some(&task("t1")), &enc, Trouble::Hung));
        assert!(!quarantine.met(now, Some(&task("t1")), &enc, Trouble::Crashed), "the same segment again");
        assert!(quarantine.met(now, Some(&task("t2")), &enc, Trouble::Crashed));
        assert!(quarantine.holds("enc"));
    }

    #[test]
    fn a_segment_served_between_or_an_hour_clears_it() {
        let (mut quarantine, now) = (Quarantine::new("b1", None), Instant::now());
        let enc = set(&["enc"]);
        quarantine.met(now, Some(&task("t1")), &enc, Trouble::Hung);
        quarantine.served(&set(&["dec"]));
        quarantine.served(&enc);
        assert!(!quarantine.met(now, Some(&task("t2")), &enc, Trouble::Hung));
        let later = now + MEMORY + Duration::from_secs(1);
        assert!(!quarantine.met(later, Some(&task("t3")), &enc, Trouble::Hung));
        assert!(quarantine.met(later, Some(&task("t4")), &enc, Trouble::Hung));
    }

    #[test]
    fn a_boot_ends_it_and_a_restart_of_the_agent_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut quarantine = Quarantine::new("b1", load(folder.path()));
        quarantine.met(Instant::now(), None, &set(&["enc"]), Trouble::Stuck);
        save(folder.path(), quarantine.held()).unwrap();
        assert_eq!(held(&Quarantine::new("b1", load(folder.path()))), ["enc"]);
        assert_eq!(held(&Quarantine::new("b2", load(folder.path()))), Vec::<String>::new());
    }
}
