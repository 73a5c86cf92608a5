use super::*;
use crate::admission::tests::{LIMITS, h264, offer};
use headwater_protocol::{Container, InputFacts, SegmentReport};

const SECOND: Duration = Duration::from_secs(1);

fn node() -> Node {
    let mut node = Node::new(LIMITS, 30 * SECOND, []);
    node.handle(Instant::now(), Event::Capabilities(vec![h264()]));
    node
}

fn offered(task: &str, stream: &str) -> Event {
    let clock = (Millis(1_000_000), TimeSource::Ntp);
    Event::Offer { offer: Box::new(offer(task, stream)), clock, standing: Standing::default() }
}

fn id(task: &str) -> AttemptId {
    AttemptId { task: TaskId::new(task).unwrap(), epoch: Epoch(1) }
}

fn report() -> Box<SegmentReport> {
    let input = InputFacts {
        container: Container::Ts,
        bytes: 1,
        video: None,
        audio_streams: 0,
        duration: Millis(1),
        errors: 0,
    };
    Box::new(SegmentReport { input, renditions: vec![], wall_us: 1, cpu_us: 1, warm: false })
}

fn ended(lane: u64, task: &str, result: Result<Box<SegmentReport>, Fault>) -> Event {
    Event::Lane(Report::Ended { lane: LaneId(lane), attempt: id(task), result, memory: 5 })
}

fn ends(actions: &[Action]) -> Vec<(String, Option<Code>)> {
    let end = |action: &Action| match action {
        Action::Record(id, EventKind::Done { .. }) => Some((id.task.to_string(), None)),
        Action::Record(id, EventKind::Failed { fault } | EventKind::Refused { fault }) => {
            Some((id.task.to_string(), Some(fault.code)))
        }
        _ => None,
    };
    actions.iter().filter_map(end).collect()
}

fn failed(task: &str, code: Code) -> Vec<(String, Option<Code>)> {
    vec![(task.to_owned(), Some(code))]
}

#[test]
fn an_offer_opens_a_lane_and_its_report_ends_the_attempt_once() {
    let (mut node, now) = (node(), Instant::now());
    let actions = node.handle(now, offered("t1", "a"));
    assert!(matches!(
        &actions[..],
        [Action::Record(_, EventKind::Accepted), Action::OpenLane { .. }, Action::Run { .. }]
    ));
    assert_eq!(ends(&node.handle(now, ended(1, "t1", Ok(report())))), [("t1".to_owned(), None)]);
    assert_eq!(ends(&node.handle(now, ended(1, "t1", Ok(report())))), []);
    assert!(!node.workers()[0].busy);
}

#[test]
fn an_offer_that_comes_twice_is_taken_once_also_after_its_end() {
    let (mut node, now) = (node(), Instant::now());
    node.handle(now, offered("t1", "a"));
    assert_eq!(node.handle(now, offered("t1", "a")), []);
    node.handle(now, ended(1, "t1", Ok(report())));
    assert_eq!(node.handle(now, offered("t1", "a")), []);
    let mut later = Node::new(LIMITS, SECOND, [id("t1")]);
    assert_eq!(later.handle(now, offered("t1", "a")), [], "known from the outbox");
}

#[test]
fn a_stream_keeps_its_lane_and_an_idle_one_makes_room() {
    let (mut node, now) = (node(), Instant::now());
    node.handle(now, offered("a1", "a"));
    assert!(!node.handle(now, offered("a2", "a")).iter().any(|a| matches!(a, Action::OpenLane { .. })));
    node.handle(now, offered("b1", "b"));
    assert_eq!(ends(&node.handle(now, offered("c1", "c"))), failed("c1", Code::Busy));
    assert_eq!(ends(&node.handle(now, offered("a3", "a"))), failed("a3", Code::Busy), "its queue is full");
    node.handle(now, ended(2, "b1", Ok(report())));
    let actions = node.handle(now, offered("c2", "c"));
    assert!(actions.contains(&Action::CloseLane(LaneId(2))), "{actions:?}");
    assert!(ends(&actions).is_empty());
}

#[test]
fn the_lane_that_is_idle_longest_is_closed_first_and_all_of_them_in_time() {
    let (mut node, now) = (node(), Instant::now());
    node.handle(now, offered("a1", "a"));
    node.handle(now, offered("b1", "b"));
    node.handle(now + SECOND, ended(2, "b1", Ok(report())));
    node.handle(now + 2 * SECOND, ended(1, "a1", Ok(report())));
    let actions = node.handle(now + 3 * SECOND, offered("c1", "c"));
    assert!(actions.contains(&Action::CloseLane(LaneId(2))));
    assert_eq!(node.next_tick(), Some(now + 4 * SECOND), "the running attempt's progress");
    let actions = node.handle(now + 32 * SECOND, Event::Tick);
    assert!(actions.contains(&Action::CloseLane(LaneId(1))));
}

