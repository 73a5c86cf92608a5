//! Which worker has how many sessions of the devices that run only so many at once.
//!
//! ```text
//!   probe ─▶ limits                       ┌─ a ladder's worker opens: what it wants, as far as it is left ─▶ Grant
//!                     Sessions, one ledger┼─ the worker is told to end ─▶ the next one waits for its Grant
//!   admission ◀─ what lanes hold          └─ the worker is gone ─▶ its Grant is dropped, and given back
//! ```
//!
//! A worker is told its part when it opens and plans with it; what does not fit is software's. What an input is
//! decoded with is not known before it comes, so that a worker gets one session of each decoder that is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_protocol::worker::Sessions as Told;
use headwater_protocol::{Capability, CapabilityKind, Code, Codec, Fault, Ladder};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::node::LaneId;

/// A worker that is told to close is gone after this, or for ever in its driver.
const ENDING: Duration = Duration::from_secs(8);

/// Sessions by pool.
pub(crate) type Counts = BTreeMap<String, u32>;

/// What workers hold that are not ending, each by itself; without a lane where it is lost in a driver.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held(pub(crate) Vec<(Option<LaneId>, Counts)>);

impl Held {
    /// Workers of one lane.
    pub(crate) fn workers(&self, lane: LaneId) -> usize {
        self.0.iter().filter(|(holder, _)| *holder == Some(lane)).count()
    }

    /// Whether a worker of the lane holds a session of this pool.
    pub(crate) fn has(&self, lane: LaneId, pool: &str) -> bool {
        self.0
            .iter()
            .any(|(holder, has)| *holder == Some(lane) && has.get(pool).is_some_and(|count| *count > 0))
    }

    /// What those hold whose lane is not one of `gone`.
    pub(crate) fn without(&self, gone: &BTreeSet<LaneId>) -> Counts {
        let stays = |lane: &Option<LaneId>| !lane.is_some_and(|lane| gone.contains(&lane));
        sum(self.0.iter().filter(|(lane, _)| stays(lane)).map(|(_, has)| has))
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Counts>) -> Counts {
    let mut used = Counts::new();
    for (pool, count) in all.flatten() {
        *used.entry(pool.clone()).or_default() += count;
    }
    used
}

/// The pools whose elements do this, best first, each with its limit.
fn pools(
    capabilities: &[Capability],
    kind: CapabilityKind,
    codec: Option<Codec>,
) -> Vec<(String, Option<u32>)> {
    let mut all: Vec<(String, Option<u32>)> = Vec::new();
    let does = |one: &&Capability| one.kind == kind && (codec.is_none() || one.codec == codec);
    for pool in capabilities.iter().filter(does).map(Capability::pool) {
        if !all.iter().any(|(known, _)| *known == pool) {
            let limit = limit(capabilities, &pool);
            all.push((pool, limit));
        }
    }
    all
}

/// The least over all uses of the pool.
fn limit(capabilities: &[Capability], pool: &str) -> Option<u32> {
    capabilities.iter().filter(|one| one.pool() == pool).filter_map(|one| one.limit).min()
}

/// How many renditions there are of each codec.
fn renditions(ladder: &Ladder) -> Vec<(Codec, u32)> {
    let mut all: Vec<(Codec, u32)> = Vec::new();
    for rendition in ladder.renditions() {
        match all.iter_mut().find(|(codec, _)| *codec == rendition.codec) {
            Some((_, count)) => *count += 1,
            None => all.push((rendition.codec, 1)),
        }
    }
    all
}

/// Encoders that a ladder wants more of than there are.
struct Short {
    names: String,
    /// At once.
    most: u32,
    /// By others.
    used: u32,
    wanted: u32,
}

/// What is short for a new worker for this ladder, where others hold `used`.
fn short(ladder: &Ladder, capabilities: &[Capability], used: &Counts) -> Option<Short> {
    let of = |counts: &Counts, pool: &str| counts.get(pool).copied().unwrap_or_default();
    // One pool may encode several codecs.
    let mut ours = Counts::new();
    for (codec, mut wanted) in renditions(ladder) {
        let all = pools(capabilities, CapabilityKind::Encode, Some(codec));
        let limit = |(pool, limit): (String, Option<u32>)| limit.map(|limit| (pool, limit));
        let Some(counted) = all.into_iter().map(limit).collect::<Option<Vec<_>>>() else { continue };
        let sum = |counts: &Counts| counted.iter().map(|(pool, _)| of(counts, pool)).sum::<u32>();
        let most = counted.iter().map(|(_, limit)| limit).sum::<u32>();
        let (used_here, all_wanted) = (sum(used), wanted + sum(&ours));
        for (pool, limit) in &counted {
            let left = limit.saturating_sub(of(used, pool)).saturating_sub(of(&ours, pool));
            let given = wanted.min(left);
            *ours.entry(pool.clone()).or_default() += given;
            wanted -= given;
        }
        if wanted > 0 {
            let names = counted.iter().map(|(pool, _)| pool.as_str()).collect::<Vec<_>>().join(" and ");
            return Some(Short { names, most, used: used_here, wanted: all_wanted });
        }
    }
    None
}

/// Whether a new worker for this ladder would find an encoder for each rendition, where others hold `used`.
pub(crate) fn room(ladder: &Ladder, capabilities: &[Capability], used: &Counts) -> Result<(), Fault> {
    if let Some(Short { names, most, wanted, .. }) = short(ladder, capabilities, &Counts::new()) {
        let text = format!("{names} here runs {most} at once, and the ladder wants {wanted}");
        return Err(Fault::new(Code::NoEncoder, text));
    }
    if let Some(Short { names, most, used, wanted }) = short(ladder, capabilities, used) {
        let text = format!(
            "{names} here runs {most} at once, of which {used} are in use, and the ladder wants {wanted}"
        );
        return Err(Fault::new(Code::Busy, text));
    }
    Ok(())
}

/// A new worker's part.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    /// Of every pool that is counted.
    has: Counts,
    /// Pools of which it would take more.
    lacks: BTreeSet<String>,
}

