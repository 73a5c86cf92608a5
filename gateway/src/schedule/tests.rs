//! The state machine without a clock, a broker or a store.

use headwater_protocol::message::{Event, EventKind, EventNumber, Extra, Limits, Status};
use headwater_protocol::{Container, InputFacts, Pixels, RenditionReport, SegmentReport};

use super::*;
use crate::store::Remembered;
use crate::testing::header;

struct World {
    core: Core,
    now: u64,
    sent: u64,
}

const ABSENT_MS: u64 = 10_000;

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn task() -> TaskId {
    TaskId::new("t").unwrap()
}

fn ladder() -> Ladder {
    let profile = headwater_protocol::livepeer::preset("P240p30fps16x9").unwrap();
    headwater_protocol::livepeer::ladder(&[profile], Container::Ts).unwrap()
}

impl World {
    fn new(nodes: &[&str]) -> Self {
        let policy = Policy {
            fleet: FleetId::new("f").unwrap(),
            attempts: 3,
            accept_ms: 3_000,
            progress_ms: 10_000,
            runtime_factor: 10,
            runtime_min_ms: 20_000,
            deadline_ms: 120_000,
            absent_ms: ABSENT_MS,
            streams: 2,
            in_flight_per_stream: 2,
            waiting: 10,
        };
        let mut world = Self {
            core: Core::new(policy, Remembered { next_run: 1, ..Remembered::default() }),
            now: 0,
            sent: 0,
        };
        for name in nodes {
            world.core.birth(&node(name), birth(name), world.at());
            world.status(name, NodeState::Online);
        }
        world.core.take_actions();
        world
    }

    fn at(&self) -> Now {
        Now { mono: self.now, unix: self.now }
    }

    fn status(&mut self, name: &str, state: NodeState) -> Vec<Action> {
        let status = Status { header: header(), state, extra: Extra::new() };
        self.core.status(&node(name), &status, self.at());
        self.core.take_actions()
    }

    fn submit(&mut self) -> Vec<Action> {
        self.submit_as(task(), 0)
    }

    fn submit_as(&mut self, task: TaskId, segment: u64) -> Vec<Action> {
        self.submit_with(task, segment, "")
    }

    fn submit_with(&mut self, task: TaskId, segment: u64, sha256: &str) -> Vec<Action> {
        let submission = Submission {
            task,
            stream: StreamId::new("s").unwrap(),
            segment,
            container: Container::Ts,
            bytes: 10,
            sha256: sha256.to_owned(),
            duration: Millis(2000),
            resolution: None,
            wanted: Ok(Some(ladder())),
        };
        self.core.submit(submission, self.at());
        self.core.take_actions()
    }

    fn say(&mut self, name: &str, n: u64, epoch: u32, event: EventKind, puts: &Puts) -> Vec<Action> {
        self.say_of(task(), name, n, epoch, event, puts)
    }

    fn say_of(
        &mut self,
        task: TaskId,
        name: &str,
        n: u64,
        epoch: u32,
        event: EventKind,
        puts: &Puts,
    ) -> Vec<Action> {
        let event = Event {
            header: header(),
            number: Some(EventNumber { outbox: name.into(), n }),
            task,
            epoch: Epoch(epoch),
            event,
            extra: Extra::new(),
        };
        self.sent += 1;
        self.core.event(&node(name), event, puts, self.at());
        self.core.take_actions()
    }

    fn done(&mut self, name: &str, n: u64, epoch: u32) -> Vec<Action> {
        self.done_of(task(), name, n, epoch)
    }

    fn done_of(&mut self, task: TaskId, name: &str, n: u64, epoch: u32) -> Vec<Action> {
        let puts = HashMap::from([(ladder().renditions()[0].name.clone(), 5)]);
        self.say_of(task, name, n, epoch, EventKind::Done { report: Box::new(report()) }, &puts)
    }

    fn failed(&mut self, name: &str, n: u64, epoch: u32, code: Code) -> Vec<Action> {
        self.say(name, n, epoch, EventKind::Failed { fault: Fault::new(code, "x") }, &Puts::new())
    }

    fn wait(&mut self, ms: u64) -> Vec<Action> {
        self.now += ms;
        self.core.tick(self.at());
        self.core.take_actions()
    }
}

