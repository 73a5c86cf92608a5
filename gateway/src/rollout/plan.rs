//! Who takes part, and in which wave.

use std::collections::BTreeMap;

use headwater_protocol::message::Birth;
use headwater_protocol::update::{Bundle, BundleKind, MAX_HEALTH};
use headwater_protocol::{Millis, NodeId, UpdateId, version};

use super::{Member, Plan, Progress, Share};
use crate::secret::sha256_hex;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    #[error("an update has 1 to 20 waves")]
    Waves,
    #[error("the last wave is {0}; it must be 100%, or nodes would be left without their turn")]
    Last(Share),
    #[error("wave {0} is not larger than the one before it; waves count all nodes so far, as 5%,25%,100%")]
    Order(usize),
    #[error("a node gets 10 s to 24 h to prove itself")]
    Health,
    #[error("a wave soaks for at most 30 days")]
    Soak,
    #[error("a window's ends are minutes of a day, 0 to 1439")]
    Window,
}

pub(super) const DAY: u64 = 24 * 3600 * 1000;

/// The rules that no single field can show.
pub fn check(plan: &Plan) -> Result<(), BadPlan> {
    let Plan { waves, stop_after: _, window, allow_downgrade: _, health } = plan;
    let Some(last) = waves.last().filter(|_| waves.len() <= 20) else { return Err(BadPlan::Waves) };
    if last.upto != Share::Percent(100) {
        return Err(BadPlan::Last(last.upto));
    }
    for (index, pair) in waves.windows(2).enumerate() {
        let falls = match (pair[0].upto, pair[1].upto) {
            (Share::Percent(a), Share::Percent(b)) | (Share::Count(a), Share::Count(b)) => a >= b,
            // Which is more depends on the fleet; a wave that adds nobody is passed at once.
            (Share::Percent(_), Share::Count(_)) | (Share::Count(_), Share::Percent(_)) => false,
        };
        if falls {
            return Err(BadPlan::Order(index + 2));
        }
    }
    if waves.iter().any(|wave| wave.soak.0 > 30 * DAY) {
        return Err(BadPlan::Soak);
    }
    if !(10_000..=MAX_HEALTH.0).contains(&health.0) {
        return Err(BadPlan::Health);
    }
    match window {
        Some(window) if window.from >= 1440 || window.until >= 1440 => Err(BadPlan::Window),
        Some(_) | None => Ok(()),
    }
}

/// What a node runs, where the bundle would take it back to something older.
pub fn is_older<'a>(bundle: &Bundle, birth: &'a Birth) -> Option<&'a str> {
    let runs = &birth.installation.as_ref()?.version;
    version::takes_back(&bundle.version, runs).then_some(runs)
}

/// Why a node cannot take a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub reason: String,
    /// It may be otherwise in a minute: right after a boot, not all that a node asks of itself answers yet.
    pub passing: bool,
}

/// Whether a node can take the bundle, and has not got it already.
pub fn suits(bundle: &Bundle, plan: &Plan, birth: Option<&Birth>) -> Result<(), Unfit> {
    let passing = |reason: &str| Err(Unfit { reason: reason.to_owned(), passing: true });
    let Some(birth) = birth else { return passing("it has not said yet what it is") };
    if let Some(installed) = &birth.installation {
        // First of all: without its helper a node does not know what it is made of.
        if !installed.privileged {
            return passing(
                "its root's helper did not answer; see headwater-system.socket there, or update it by hand",
            );
        }
        if installed.updates_by.is_none() && installed.slot.is_some() {
            return passing("RAUC, which updates it, did not answer; see `systemctl status rauc` there");
        }
    }
    takes(bundle, plan, birth).map_err(|reason| Unfit { reason, passing: false })
}

/// What does not change by waiting.
fn takes(bundle: &Bundle, plan: &Plan, birth: &Birth) -> Result<(), String> {
    let Some(installed) = &birth.installation else {
        return Err(format!("its agent, {}, does not know updates yet", birth.agent_version));
    };
    let kind = |kind| match kind {
        BundleKind::Rauc => "an image",
        BundleKind::Deb => "packages",
    };
    match installed.updates_by {
        None => return Err("its programs were copied there by hand; whoever did updates them".to_owned()),
        Some(by) if by != bundle.kind => {
            return Err(format!("it is updated by {}, the bundle is {}", kind(by), kind(bundle.kind)));
        }
        Some(_) => {}
    }
    if installed.compatible != bundle.compatible {
        return Err(format!("it is {:?}, the bundle is for {:?}", installed.compatible, bundle.compatible));
    }
    if installed.version == bundle.version {
        return Err(format!("it runs {} already", bundle.version));
    }
    if let Some(runs) = is_older(bundle, birth).filter(|_| !plan.allow_downgrade) {
        return Err(format!("it runs {runs}, which is newer; --allow-downgrade takes it back"));
    }
    Ok(())
}

/// A selected node.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub node: NodeId,
    pub online: bool,
    /// Or why not.
    pub suits: Result<(), String>,
}

/// Deals the nodes out to the waves. The order is another one for each update, so that not always the same boards go
/// first; nodes that are away come last, because they prove nothing.
pub fn enlist(
    id: &UpdateId,
    plan: &Plan,
    candidates: Vec<Candidate>,
    now: Millis,
) -> BTreeMap<NodeId, Member> {
    let mut members = BTreeMap::new();
    let mut able = Vec::new();
    let member = |wave, progress| Member {
        wave,
        progress,
        order: id.clone(),
        since: now,
        sent: None,
        away: None,
        unsure: false,
    };
    for Candidate { node, online, suits } in candidates {
        match suits {
            Ok(()) => able.push((!online, sha256_hex(format!("{id}/{node}").as_bytes()), node)),
            Err(reason) => drop(members.insert(node, member(0, Progress::Skipped { reason }))),
        }
    }
    able.sort();
    let ends: Vec<usize> = plan.waves.iter().map(|wave| wave.upto.of(able.len())).collect();
    for (place, (_, _, node)) in able.into_iter().enumerate() {
        // The last wave is 100%, so its end is past every place.
        let wave = ends.iter().filter(|end| place >= **end).count();
        members.insert(node, member(wave, Progress::Pending));
    }
    members
}