fn part(ladder: &Ladder, capabilities: &[Capability], used: &Counts) -> Part {
    let mut part = Part::default();
    // One pool may encode several of the ladder's codecs.
    let left = |has: &Counts, pool: &str, limit: u32| {
        let of = |counts: &Counts| counts.get(pool).copied().unwrap_or_default();
        limit.saturating_sub(of(used)).saturating_sub(of(has))
    };
    for pool in capabilities.iter().map(Capability::pool) {
        if limit(capabilities, &pool).is_some() {
            part.has.insert(pool, 0);
        }
    }
    for (codec, mut wanted) in renditions(ladder) {
        let all = pools(capabilities, CapabilityKind::Encode, Some(codec));
        // What comes behind one that is not counted is not needed.
        let counted = all.iter().map_while(|(pool, limit)| limit.map(|limit| (pool, limit)));
        for (pool, limit) in counted.clone() {
            let given = wanted.min(left(&part.has, pool, limit));
            *part.has.entry(pool.clone()).or_default() += given;
            wanted -= given;
        }
        if wanted > 0 {
            part.lacks.extend(counted.map(|(pool, _)| pool.clone()));
        }
    }
    for (pool, limit) in pools(capabilities, CapabilityKind::Decode, None) {
        let Some(limit) = limit else { continue };
        let given = left(&part.has, &pool, limit).min(1);
        *part.has.entry(pool.clone()).or_default() += given;
        if given == 0 {
            part.lacks.insert(pool);
        }
    }
    part
}

/// Pools of which a new worker would take more than there are, where others hold `used`.
pub(crate) fn lacks(ladder: &Ladder, capabilities: &[Capability], used: &Counts) -> BTreeSet<String> {
    part(ladder, capabilities, used).lacks
}

#[derive(Debug)]
struct Holder {
    /// None: its driver keeps its process, and these sessions come back when that is gone, if ever.
    lane: Option<LaneId>,
    /// Of one that its driver keeps.
    stuck: Option<Pid>,
    has: Counts,
    /// It is told to end, and its sessions are worth waiting for.
    ending: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Proved and used.
    capabilities: Vec<Capability>,
    /// One for each worker.
    holders: BTreeMap<u64, Holder>,
    next: u64,
}

impl State {
    fn held(&self) -> Held {
        let stay = self.holders.values().filter(|holder| !holder.ending);
        Held(stay.map(|holder| (holder.lane, holder.has.clone())).collect())
    }

    fn used(&self) -> Counts {
        sum(self.holders.values().map(|holder| &holder.has))
    }

    /// Sessions of workers that came loose from their driver after all are there again.
    fn look_for_the_lost(&mut self) {
        self.holders.retain(|_, holder| holder.stuck.is_none_or(is_there));
    }
}

/// A process that is dead and not yet reaped is there too; the runtime reaps it.
fn is_there(process: Pid) -> bool {
    kill(process, None) != Err(Errno::ESRCH)
}