use headwater_protocol::Code;

fn birth(name: &str) -> Birth {
    let limits = Limits { workers: 1, in_flight: 2, queue: 1, max_input_bytes: 100 };
    Birth { limits, ..crate::testing::birth(name) }
}

fn report() -> SegmentReport {
    let made = RenditionReport {
        name: ladder().renditions()[0].name.clone(),
        container: Container::Ts,
        bytes: 5,
        width: Pixels(426),
        height: Pixels(240),
        frames: 1,
        keyframes: 1,
        pixels: 1,
        first_pts: 0,
        duration: Millis(1),
        copied: false,
    };
    SegmentReport {
        input: InputFacts {
            container: Container::Ts,
            bytes: 10,
            video: None,
            audio_streams: 0,
            duration: Millis(1),
            errors: 0,
        },
        renditions: vec![made],
        wall_us: 1,
        cpu_us: 1,
        warm: false,
    }
}

/// `node/epoch` of the offer among these actions.
fn offered(actions: &[Action]) -> Option<String> {
    actions.iter().find_map(|action| match action {
        Action::Offer { node, offer } => Some(format!("{node}/{}", offer.epoch)),
        _ => None,
    })
}

fn answer(actions: &[Action]) -> Option<&Outcome> {
    let answers: Vec<&Outcome> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Answer { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect();
    assert!(answers.len() <= 1, "a task has one answer");
    answers.first().copied()
}

fn acked(actions: &[Action]) -> Option<u64> {
    actions.iter().find_map(|action| match action {
        Action::Ack { number, .. } => Some(number.n),
        _ => None,
    })
}

#[test]
fn an_offer_that_nobody_accepts_goes_to_another_node() {
    let mut world = World::new(&["a", "b"]);
    assert_eq!(offered(&world.submit()).as_deref(), Some("a/1"));
    assert_eq!(offered(&world.wait(2_999)), None);
    assert_eq!(offered(&world.wait(1)).as_deref(), Some("b/2"));
}

#[test]
fn a_late_result_wins_while_there_is_no_winner_and_only_then() {
    let mut world = World::new(&["a", "b"]);
    world.submit();
    world.wait(3_000);
    let actions = world.done("a", 1, 1);
    assert!(matches!(answer(&actions), Some(Outcome::Done(won)) if won.epoch == Epoch(1)));
    let revoked = |action: &Action| matches!(action, Action::Revoke { node: n, .. } if *n == node("b"));
    assert!(actions.iter().any(revoked), "b still works on it");
    let second = world.done("b", 1, 2);
    assert!(answer(&second).is_none());
    assert_eq!(acked(&second), Some(1), "it is acknowledged all the same");
}

#[test]
fn a_stream_has_two_segments_with_its_node_at_once_and_each_is_answered_when_it_is_done() {
    let mut world = World::new(&["a", "b"]);
    let id = |name: &str| TaskId::new(name).unwrap();
    assert_eq!(offered(&world.submit_as(id("t0"), 0)).as_deref(), Some("a/1"));
    assert_eq!(offered(&world.submit_as(id("t1"), 1)).as_deref(), Some("a/1"), "its own node, at once");
    let answered = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Answer { task, outcome: Outcome::Done(_) } => Some(task.to_string()),
            _ => None,
        })
    };
    assert_eq!(answered(&world.done_of(id("t1"), "a", 1, 1)).as_deref(), Some("t1"), "not held back");
    assert_eq!(answered(&world.done_of(id("t0"), "a", 2, 1)).as_deref(), Some("t0"));
}

