//! One look at an update: what has come to pass, what is to be sent.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::message::Birth;
use headwater_protocol::update::UpdateState;
use headwater_protocol::{Millis, NodeId, UpdateId};

use super::plan::DAY;
use super::{Campaign, Member, Plan, Progress, State, suits};

/// An order that the node's own word does not show is sent again after this.
pub const RESEND: u64 = 30_000;
/// A node that is away for so long in its turn does not hold up the others; it gets its order when it comes back.
pub const ABSENT: u64 = 10 * 60_000;
/// On top of the time to prove itself: two boots of a slow board and a watchdog's patience. A node that began to
/// install and says nothing for so long is taken for lost.
pub const SILENT: u64 = 15 * 60_000;

/// Nodes of one update that have their order and have not fetched yet; the others follow as these are through. A thousand
/// boards must not fetch at once beside the fleet's media. One that is away, or says nothing for as long as one that
/// is away is waited for, holds up nobody.
pub const FETCHING: usize = 50;
/// Messages of one look; of recalls, of a second. A connection to the broker has a queue of ten times as many, and what does
/// not fit is lost: a node that waits silently for its window would not hear of its recall.
pub const BATCH: usize = 50;
const SECOND: u64 = 1000;

/// When a look happens.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// Since 1970.
    pub now: Millis,
    /// How long nodes could be heard without a break; 0 while the broker is away. Of what was said before, and of who said
    /// nothing, nothing is known.
    pub listening: Millis,
}

/// What is known of a node.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub online: bool,
    pub birth: Option<&'a Birth>,
}

pub type Fleet<'a> = BTreeMap<&'a NodeId, Seen<'a>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Order { node: NodeId, order: UpdateId },
    Recall { node: NodeId, order: UpdateId },
}

/// What a look led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub actions: Vec<Action>,
    /// Nodes whose progress must be remembered.
    pub touched: BTreeSet<NodeId>,
    /// The update as a whole must be.
    pub head: bool,
}

pub fn step(campaign: &mut Campaign, fleet: &Fleet<'_>, time: Time) -> Step {
    let before = campaign.head.clone();
    let (mut step, now) = (Step::default(), time.now);
    find_silent(campaign, time, &mut step);
    // One that turned out well after it was forgiven gives no leave to another to fail.
    campaign.head.forgiven = campaign.head.forgiven.min(campaign.failures());
    // Also while it is paused: what has its order goes on, and may fail.
    if matches!(campaign.head.state, State::Running | State::Paused)
        && let Some(reason) = too_many_failures(campaign)
    {
        campaign.head.state = State::Stopped { reason };
    }
    if campaign.head.state == State::Running {
        if time.listening.0 > 0 {
            advance(campaign, fleet, now, &mut step);
        } else {
            // Without the broker everybody seems to be away.
            campaign.members.values_mut().for_each(|member| member.away = None);
        }
    }
    match campaign.head.state {
        State::Stopped { .. } | State::Cancelled => recall(campaign, fleet, now, &mut step),
        State::Running | State::Paused | State::Done => {}
    }
    step.head = campaign.head != before;
    step
}

fn find_silent(campaign: &mut Campaign, time: Time, step: &mut Step) {
    let (patience, now) = (campaign.plan.health.0 + SILENT, time.now);
    if time.listening.0 < patience {
        return;
    }
    for (node, member) in &mut campaign.members {
        if member.progress.is_changing() && now.0 >= member.since.0 + patience {
            member.progress = Progress::Silent;
            member.since = now;
            step.touched.insert(node.clone());
        }
    }
}

fn too_many_failures(campaign: &Campaign) -> Option<String> {
    let (failures, limit) = (campaign.failures(), campaign.plan.stop_after.of(campaign.candidates()));
    if failures < campaign.head.forgiven + limit {
        return None;
    }
    let failed = campaign.members.iter().filter(|(_, member)| member.progress.is_failure());
    let names: Vec<String> =
        failed.take(5).map(|(node, member)| format!("{node} {}", member.progress.as_str())).collect();
    let more = if failures > names.len() { ", …" } else { "" };
    Some(format!("{failures} of {} nodes failed: {}{more}", campaign.candidates(), names.join(", ")))
}

/// Gives the wave its orders, and its turn to the next one when it is through and soaked.
fn advance(campaign: &mut Campaign, fleet: &Fleet<'_>, now: Millis, step: &mut Step) {
    loop {
        let wave = campaign.head.wave;
        order(campaign, fleet, now, step);
        let turn = campaign.members.values().filter(|member| member.wave == wave);
        let turn: Vec<_> = turn.filter(|m| !matches!(m.progress, Progress::Skipped { .. })).collect();
        let settled = turn
            .iter()
            .all(|member| member.progress.is_over() || holds_up_nobody(member, &campaign.plan, now));
        // A wave of which everybody is away has proved nothing.
        let proved = turn.is_empty() || turn.iter().any(|member| member.progress.is_over());
        // Once it soaks, one that comes back late does not begin it anew.
        if campaign.head.soaking.is_none() && !(settled && proved) {
            return;
        }
        // Also where the waves after it have nobody: there is no one to soak for.
        let follows = |m: &Member| m.wave > wave && !matches!(m.progress, Progress::Skipped { .. });
        if !campaign.members.values().any(follows) {
            if campaign.members.values().all(|member| member.progress.is_over()) {
                campaign.head.state = State::Done;
            }
            return;
        }
        if !turn.is_empty() {
            let since = *campaign.head.soaking.get_or_insert(now);
            if now.0 < since.0 + campaign.plan.waves[wave].soak.0 {
                return;
            }
        }
        campaign.head.soaking = None;
        campaign.head.wave += 1;
    }
}