/// The ledger that lanes share.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
    given_back: Notify,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        // Only whole values are put in and taken out.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.look_for_the_lost();
        state
    }

    pub(crate) fn learn(&self, capabilities: &[Capability]) {
        self.state().capabilities = capabilities.to_vec();
    }

    pub(crate) fn held(&self) -> Held {
        self.state().held()
    }

    /// What workers of lanes hold, those that are ending too.
    pub(crate) fn at_work(&self) -> Counts {
        let state = self.state();
        sum(state.holders.values().filter(|holder| holder.lane.is_some()).map(|holder| &holder.has))
    }

    /// Whether a worker for this ladder would find an encoder for each rendition, beside all that there are.
    pub(crate) fn have_room(&self, ladder: &Ladder) -> bool {
        let state = self.state();
        room(ladder, &state.capabilities, &state.used()).is_ok()
    }

    /// Whether the board runs only so many of anything at once.
    pub(crate) fn are_counted(&self) -> bool {
        self.state().capabilities.iter().any(|one| one.limit.is_some())
    }

    /// The lane is told to close: its workers' sessions are worth waiting for.
    pub(crate) fn ending(&self, lane: LaneId) {
        self.state()
            .holders
            .values_mut()
            .filter(|holder| holder.lane == Some(lane))
            .for_each(|one| one.ending = true);
    }

    /// A new worker's part. Where it is not all that its ladder wants and workers are ending, it waits for them.
    pub(crate) async fn take(self: &Arc<Self>, lane: LaneId, ladder: &Ladder) -> Grant {
        let until = Instant::now() + ENDING;
        loop {
            // Listens before it looks.
            let given_back = self.given_back.notified();
            if let Some(grant) = self.try_take(lane, ladder, Instant::now() >= until) {
                return grant;
            }
            // Too late: it is taken as it is.
            let _ = timeout_at(until, given_back).await;
        }
    }

    /// None where it is better to wait.
    fn try_take(self: &Arc<Self>, lane: LaneId, ladder: &Ladder, now: bool) -> Option<Grant> {
        let mut state = self.state();
        let Part { has, lacks } = part(ladder, &state.capabilities, &state.used());
        let worth = |one: &Holder| one.has.iter().any(|(pool, count)| *count > 0 && lacks.contains(pool));
        if !now && state.holders.values().any(|one| one.ending && worth(one)) {
            return None;
        }
        let told = has.iter().filter_map(|(pool, ours)| {
            let most = limit(&state.capabilities, pool)?;
            Some((pool.clone(), Told { most, ours: *ours }))
        });
        let told = told.collect();
        let id = state.next;
        state.next += 1;
        state.holders.insert(id, Holder { lane: Some(lane), stuck: None, has, ending: false });
        Some(Grant { ledger: self.clone(), id, told, lacks })
    }
}

/// A worker's sessions, given back when this is dropped: after its process has ended.
#[derive(Debug)]
pub(crate) struct Grant {
    ledger: Arc<Sessions>,
    id: u64,
    told: BTreeMap<String, Told>,
    lacks: BTreeSet<String>,
}

impl Grant {
    /// As the worker is told it.
    pub(crate) fn told(&self) -> &BTreeMap<String, Told> {
        &self.told
    }

    /// The worker is told to end: a new one waits for what this one has.
    pub(crate) fn ending(&self) {
        if let Some(holder) = self.ledger.state().holders.get_mut(&self.id) {
            holder.ending = true;
        }
    }

    /// The worker's process stays in its driver, and so do its sessions.
    pub(crate) fn lost(&self, process: Pid) {
        if let Some(holder) = self.ledger.state().holders.get_mut(&self.id) {
            (holder.lane, holder.stuck, holder.ending) = (None, Some(process), false);
        }
    }