#[test]
fn an_encoder_that_counts_from_its_beginning_again_begins_the_stream_anew() {
    let mut world = World::new(&["a"]);
    let begins = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::Write(Write::StreamOpened(_))))
    };
    let id = |number: u64| TaskId::new(format!("t{number}")).unwrap();
    let mut pushed = 0;
    let mut push = |world: &mut World, segment, sha256: &str| {
        pushed += 1;
        let actions = world.submit_with(id(pushed), segment, sha256);
        let n = pushed;
        assert!(matches!(answer(&world.done_of(id(n), "a", n, 1)), Some(Outcome::Done(_))));
        begins(&actions)
    };
    let (one, other) = ("1".repeat(64), "2".repeat(64));
    assert!(push(&mut world, 20, &one), "the stream begins");
    assert!(!push(&mut world, 12, &one), "out of order");
    assert!(!push(&mut world, 19, &other));
    assert!(!push(&mut world, 19, &one), "a second encoder beside the first");
    assert!(!push(&mut world, 12, &one), "the same again is a retry");
    assert!(push(&mut world, 12, &other), "other content is not");
    assert!(!push(&mut world, 20, &other), "the run before does not count");
    assert!(push(&mut world, 0, &one), "before all that is known");
    let numbers = 1..=DoneNumbers::MOST as u64 + DoneNumbers::SLACK;
    assert!(numbers.into_iter().all(|number| !push(&mut world, number, &one)));
    assert!(push(&mut world, 0, &one), "what is forgotten is old");
}

#[test]
fn events_count_once_and_in_order() {
    let mut world = World::new(&["a"]);
    world.submit();
    assert_eq!(
        acked(&world.say("a", 5, 1, EventKind::Accepted, &Puts::new())),
        Some(5),
        "an outbox we join late"
    );
    let ahead = world.done("a", 7, 1);
    assert_eq!((acked(&ahead), answer(&ahead).is_some()), (Some(5), false), "6 is missing");
    let again = world.say("a", 5, 1, EventKind::Accepted, &Puts::new());
    assert_eq!(acked(&again), Some(5));
    assert!(answer(&world.done("a", 6, 1)).is_some());
}

#[test]
fn another_nodes_event_moves_nothing() {
    let mut world = World::new(&["a", "b"]);
    world.submit();
    assert!(answer(&world.done("b", 1, 1)).is_none());
    assert!(answer(&world.done("a", 1, 1)).is_some());
}

#[test]
fn faults_mean_what_their_class_says() {
    let mut world = World::new(&["a", "b"]);
    world.submit();
    let actions = world.failed("a", 1, 1, Code::NoVideo);
    assert_eq!(offered(&actions).as_deref(), Some("b/2"));
    let blamed =
        |actions: &[Action]| actions.iter().any(|a| matches!(a, Action::Write(Write::Counts { .. })));
    assert!(!blamed(&actions), "the input's fault is not the node's");
    assert!(matches!(answer(&world.failed("b", 1, 2, Code::NoKeyframe)), Some(Outcome::Input(_))));

    let mut world = World::new(&["a"]);
    world.submit();
    assert!(
        matches!(answer(&world.failed("a", 1, 1, Code::NoVideo)), Some(Outcome::Input(_))),
        "nobody else to ask"
    );

    let mut world = World::new(&["a"]);
    world.submit();
    let actions = world.failed("a", 1, 1, Code::NoDecoder);
    assert!(matches!(answer(&actions), Some(Outcome::NoSession)));

    let mut world = World::new(&["a"]);
    world.submit();
    assert_eq!(offered(&world.failed("a", 1, 1, Code::WorkerCrashed)), None, "a broken node rests");
    assert_eq!(offered(&world.wait(500)).as_deref(), Some("a/2"));
    world.failed("a", 2, 2, Code::WorkerCrashed);
    assert_eq!(offered(&world.wait(1_000)).as_deref(), Some("a/3"));
    assert!(matches!(answer(&world.failed("a", 3, 3, Code::WorkerCrashed)), Some(Outcome::Exhausted(_))));
}

#[test]
fn a_node_that_goes_away_is_waited_for_a_while() {
    let mut world = World::new(&["a"]);
    world.submit();
    assert!(answer(&world.status("a", NodeState::Offline)).is_none());
    assert_eq!(offered(&world.wait(5_000)), None);
    assert_eq!(offered(&world.status("a", NodeState::Online)).as_deref(), Some("a/2"));
    world.status("a", NodeState::Offline);
    assert!(matches!(answer(&world.wait(ABSENT_MS)), Some(Outcome::NoSession)));
}