#[test]
fn a_device_in_use_is_full_and_lanes_without_work_give_it_away() {
    let (mut node, now) = (node(), Instant::now());
    node.handle(now, Event::Capabilities(vec![Capability { limit: Some(1), ..h264() }]));
    let holds = |lanes: &[u64]| {
        Held(lanes.iter().map(|lane| (Some(LaneId(*lane)), [("x264enc".to_owned(), 1)].into())).collect())
    };
    let offered = |task: &str, stream: &str, held: Held| {
        let clock = (Millis(1_000_000), TimeSource::Ntp);
        Event::Offer {
            offer: Box::new(offer(task, stream)),
            clock,
            standing: Standing { held, ..Standing::default() },
        }
    };
    node.handle(now, offered("a1", "a", holds(&[])));
    assert_eq!(ends(&node.handle(now, offered("b1", "b", holds(&[1])))), failed("b1", Code::Busy));
    assert_eq!(ends(&node.handle(now, offered("a2", "a", holds(&[1])))), [], "its worker is there");
    node.handle(now, ended(1, "a1", Ok(report())));
    node.handle(now, ended(1, "a2", Ok(report())));
    let actions = node.handle(now, offered("b2", "b", holds(&[1])));
    assert!(actions.contains(&Action::CloseLane(LaneId(1))), "{actions:?}");
    assert_eq!(ends(&node.handle(now, offered("a3", "a", holds(&[1, 2])))), failed("a3", Code::Busy));
}

#[test]
fn a_revoked_attempt_fails_at_once_and_its_late_result_is_dropped() {
    let (mut node, now) = (node(), Instant::now());
    node.handle(now, offered("t1", "a"));
    let actions = node.handle(now, Event::Revoke(id("t1")));
    assert_eq!(ends(&actions), failed("t1", Code::Revoked));
    assert!(actions.contains(&Action::Stop(id("t1"), Stop::Cancel)));
    assert!(node.workers()[0].busy, "its lane is not free before it says so");
    assert_eq!(node.handle(now, ended(1, "t1", Ok(report()))), []);
    assert!(!node.workers()[0].busy);
    assert_eq!(node.handle(now, Event::Revoke(id("t2"))), []);
    assert_eq!(node.handle(now, offered("t2", "a")), [], "a revoke may overtake its offer");
}

#[test]
fn a_lane_that_fails_in_itself_ends_its_attempts_and_makes_room() {
    let (mut node, now) = (node(), Instant::now());
    node.handle(now, offered("a1", "a"));
    node.handle(now, offered("b1", "b"));
    assert_eq!(ends(&node.handle(now, Event::LaneEnded(LaneId(1)))), failed("a1", Code::Interrupted));
    assert_eq!(ends(&node.handle(now, offered("c1", "c"))), [], "its worker's place is free");
    assert_eq!(ends(&node.handle(now, Event::LaneEnded(LaneId(1)))), [], "once");
}

#[test]
fn a_runtime_that_is_over_kills_the_worker_and_until_then_progress_is_told_each_second() {
    let (mut node, now) = (node(), Instant::now());
    node.handle(now, offered("t1", "a"));
    let progress = Report::Progress { attempt: id("t1"), decoded: 3, encoded: 12 };
    node.handle(now, Event::Lane(progress));
    let beat = Action::Beat(id("t1"), EventKind::Progress { decoded: 3, encoded: 12 });
    assert_eq!(node.handle(now + SECOND, Event::Tick), [beat]);
    assert_eq!(node.handle(now + SECOND, Event::Tick), []);
    let actions = node.handle(now + 20 * SECOND, Event::Tick);
    assert_eq!(ends(&actions), failed("t1", Code::TooSlow));
    assert!(actions.contains(&Action::Stop(id("t1"), Stop::Kill)));
}

#[test]
fn draining_refuses_and_resuming_takes_work_again() {
    let (mut node, now) = (node(), Instant::now());
    assert_eq!(node.handle(now, Event::Drain), [Action::Publish(NodeState::Draining)]);
    assert_eq!(ends(&node.handle(now, offered("t1", "a"))), failed("t1", Code::Draining));
    assert_eq!(node.handle(now, Event::Resume), [Action::Publish(NodeState::Online)]);
    assert_eq!(ends(&node.handle(now, offered("t2", "a"))), []);
}

#[test]
fn an_operators_drain_and_the_nodes_own_pause_do_not_take_each_other_back() {
    let (mut node, now) = (node(), Instant::now());
    let (draining, online) = ([Action::Publish(NodeState::Draining)], [Action::Publish(NodeState::Online)]);
    assert_eq!(node.handle(now, Event::Pause), draining);
    assert_eq!(node.handle(now, Event::Drain), []);
    assert_eq!(node.handle(now, Event::Continue), [], "still drained");
    assert_eq!(ends(&node.handle(now, offered("t1", "a"))), failed("t1", Code::Draining));
    assert_eq!(node.handle(now, Event::Pause), []);
    assert_eq!(node.handle(now, Event::Resume), [], "still paused");
    assert_eq!(node.handle(now, Event::Continue), online);
    node.handle(now, offered("t2", "a"));
    let stop = Event::Stop { exit: Exit::Ok, grace: 60 * SECOND };
    assert_eq!(node.handle(now, stop), draining);
    assert_eq!(node.handle(now, Event::Resume), [], "a node that stops stays so");
}

