use headwater_protocol::message::{Birth, Extra};
use headwater_protocol::update::UpdateStatus;
use headwater_protocol::{Code, Fault};

use super::testing::{birth, bundle};
use super::*;
use crate::testing::header;

mod thousand;

const MINUTE: u64 = 60_000;

/// A fleet played by the test, with a clock of its own.
struct Play {
    campaign: Campaign,
    births: BTreeMap<NodeId, Birth>,
    away: Vec<NodeId>,
    now: u64,
    /// For how long the broker is there.
    listening: u64,
    /// Rows for the store so far.
    writes: usize,
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn plan(waves: &str, stop_after: &str) -> Plan {
    let wave = |upto: &str| Wave { upto: upto.parse().unwrap(), soak: Millis(30 * MINUTE) };
    let waves = waves.split(',').map(wave).collect();
    Plan {
        waves,
        stop_after: stop_after.parse().unwrap(),
        window: None,
        allow_downgrade: false,
        health: Millis(10 * MINUTE),
    }
}

impl Play {
    fn new(nodes: usize, plan: Plan) -> Self {
        let names: Vec<String> = (1..=nodes).map(|number| format!("n{number}")).collect();
        let births: BTreeMap<NodeId, Birth> =
            names.iter().map(|name| (node(name), birth(name, "0.1.0"))).collect();
        let id = UpdateId::new("u").unwrap();
        let bundle = bundle("0.2.0");
        let candidates = births.iter().map(|(node, birth)| Candidate {
            node: node.clone(),
            online: true,
            suits: suits(&bundle, &plan, Some(birth)).map_err(|unfit| unfit.reason),
        });
        let members = enlist(&id, &plan, candidates.collect(), Millis(0));
        let head = Head { state: State::Running, wave: 0, soaking: None, forgiven: 0, round: 0 };
        let campaign = Campaign {
            id,
            name: None,
            selector: "all".into(),
            bundle,
            plan,
            created: Millis(0),
            head,
            members,
        };
        Self { campaign, births, away: Vec::new(), now: 0, listening: 1000 * MINUTE, writes: 0 }
    }

    /// What a look sends: `order n1`, `recall n2`.
    fn look(&mut self) -> Vec<String> {
        let online = |node: &NodeId| !self.away.contains(node);
        let fleet: Fleet<'_> = self
            .births
            .iter()
            .map(|(node, birth)| (node, Seen { online: online(node), birth: Some(birth) }))
            .collect();
        let time = Time { now: Millis(self.now), listening: Millis(self.listening) };
        let step = step(&mut self.campaign, &fleet, time);
        self.writes += step.touched.len() + usize::from(step.head);
        let say = |action: &Action| match action {
            Action::Order { node, order } => format!("order {node} {order}"),
            Action::Recall { node, order } => format!("recall {node} {order}"),
        };
        step.actions.iter().map(say).collect()
    }

    fn later(&mut self, minutes: u64) -> Vec<String> {
        self.now += minutes * MINUTE;
        self.look()
    }

    fn wave(&self, wave: usize) -> Vec<NodeId> {
        self.campaign.members.iter().filter(|(_, m)| m.wave == wave).map(|(node, _)| node.clone()).collect()
    }

    fn says(&mut self, node: &NodeId, state: UpdateState) {
        let id = self.campaign.members[node].order.clone();
        let status =
            UpdateStatus { header: header(), id, version: "0.2.0".into(), state, extra: Extra::new() };
        self.writes += usize::from(self.campaign.reported(node, &status, Millis(self.now)));
    }