#[test]
fn a_result_that_is_not_in_the_store_is_a_fault_of_the_node() {
    let mut world = World::new(&["a", "b"]);
    world.submit();
    let lie = EventKind::Done { report: Box::new(report()) };
    assert_eq!(offered(&world.say("a", 1, 1, lie, &Puts::new())).as_deref(), Some("b/2"));
}

#[test]
fn every_task_is_answered_by_its_deadline() {
    let mut world = World::new(&["a"]);
    world.submit();
    let mut answers = 0;
    for _ in 0..1_300 {
        answers += usize::from(answer(&world.wait(100)).is_some());
    }
    assert_eq!(answers, 1);
}

#[test]
fn while_the_broker_is_away_a_segment_waits_for_the_nodes_that_were_there() {
    let mut world = World::new(&["a"]);
    world.core.broker_down();
    world.submit();
    assert!(answer(&world.wait(5_000)).is_none());
    world.core.broker_up(world.at());
    assert_eq!(offered(&world.status("a", NodeState::Online)).as_deref(), Some("a/1"));

    let mut world = World::new(&["a"]);
    world.core.broker_down();
    world.submit();
    assert!(matches!(answer(&world.wait(ABSENT_MS)), Some(Outcome::NoSession)), "but not for ever");
    world.core.broker_up(world.at());
    world.wait(RETURN_MS);
    assert!(matches!(answer(&world.submit()), Some(Outcome::NoSession)), "it did not come back");
}

#[test]
fn a_segment_that_kills_workers_on_two_nodes_is_not_tried_on_a_third_and_rests_nobody() {
    let mut world = World::new(&["a", "b", "c"]);
    world.submit();
    assert_eq!(offered(&world.failed("a", 1, 1, Code::WorkerCrashed)).as_deref(), Some("b/2"));
    let actions = world.failed("b", 1, 2, Code::WorkerHung);
    let Some(Outcome::Exhausted(fault)) = answer(&actions) else { panic!("{actions:?}") };
    assert!(fault.text.contains("killed workers of two nodes"), "{fault}");
    let views = world.core.node_views(world.at());
    assert!(views.iter().all(|view| view.resting_until.is_none()));
    assert_eq!(offered(&world.submit()).as_deref(), Some("a/1"), "the next one is welcome");
}

#[test]
fn a_node_of_an_earlier_life_is_known_offline_and_seen_when_it_was() {
    let mut world = World::new(&[]);
    let births = [(node("a"), (500, birth("a")))].into();
    world.core = Core::new(world.core.policy.clone(), Remembered { births, ..Remembered::default() });
    world.now = 10_000;
    let view = |world: &World| world.core.node_views(world.at()).remove(0);
    assert_eq!((view(&world).state, view(&world).last_seen), (NodeState::Offline, Millis(500)));
    assert!(view(&world).birth.is_some());
    // The broker has kept its birth and its last will: neither is a sign of life.
    world.core.birth(&node("a"), birth("a"), world.at());
    world.status("a", NodeState::Offline);
    assert_eq!((view(&world).state, view(&world).last_seen), (NodeState::Offline, Millis(500)));
    world.now = 20_000;
    let stored = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Write(Write::Seen { at, .. }) => Some(*at),
            _ => None,
        })
    };
    assert_eq!(stored(&world.status("a", NodeState::Online)), Some(20_000));
    world.wait(SEEN_MS);
    world.core.node_views(world.at());
    assert_eq!(stored(&world.status("a", NodeState::Offline)), Some(world.now), "the end of its connection");
    assert_eq!(stored(&world.wait(2 * SEEN_MS)), None, "nothing new of a node that is away");
}

#[test]
fn for_an_update_a_node_that_has_booted_is_away_until_it_says_what_it_is_now() {
    let mut world = World::new(&["a"]);
    let seen = |world: &World| world.core.fleet()[&node("a")].seen().online;
    assert!(seen(&world));
    let boot = |boot: &str| Header { boot_id: boot.into(), ..header() };
    let online = Status { header: boot("next"), state: NodeState::Online, extra: Extra::new() };
    world.core.status(&node("a"), &online, world.at());
    assert!(world.core.fleet()[&node("a")].is_there() && !seen(&world));
    world.core.birth(&node("a"), Birth { header: boot("next"), ..birth("a") }, world.at());
    assert!(seen(&world));
}