#[test]
fn stopping_lets_work_finish_until_its_time_is_up_or_a_second_signal_comes() {
    let now = Instant::now();
    let stop = || Event::Stop { exit: Exit::Ok, grace: 60 * SECOND };
    let mut calm = node();
    calm.handle(now, offered("t1", "a"));
    assert_eq!(calm.handle(now, stop()), [Action::Publish(NodeState::Draining)]);
    let actions = calm.handle(now, ended(1, "t1", Ok(report())));
    assert_eq!(actions.last(), Some(&Action::Exit(Exit::Ok)));
    assert_eq!(calm.state(), NodeState::Offline);
    let mut slow = node();
    slow.handle(now, offered("t1", "a"));
    slow.handle(now, stop());
    let actions = slow.handle(now + 60 * SECOND, Event::Tick);
    assert_eq!(ends(&actions), failed("t1", Code::TooSlow), "the lease is over before the grace");
    let mut hurried = node();
    hurried.handle(now, offered("t1", "a"));
    hurried.handle(now, stop());
    let actions = hurried.handle(now, stop());
    assert_eq!(ends(&actions), failed("t1", Code::Interrupted));
    assert_eq!(actions.last(), Some(&Action::Exit(Exit::Ok)));
}

#[test]
fn an_idle_node_that_must_stop_stops_at_once() {
    let mut node = node();
    let actions = node.handle(Instant::now(), Event::Stop { exit: Exit::Restart, grace: SECOND });
    assert_eq!(actions, [Action::Publish(NodeState::Draining), Action::Exit(Exit::Restart)]);
}

#[test]
fn an_offer_too_many_is_refused_by_its_name_alone() {
    let mut node = node();
    let now = Instant::now();
    assert_eq!(ends(&node.handle(now, Event::Overflow(id("t1")))), failed("t1", Code::Busy));
    assert_eq!(node.handle(now, Event::Overflow(id("t1"))), []);
}

#[test]
fn whatever_happens_in_whatever_order_every_accepted_attempt_has_one_end() {
    // A small generator of its own: the same sequences on every machine.
    for seed in 1..200u64 {
        let mut state = seed;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut node, mut now) = (node(), Instant::now());
        let mut accepted = std::collections::BTreeMap::new();
        let mut lanes: std::collections::BTreeMap<u64, Vec<String>> = Default::default();
        for step in 0..200 {
            now += Duration::from_millis(random(3000));
            let event = match random(8) {
                0..=2 => offered(&format!("t{step}"), &format!("s{}", random(4))),
                3 => Event::Revoke(id(&format!("t{}", random(200)))),
                4 | 5 => match lanes.iter_mut().find(|(_, tasks)| !tasks.is_empty()) {
                    Some((lane, tasks)) => {
                        let task = tasks.remove(0);
                        let fault = Fault::new(Code::WorkerCrashed, "x");
                        ended(*lane, &task, if random(2) == 0 { Ok(report()) } else { Err(fault) })
                    }
                    None => Event::Tick,
                },
                6 => Event::LaneEnded(LaneId(1 + random(50))),
                _ => Event::Tick,
            };
            // A lane only closes when it was told to and is empty.
            if matches!(&event, Event::LaneEnded(lane) if node.lanes.get(lane).is_none_or(|l| !l.closing)) {
                continue;
            }
            for action in node.handle(now, event) {
                match action {
                    Action::Record(id, EventKind::Accepted) => assert!(accepted.insert(id, 0).is_none()),
                    Action::Record(id, kind) if kind.is_terminal() => {
                        if let Some(ends) = accepted.get_mut(&id) {
                            *ends += 1;
                        }
                    }
                    Action::Run { lane, offer } => {
                        lanes.entry(lane.0).or_default().push(offer.task.to_string())
                    }
                    _ => {}
                }
            }
            let live = node.lanes.values().filter(|lane| !lane.closing).count();
            assert!(live <= 2, "more lanes than workers");
        }
        let stop = || Event::Stop { exit: Exit::Ok, grace: SECOND };
        for action in node.handle(now, stop()).into_iter().chain(node.handle(now, stop())) {
            if let Action::Record(id, _) = action {
                *accepted.get_mut(&id).unwrap() += 1;
            }
        }
        assert!(accepted.values().all(|ends| *ends == 1), "seed {seed}: {accepted:?}");
    }
}