    fn all_say(&mut self, wave: usize, state: &UpdateState) {
        for node in self.wave(wave) {
            self.says(&node, state.clone());
        }
    }
}

fn rolled_back() -> UpdateState {
    UpdateState::RolledBack { fault: Fault::new(Code::Unhealthy, "the probe did not pass") }
}

#[test]
fn three_waves_follow_each_other_and_each_soaks() {
    let mut play = Play::new(20, plan("5%,25%,100%", "1"));
    assert_eq!([0, 1, 2].map(|wave| play.wave(wave).len()), [1, 4, 15]);
    assert_eq!(play.look().len(), 1);
    assert!(play.look().is_empty(), "the same order twice");
    play.all_say(0, &UpdateState::Verifying);
    assert!(play.later(5).is_empty());
    play.all_say(0, &UpdateState::Done);
    assert!(play.look().is_empty() && play.later(29).is_empty(), "it has not soaked");
    assert_eq!(play.later(1).len(), 4);
    play.all_say(1, &UpdateState::Done);
    play.look();
    assert_eq!(play.later(30).len(), 15);
    play.all_say(2, &UpdateState::Done);
    play.look();
    assert_eq!(play.campaign.head.state, State::Done, "nothing soaks after the last wave");
}

#[test]
fn other_updates_begin_with_other_nodes_and_those_that_are_away_come_last() {
    let plan = plan("1,100%", "1");
    let first = |id: &str, away: &[&str]| {
        let candidates = (1..=40).map(|number| {
            let name = format!("n{number}");
            Candidate { online: !away.contains(&name.as_str()), node: node(&name), suits: Ok(()) }
        });
        let members = enlist(&UpdateId::new(id).unwrap(), &plan, candidates.collect(), Millis(0));
        let mut firsts = members.into_iter().filter(|(_, member)| member.wave == 0);
        firsts.next().unwrap().0
    };
    assert_eq!(first("u1", &[]), first("u1", &[]));
    let begins: std::collections::BTreeSet<_> =
        ["u1", "u2", "u3", "u4", "u5"].map(|id| first(id, &[])).into();
    assert!(begins.len() > 1, "{begins:?}");
    assert_ne!(first("u1", &[first("u1", &[]).as_str()]), first("u1", &[]));
}

#[test]
fn a_failure_in_the_first_wave_stops_it_and_recalls_what_has_not_begun() {
    let mut play = Play::new(4, plan("3,100%", "1"));
    play.look();
    let wave = play.wave(0);
    play.says(&wave[0], rolled_back());
    play.says(&wave[1], UpdateState::Fetching { bytes: 1 });
    play.says(&wave[2], UpdateState::Installing { percent: 5 });
    assert_eq!(play.look(), [format!("recall {} u", wave[1])]);
    let State::Stopped { reason } = &play.campaign.head.state else { panic!("it goes on") };
    assert_eq!(*reason, format!("1 of 4 nodes failed: {} rolled back", wave[0]));
    play.says(&wave[1], UpdateState::Fetching { bytes: 2 });
    assert!(play.look().is_empty(), "a recall for each word");
    assert_eq!(play.later(1).len(), 1, "the recall was lost");
    let fault = Fault::new(Code::Revoked, "given up");
    play.says(&wave[1], UpdateState::Failed { fault });
    assert_eq!(play.campaign.members[&wave[1]].progress, Progress::Recalled);
    play.says(&wave[2], UpdateState::Done);
    assert!(play.later(60).is_empty());
    assert_eq!(play.campaign.failures(), 1, "a recall is no failure");

    play.campaign.resume().unwrap();
    assert_eq!(
        play.look(),
        [format!("order {} u-2", wave[1])],
        "an id of its own: the node gave up the first"
    );
    play.says(&wave[1], rolled_back());
    play.look();
    assert!(matches!(play.campaign.head.state, State::Stopped { .. }), "one more failure after the resume");
}

#[test]
fn a_node_that_is_busy_is_asked_again_and_one_that_missed_its_recall_goes_on() {
    let mut play = Play::new(2, plan("100%", "1"));
    play.look();
    let (first, other) = (node("n1"), node("n2"));
    let busy = Fault::new(Code::Busy, "another update is not over");
    assert!(!play.campaign.refused(&first, &UpdateId::new("u").unwrap(), busy, Millis(0)));
    assert_eq!(play.later(1).len(), 2);
    play.says(&first, UpdateState::Waiting);
    play.says(&other, rolled_back());
    assert_eq!(play.look(), ["recall n1 u"]);
    play.campaign.resume().unwrap();
    assert_eq!(play.look(), ["order n1 u-2"]);
    // Neither the recall nor the new order arrived.
    let id = UpdateId::new("u").unwrap();
    let done = UpdateStatus {
        header: header(),
        id,
        version: "0.2.0".into(),
        state: UpdateState::Done,
        extra: Extra::new(),
    };
    assert!(play.campaign.reported(&first, &done, Millis(play.now)));
    play.look();
    assert_eq!(play.campaign.head.state, State::Done);
}

#[test]
fn failures_below_the_limit_are_borne() {
    let mut play = Play::new(10, plan("5,100%", "20%"));
    play.look();
    let wave = play.wave(0);
    play.all_say(0, &UpdateState::Done);
    play.says(&wave[0], rolled_back());
    play.look();
    assert_eq!(play.later(30).len(), 5);
    let fault = Fault::new(Code::Unsupported, "no room");
    let last = play.wave(1);
    assert!(play.campaign.refused(&last[0], &UpdateId::new("u").unwrap(), fault, Millis(play.now)));
    play.look();
    assert!(matches!(play.campaign.head.state, State::Stopped { .. }), "2 of 10 are 20%");
}

#[test]
fn while_it_is_paused_nothing_is_ordered() {
    let mut play = Play::new(2, plan("1,100%", "1"));
    play.look();
    play.campaign.pause().unwrap();
    assert!(play.campaign.pause().is_err());
    let mut failing = Play::new(3, plan("2,100%", "1"));
    failing.look();
    failing.campaign.pause().unwrap();
    failing.all_say(0, &rolled_back());
    failing.look();
    assert!(matches!(failing.campaign.head.state, State::Stopped { .. }), "failures count all the same");
    play.all_say(0, &UpdateState::Done);
    assert!(play.later(100).is_empty());
    play.campaign.resume().unwrap();
    assert!(play.look().is_empty());
    assert_eq!(play.later(30).len(), 1);
    play.campaign.cancel().unwrap();
    assert_eq!(play.look().len(), 1, "what was ordered is recalled");
    assert!(play.campaign.resume().is_err() && play.campaign.cancel().is_err());
    play.all_say(1, &UpdateState::Done);
    assert!(
        play.campaign.members.values().all(|member| member.progress.is_done()),
        "it was too late; that is said"
    );
}

#[test]
fn an_order_is_sent_again_until_the_node_shows_it() {
    let mut play = Play::new(1, plan("100%", "1"));
    assert_eq!(play.look(), ["order n1 u"]);
    assert!(play.look().is_empty());
    assert_eq!(play.later(1), ["order n1 u"]);
    play.campaign.returned(&node("n1"));
    assert_eq!(play.look(), ["order n1 u"], "it has connected anew");
    play.says(&node("n1"), UpdateState::Fetching { bytes: 0 });
    assert!(play.later(60).is_empty());
}

#[test]
fn a_board_that_comes_back_without_its_state_gets_its_order_again() {
    for state in [UpdateState::Fetching { bytes: 7 }, UpdateState::Waiting] {
        let mut play = Play::new(1, plan("100%", "1"));
        play.look();
        play.says(&node("n1"), state.clone());
        play.campaign.returned(&node("n1"));
        assert_eq!(play.look(), ["order n1 u"], "a new disk, perhaps");
        assert!(play.look().is_empty());
        assert_eq!(play.later(1), ["order n1 u"], "until it says that it has it");
        play.says(&node("n1"), state);
        assert!(play.later(60).is_empty());
    }
    let mut play = Play::new(1, plan("100%", "1"));
    play.look();
    play.says(&node("n1"), UpdateState::Installing { percent: 1 });
    play.campaign.returned(&node("n1"));
    assert!(play.look().is_empty(), "what has begun is not ordered again");
}

#[test]
fn a_node_whose_helper_is_late_after_a_boot_is_waited_for() {
    let mut play = Play::new(2, plan("1,100%", "1"));
    let first = play.wave(0).remove(0);
    let privileged = |play: &mut Play, is| {
        play.births.get_mut(&first).unwrap().installation.as_mut().unwrap().privileged = is;
    };
    privileged(&mut play, false);
    assert!(play.look().is_empty() && play.later(1).is_empty());
    privileged(&mut play, true);
    assert_eq!(play.look(), [format!("order {first} u")]);
    // One that never answers is left out, and says why.
    let mut play = Play::new(2, plan("1,100%", "1"));
    privileged(&mut play, false);
    assert!(play.look().is_empty() && play.later(9).is_empty());
    play.later(1);
    let Progress::Skipped { reason } = &play.campaign.members[&first].progress else {
        panic!("it is waited for")
    };
    assert!(reason.contains("headwater-system.socket"), "{reason}");
}

#[test]
fn a_node_that_is_away_is_waited_for_and_not_counted_as_a_failure() {
    let mut play = Play::new(3, plan("2,100%", "1"));
    let wave = play.wave(0);
    play.away = vec![wave[1].clone()];
    assert_eq!(play.look(), [format!("order {} u", wave[0])]);
    play.says(&wave[0], UpdateState::Done);
    assert!(play.later(9).is_empty());
    play.later(1);
    assert!(play.campaign.head.soaking.is_some(), "after a while the others go on");
    assert_eq!(play.later(30).len(), 1);
    play.all_say(1, &UpdateState::Done);
    play.later(60);
    assert_eq!(play.campaign.head.state, State::Running, "it waits for the one that is away");
    play.away.clear();
    assert_eq!(play.look(), [format!("order {} u", wave[1])]);
    play.says(&wave[1], UpdateState::Done);
    play.look();
    assert_eq!(play.campaign.head.state, State::Done);
}

#[test]
fn a_node_that_goes_away_before_it_changed_anything_holds_up_nobody() {
    for state in [UpdateState::Fetching { bytes: 7 }, UpdateState::Waiting] {
        let mut play = Play::new(3, plan("2,100%", "1"));
        let wave = play.wave(0);
        play.look();
        play.says(&wave[0], UpdateState::Done);
        play.says(&wave[1], state);
        play.away = vec![wave[1].clone()];
        play.look();
        assert!(play.later(9).is_empty());
        assert!(play.campaign.head.soaking.is_none());
        play.later(1);
        assert!(play.campaign.head.soaking.is_some(), "after a while the others go on");
        assert_eq!(play.later(30).len(), 1);
        play.away.clear();
        play.says(&wave[1], UpdateState::Done);
        play.all_say(1, &UpdateState::Done);
        play.look();
        assert_eq!(play.campaign.head.state, State::Done);
    }
}

#[test]
fn a_wave_of_which_everybody_is_away_proves_nothing() {
    let mut play = Play::new(2, plan("1,100%", "1"));
    play.away = play.wave(0);
    assert!(play.look().is_empty() && play.later(1000).is_empty());
    assert_eq!(play.campaign.head.wave, 0);
}

#[test]
fn a_node_that_is_silent_after_it_began_counts_as_a_failure_until_it_speaks() {
    let mut play = Play::new(2, plan("1,100%", "1"));
    play.look();
    let first = play.wave(0).remove(0);
    play.says(&first, UpdateState::Restarting);
    play.away = vec![first.clone()];
    play.later(24);
    assert_eq!(play.campaign.head.state, State::Running);
    play.later(1);
    assert!(matches!(play.campaign.head.state, State::Stopped { .. }));
    play.says(&first, UpdateState::Done);
    assert_eq!(play.campaign.failures(), 0);
    // What turned out well is forgiven nothing: the next failure counts.
    play.campaign.resume().unwrap();
    play.later(30);
    play.all_say(1, &rolled_back());
    play.look();
    assert!(matches!(play.campaign.head.state, State::Stopped { .. }));
}

#[test]
fn who_could_not_be_heard_is_neither_silent_nor_away() {
    let mut play = Play::new(4, plan("3,100%", "1"));
    play.look();
    let wave = play.wave(0);
    play.says(&wave[0], UpdateState::Done);
    play.says(&wave[1], UpdateState::Restarting);
    play.says(&wave[2], UpdateState::Fetching { bytes: 7 });
    // The gateway, or its broker, was down for two hours.
    (play.listening, play.away) = (0, wave.clone());
    assert!(play.look().is_empty() && play.later(120).is_empty());
    assert_eq!((play.campaign.failures(), play.campaign.head.soaking), (0, None));
    play.listening = 1;
    assert!(play.look().is_empty());
    assert_eq!((play.campaign.failures(), play.campaign.head.soaking), (0, None));
    play.listening = 24 * MINUTE;
    play.later(24);
    assert_eq!(play.campaign.failures(), 0);
    play.listening = 25 * MINUTE;
    play.later(1);
    assert_eq!(play.campaign.failures(), 1, "it had the time to say a word");
}

#[test]
fn nodes_that_are_there_and_get_no_further_hold_up_nobody() {
    let stuck = [
        (None, None, 10),
        (Some(UpdateState::Fetching { bytes: 0 }), None, 10),
        (Some(UpdateState::Waiting), None, 10),
        // Its window may be open once a day.
        (
            Some(UpdateState::Waiting),
            Some(headwater_protocol::update::Window { from: 0, until: 60 }),
            24 * 60 + 10,
        ),
    ];
    for (state, window, minutes) in stuck {
        let mut play = Play::new(3, Plan { window, ..plan("2,100%", "1") });
        let wave = play.wave(0);
        play.look();
        play.says(&wave[0], UpdateState::Done);
        if let Some(state) = state {
            play.says(&wave[1], state);
        }
        play.later(minutes - 1);
        assert_eq!(play.campaign.head.soaking, None);
        play.later(1);
        assert!(play.campaign.head.soaking.is_some(), "after a while the others go on");
        // Its connection comes and goes: the soak is not begun anew for it.
        play.campaign.returned(&wave[1]);
        play.later(29);
        assert_eq!(play.campaign.head.wave, 0);
        play.later(1);
        assert_eq!(play.campaign.head.wave, 1);
    }
}

#[test]
fn a_recall_is_sent_again_until_it_is_answered() {
    let mut play = Play::new(2, plan("100%", "1"));
    play.look();
    let (silent, waits) = (node("n1"), node("n2"));
    play.says(&waits, UpdateState::Waiting);
    play.campaign.cancel().unwrap();
    assert_eq!(play.look(), ["recall n1 u", "recall n2 u"]);
    assert!(play.look().is_empty());
    assert_eq!(play.later(1), ["recall n1 u", "recall n2 u"], "they were lost in a queue");
    // One never got its order, and answers; the other gives it up.
    play.campaign.recall_heard(&silent, &UpdateId::new("u").unwrap());
    play.says(&waits, UpdateState::Failed { fault: Fault::new(Code::Revoked, "given up") });
    assert!(play.later(1).is_empty());
    play.campaign.returned(&waits);
    assert!(play.later(1).is_empty());
}

#[test]
fn a_life_that_begins_in_the_middle_goes_on_where_the_last_one_was() {
    let mut play = Play::new(2, plan("1,100%", "1"));
    play.look();
    play.all_say(0, &UpdateState::Done);
    play.look();
    // Through the store's form; what was only in memory is gone.
    let stored = serde_json::to_string(&play.campaign).unwrap();
    let rows: Vec<(NodeId, String)> = play
        .campaign
        .members
        .iter()
        .map(|(node, member)| (node.clone(), serde_json::to_string(member).unwrap()))
        .collect();
    play.campaign = serde_json::from_str(&stored).unwrap();
    assert!(play.campaign.members.is_empty());
    play.campaign.members =
        rows.into_iter().map(|(node, row)| (node, serde_json::from_str(&row).unwrap())).collect();
    play.away = play.births.keys().cloned().collect();
    assert!(play.later(29).is_empty());
    play.away.clear();
    assert_eq!(play.later(1).len(), 1, "the soak counts from when it began");
}

#[test]
fn an_update_of_one_node_ends_with_it_and_soaks_for_nobody() {
    let mut play = Play::new(1, plan("5%,25%,100%", "1"));
    assert_eq!(play.look().len(), 1);
    play.all_say(0, &UpdateState::Done);
    play.look();
    assert_eq!(play.campaign.head.state, State::Done);
}

#[test]
fn nodes_that_cannot_take_the_bundle_are_skipped_with_the_reason() {
    let bundle = bundle("0.2.0");
    let why = |change: fn(&mut headwater_protocol::update::Installation)| {
        let mut birth = birth("a", "0.1.0");
        change(birth.installation.as_mut().unwrap());
        suits(&bundle, &plan("100%", "1"), Some(&birth)).unwrap_err().reason
    };
    use headwater_protocol::update::BundleKind;
    assert_eq!(
        why(|i| i.updates_by = Some(BundleKind::Deb)),
        "it is updated by packages, the bundle is an image"
    );
    let by_hand = |i: &mut headwater_protocol::update::Installation| {
        (i.updates_by, i.slot) = (None, None);
    };
    assert!(why(by_hand).contains("copied there by hand"));
    assert!(why(|i| i.updates_by = None).contains("RAUC, which updates it, did not answer"));
    assert!(
        why(|i| (i.updates_by, i.slot, i.privileged) = (None, None, false))
            .contains("headwater-system.socket"),
        "without its helper nothing is known of how it was installed"
    );
    assert_eq!(why(|i| i.compatible = "y".into()), "it is \"y\", the bundle is for \"board-x\"");
    assert_eq!(why(|i| i.version = "0.2.0".into()), "it runs 0.2.0 already");
    assert!(why(|i| i.version = "0.10.0".into()).contains("it runs 0.10.0, which is newer"));
    let allowed = Plan { allow_downgrade: true, ..plan("100%", "1") };
    assert_eq!(suits(&bundle, &allowed, Some(&birth("a", "0.10.0"))), Ok(()));
    assert_eq!(
        suits(&bundle, &plan("100%", "1"), Some(&birth("a", ""))),
        Ok(()),
        "it does not say what it runs"
    );
    assert!(suits(&bundle, &plan("100%", "1"), None).is_err());
    // What became so while it waited for its turn is seen at its turn.
    let mut play = Play::new(1, plan("100%", "1"));
    let installation = play.births.get_mut(&node("n1")).unwrap().installation.as_mut().unwrap();
    installation.version = "0.2.0".into();
    assert!(play.look().is_empty());
    play.look();
    assert_eq!(play.campaign.head.state, State::Done);
}

#[test]
fn what_strangers_and_old_orders_say_changes_nothing() {
    let mut play = Play::new(1, plan("100%", "1"));
    play.look();
    let before = play.campaign.clone();
    let say = |id: &str| UpdateStatus {
        header: header(),
        id: UpdateId::new(id).unwrap(),
        version: "0.2.0".into(),
        state: UpdateState::Done,
        extra: Extra::new(),
    };
    assert!(!play.campaign.reported(&node("stranger"), &say("u"), Millis(1)));
    assert!(!play.campaign.reported(&node("n1"), &say("another"), Millis(1)));
    assert!(!play.campaign.reported(&node("n1"), &say("u2"), Millis(1)));
    assert_eq!(play.campaign, before);
}

#[test]
fn a_plan_that_would_leave_nodes_out_is_refused() {
    assert_eq!(check(&plan("5%,25%,100%", "1")), Ok(()));
    assert_eq!(check(&plan("3,100%", "2%")), Ok(()));
    assert!(matches!(check(&plan("5%,50%", "1")), Err(BadPlan::Last(_))));
    assert_eq!(check(&plan("50%,25%,100%", "1")), Err(BadPlan::Order(2)));
    let mut short = plan("100%", "1");
    short.health = Millis(1);
    assert_eq!(check(&short), Err(BadPlan::Health));
    for bad in ["0", "0%", "101%", "x", "", "-1"] {
        assert!(bad.parse::<Share>().is_err(), "{bad:?} was taken");
    }
}