/// Whether one that has not ended was waited for long enough: it is away, or gets no further.
fn holds_up_nobody(member: &Member, plan: &Plan, now: Millis) -> bool {
    let over = |since: Millis, patience| now.0 >= since.0 + patience;
    // A window opens once a day.
    let windowed = plan.window.is_some() && member.progress == Progress::Node { state: UpdateState::Waiting };
    // `since` is renewed by each word of a node that fetches.
    let stuck =
        member.progress.has_not_begun() && over(member.since, if windowed { ABSENT + DAY } else { ABSENT });
    stuck || member.away.is_some_and(|since| over(since, ABSENT))
}

/// Orders for everybody whose turn it is or was, and who has not got it for all we know.
fn order(campaign: &mut Campaign, fleet: &Fleet<'_>, now: Millis, step: &mut Step) {
    let mut room = FETCHING.saturating_sub(fetching(campaign, fleet, now));
    for (node, member) in &mut campaign.members {
        let pending = member.progress == Progress::Pending;
        if member.wave > campaign.head.wave || !(pending || member.progress.has_not_begun()) {
            continue;
        }
        let seen = fleet.get(node).copied().unwrap_or(Seen { online: false, birth: None });
        if !seen.online {
            // What was sent may have been lost with the connection.
            member.sent = None;
            member.away.get_or_insert(now);
            continue;
        }
        // It may have changed since the plan was made; what was ordered once is left to the node.
        if pending && let Err(unfit) = suits(&campaign.bundle, &campaign.plan, seen.birth) {
            let since = *member.away.get_or_insert(now);
            if !unfit.passing || now.0 >= since.0 + ABSENT {
                (member.progress, member.since) = (Progress::Skipped { reason: unfit.reason }, now);
                step.touched.insert(node.clone());
            }
            continue;
        }
        member.away = None;
        if !(pending || member.progress == Progress::Ordered || member.unsure) {
            // It has the order, and goes on with it by itself.
            continue;
        }
        let due = member.sent.is_none_or(|sent| now.0 >= sent.0 + RESEND);
        if due && step.actions.len() < BATCH && (room > 0 || !pending) {
            if pending {
                room -= 1;
                (member.progress, member.since) = (Progress::Ordered, now);
                step.touched.insert(node.clone());
            }
            member.sent = Some(now);
            step.actions.push(Action::Order { node: node.clone(), order: member.order.clone() });
        }
    }
}

/// Nodes that fetch now, or are about to.
fn fetching(campaign: &Campaign, fleet: &Fleet<'_>, now: Millis) -> usize {
    let fetches = |(node, member): &(&NodeId, &Member)| {
        let online = fleet.get(node).is_some_and(|seen| seen.online);
        let begun = match &member.progress {
            Progress::Ordered => true,
            Progress::Node { state } => matches!(state, UpdateState::Fetching { .. }),
            Progress::Skipped { .. } | Progress::Pending | Progress::Silent | Progress::Recalled => false,
        };
        begun && online && now.0 < member.since.0 + ABSENT
    };
    campaign.members.iter().filter(fetches).count()
}

/// Takes back what has not begun, again and again until the node has heard it.
fn recall(campaign: &mut Campaign, fleet: &Fleet<'_>, now: Millis, step: &mut Step) {
    // A clock that jumped back does not stop it.
    let lately = |at: Millis| now.0.abs_diff(at.0) < SECOND;
    // Those that have confirmed it already count as well.
    let told =
        |m: &&Member| m.sent.is_some_and(lately) || (m.progress == Progress::Recalled && lately(m.since));
    let mut room = BATCH.saturating_sub(campaign.members.values().filter(told).count());
    for (node, member) in &mut campaign.members {
        if room == 0 {
            return;
        }
        let unheard = member.progress == Progress::Recalled && member.unsure;
        if !(unheard || member.progress.has_not_begun()) {
            continue;
        }
        let told = member.progress == Progress::Ordered;
        let online = fleet.get(node).is_some_and(|seen| seen.online);
        if online && member.sent.is_none_or(|sent| now.0 >= sent.0 + RESEND || told) {
            room -= 1;
            step.actions.push(Action::Recall { node: node.clone(), order: member.order.clone() });
            (member.sent, member.unsure) = (Some(now), true);
            if !unheard {
                (member.progress, member.since) = (Progress::Recalled, now);
                step.touched.insert(node.clone());
            }
        }
    }
}