    /// A new worker in place of this one would get sessions that this one lacks.
    pub(crate) fn is_outdated(&self) -> bool {
        let state = self.ledger.state();
        let used = state.used();
        self.lacks.iter().any(|pool| {
            let most = limit(&state.capabilities, pool).unwrap_or(u32::MAX);
            used.get(pool).copied().unwrap_or_default() < most
        })
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.ledger.state().holders.retain(|id, holder| *id != self.id || holder.lane.is_none());
        self.ledger.given_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tests::{h264, offer};

    fn encoder(codec: Codec, element: &str, limit: Option<u32>) -> Capability {
        Capability { codec: Some(codec), element: element.into(), limit, ..h264() }
    }

    fn decoder(element: &str, limit: Option<u32>) -> Capability {
        Capability { kind: CapabilityKind::Decode, ..encoder(Codec::H264, element, limit) }
    }

    /// So many renditions of H.264, and as many of HEVC.
    fn ladder(h264: usize, hevc: usize) -> Ladder {
        let one = offer("t1", "s1").ladder.renditions()[0].clone();
        let codecs = std::iter::repeat_n(Codec::H264, h264).chain(std::iter::repeat_n(Codec::Hevc, hevc));
        let named = |(number, codec): (usize, Codec)| {
            let name = headwater_protocol::RenditionName::new(format!("r{number}")).unwrap();
            headwater_protocol::Rendition { name, codec, ..one.clone() }
        };
        Ladder::new(codecs.enumerate().map(named).collect()).unwrap()
    }

    fn counts(all: &[(&str, u32)]) -> Counts {
        all.iter().map(|(element, count)| ((*element).to_owned(), *count)).collect()
    }

    #[test]
    fn a_worker_gets_what_its_ladder_wants_as_far_as_it_is_left() {
        let able = [
            decoder("dec", Some(3)),
            encoder(Codec::H264, "enc", Some(4)),
            encoder(Codec::H264, "soft", None),
            encoder(Codec::Hevc, "enc265", Some(2)),
        ];
        let first = part(&ladder(3, 0), &able, &Counts::new());
        assert_eq!(first.has, counts(&[("dec", 1), ("enc", 3), ("enc265", 0)]));
        assert!(first.lacks.is_empty());
        let second = part(&ladder(3, 1), &able, &first.has);
        assert_eq!(second.has, counts(&[("dec", 1), ("enc", 1), ("enc265", 1)]));
        assert_eq!(second.lacks, ["enc".to_owned()].into(), "two renditions are left to software");
    }

    #[test]
    fn what_stands_behind_software_is_left_alone_and_a_second_device_is_not() {
        let (device, other) = (encoder(Codec::H264, "a", Some(2)), encoder(Codec::H264, "b", Some(2)));
        let both = part(&ladder(3, 0), &[device.clone(), other.clone()], &Counts::new());
        assert_eq!(both.has, counts(&[("a", 2), ("b", 1)]));
        let behind = part(&ladder(3, 0), &[encoder(Codec::H264, "soft", None), device], &Counts::new());
        assert_eq!(behind, Part { has: counts(&[("a", 0)]), lacks: BTreeSet::new() });
    }

    #[test]
    fn an_element_has_the_least_limit_of_all_its_uses() {
        let av1 = Capability { codec: Some(Codec::Av1), ..decoder("dec", Some(1)) };
        let able = [decoder("dec", None), av1];
        assert_eq!(part(&ladder(1, 0), &able, &Counts::new()).has, counts(&[("dec", 1)]));
        assert_eq!(part(&ladder(1, 0), &able, &counts(&[("dec", 1)])).lacks, ["dec".to_owned()].into());
    }

    #[test]
    fn codecs_of_one_element_share_its_sessions() {
        let able = [encoder(Codec::H264, "enc", Some(3)), encoder(Codec::Hevc, "enc", Some(3))];
        let all = part(&ladder(1, 2), &able, &Counts::new());
        assert_eq!(all, Part { has: counts(&[("enc", 3)]), lacks: BTreeSet::new() });
        let some = part(&ladder(1, 2), &able, &counts(&[("enc", 1)]));
        assert_eq!(some, Part { has: counts(&[("enc", 2)]), lacks: ["enc".to_owned()].into() });
        assert_eq!(room(&ladder(1, 2), &able, &Counts::new()), Ok(()));
        let code =
            |ladder: &Ladder, used: &[(&str, u32)]| room(ladder, &able, &counts(used)).unwrap_err().code;
        assert_eq!(code(&ladder(1, 2), &[("enc", 1)]), Code::Busy);
        assert_eq!(code(&ladder(2, 2), &[]), Code::NoEncoder);
    }

    #[test]
    fn elements_of_one_device_share_its_sessions() {
        let of = |block: &str, encoder: Capability| Capability { block: block.into(), ..encoder };
        let able = [
            of("NVENC", encoder(Codec::H264, "enc", Some(3))),
            of("NVENC", encoder(Codec::Hevc, "enc265", Some(3))),
            of("NVDEC", decoder("dec", Some(2))),
            of("NVDEC", decoder("dec265", None)),
        ];
        let all = part(&ladder(2, 2), &able, &Counts::new());
        assert_eq!(all.has, counts(&[("NVENC encoder", 3), ("NVDEC decoder", 1)]));
        assert_eq!(all.lacks, ["NVENC encoder".to_owned()].into());
        let fault = room(&ladder(1, 1), &able, &counts(&[("NVENC encoder", 2)])).unwrap_err();
        assert_eq!(
            fault.text,
            "NVENC encoder here runs 3 at once, of which 2 are in use, and the ladder wants 2"
        );
    }

    #[test]
    fn there_is_room_unless_every_encoder_of_a_codec_is_in_use() {
        let code = |ladder: &Ladder, able: &[Capability], used: &[(&str, u32)]| {
            room(ladder, able, &counts(used)).err().map(|fault| fault.code)
        };
        let mut able = vec![encoder(Codec::H264, "enc", Some(2))];
        assert_eq!(code(&ladder(2, 0), &able, &[]), None);
        assert_eq!(code(&ladder(2, 0), &able, &[("enc", 1)]), Some(Code::Busy));
        assert_eq!(code(&ladder(3, 0), &able, &[]), Some(Code::NoEncoder), "it would never fit");
        able.push(encoder(Codec::H264, "soft", None));
        assert_eq!(code(&ladder(3, 0), &able, &[("enc", 2)]), None);
    }

    #[tokio::test]
    async fn sessions_come_back_with_their_worker_and_those_that_end_are_waited_for() {
        let sessions = Arc::new(Sessions::default());
        sessions.learn(&[encoder(Codec::H264, "enc", Some(2)), encoder(Codec::H264, "soft", None)]);
        let first = sessions.take(LaneId(1), &ladder(2, 0)).await;
        let second = sessions.take(LaneId(2), &ladder(2, 0)).await;
        let ours = |grant: &Grant| grant.told()["enc"];
        assert_eq!((ours(&first), ours(&second)), (Told { most: 2, ours: 2 }, Told { most: 2, ours: 0 }));
        assert!(!first.is_outdated() && !second.is_outdated());
        sessions.ending(LaneId(1));
        let waiting = sessions.clone();
        let third = tokio::spawn(async move { waiting.take(LaneId(3), &ladder(2, 0)).await });
        tokio::task::yield_now().await;
        assert_eq!(sessions.held().workers(LaneId(3)), 0, "it took what there was");
        drop(first);
        let third = third.await.unwrap();
        assert_eq!(ours(&third).ours, 2);
        drop(third);
        assert!(second.is_outdated(), "a new worker would get what this one lacks");
    }

    #[tokio::test]
    async fn a_worker_that_is_told_to_end_is_waited_for_and_no_part_of_what_its_lane_has() {
        let sessions = Arc::new(Sessions::default());
        sessions.learn(&[encoder(Codec::H264, "enc", Some(2))]);
        let first = sessions.take(LaneId(1), &ladder(2, 0)).await;
        first.ending();
        assert_eq!(sessions.held().workers(LaneId(1)), 0);
        assert!(sessions.try_take(LaneId(1), &ladder(2, 0), false).is_none(), "it took what there was");
        drop(first);
        assert_eq!(sessions.take(LaneId(1), &ladder(2, 0)).await.told()["enc"].ours, 2);
    }

    #[tokio::test]
    async fn what_a_stuck_worker_has_comes_back_when_it_is_gone_and_is_not_waited_for() {
        let sessions = Arc::new(Sessions::default());
        sessions.learn(&[encoder(Codec::H264, "enc", Some(3))]);
        let stuck = sessions.take(LaneId(1), &ladder(2, 0)).await;
        stuck.ending();
        let mut process = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        stuck.lost(Pid::from_raw(i32::try_from(process.id()).unwrap()));
        drop(stuck);
        assert_eq!(sessions.held().workers(LaneId(1)), 0);
        assert_eq!(sessions.held().without(&[LaneId(1)].into()), counts(&[("enc", 2)]));
        sessions.ending(LaneId(1));
        let next = sessions.try_take(LaneId(1), &ladder(2, 0), false).unwrap();
        assert_eq!(next.told()["enc"].ours, 1);
        assert_eq!(sessions.at_work(), counts(&[("enc", 1)]), "a probe has no use for what is lost");
        process.kill().unwrap();
        process.wait().unwrap();
        drop(next);
        assert_eq!(sessions.take(LaneId(1), &ladder(3, 0)).await.told()["enc"].ours, 3);
    }
}
