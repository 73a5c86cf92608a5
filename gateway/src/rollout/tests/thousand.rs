//! A fleet of a thousand: what one look, one second and the whole update cost.

use std::collections::BTreeSet;

use super::*;

const NODES: usize = 1000;
/// Milliseconds between two moments of the play.
const TICK: u64 = 5000;

/// What a node says, and how many ticks after its order; some fetch fast, some slowly.
fn story(place: u64) -> [(u64, UpdateState); 6] {
    let fetched = 2 + place % 11;
    [
        (1, UpdateState::Fetching { bytes: 0 }),
        (fetched, UpdateState::Waiting),
        (fetched, UpdateState::Installing { percent: 0 }),
        (fetched + 4, UpdateState::Restarting),
        (fetched + 12, UpdateState::Verifying),
        (fetched + 18, UpdateState::Done),
    ]
}

/// The nodes of one look's messages.
fn told(said: &[String]) -> Vec<NodeId> {
    said.iter().map(|line| node(line.split(' ').nth(1).unwrap())).collect()
}

#[test]
fn a_thousand_nodes_fetch_a_few_at_a_time_in_their_waves_and_each_state_is_written_once() {
    let mut plan = plan("5%,25%,100%", "1");
    plan.waves.iter_mut().for_each(|wave| wave.soak = Millis(12 * TICK));
    let mut play = Play::new(NODES, plan);
    assert_eq!([0, 1, 2].map(|wave| play.wave(wave).len()), [50, 200, 750]);
    let mut words: BTreeMap<u64, Vec<(NodeId, UpdateState)>> = BTreeMap::new();
    let (mut ordered, mut fetching) = (BTreeSet::new(), BTreeSet::new());
    let mut ends = [0; 3];
    let mut most = 0;
    for tick in 0..1000 {
        play.now = tick * TICK;
        for (node, state) in words.remove(&tick).unwrap_or_default() {
            play.says(&node, state.clone());
            if state == UpdateState::Waiting {
                fetching.remove(&node);
            } else if state == UpdateState::Done {
                ends[play.campaign.members[&node].wave] = tick;
            }
        }
        // A look follows each word of a node's, so there are many in one moment.
        for _ in 0..2 {
            let before = play.writes;
            let orders = told(&play.look());
            assert!(orders.len() <= BATCH && play.writes - before <= BATCH + 1);
            for node in orders {
                let wave = play.campaign.members[&node].wave;
                assert!(
                    wave == 0 || tick >= ends[wave - 1] + 12,
                    "{node} of wave {wave} was ordered too early"
                );
                for (after, state) in story(ordered.len() as u64) {
                    words.entry(tick + after).or_default().push((node.clone(), state));
                }
                fetching.insert(node.clone());
                assert!(ordered.insert(node.clone()), "{node} has got its order twice");
            }
        }
        most = most.max(fetching.len());
        if play.campaign.head.state == State::Done {
            break;
        }
    }
    assert_eq!(play.campaign.head.state, State::Done);
    assert_eq!((ordered.len(), most), (NODES, FETCHING));
    // Ordered, and the six of the story; of the whole: two soaks begin and end, and then it is done.
    assert_eq!(play.writes, NODES * 7 + 5);
}

#[test]
fn nodes_that_do_not_fetch_hold_up_nobody_for_long() {
    let mut play = Play::new(NODES, plan("100%", "1"));
    let deaf: BTreeSet<NodeId> = told(&play.look()).into_iter().collect();
    assert_eq!(deaf.len(), FETCHING);
    assert!(
        told(&play.later(1)).iter().all(|node| deaf.contains(node)),
        "their orders are sent again, and no others"
    );
    play.away = deaf.iter().take(10).cloned().collect();
    let next = told(&play.later(1));
    assert_eq!(next.iter().filter(|node| !deaf.contains(*node)).count(), 10, "those that are away make room");
    assert!(next.len() <= BATCH);
    play.now += ABSENT;
    // First those who are asked again.
    play.look();
    let next = told(&play.look());
    assert!(next.iter().any(|node| !deaf.contains(node)), "after a while the others go on");
}

#[test]
fn a_thousand_recalls_are_dealt_out_so_that_none_is_lost_in_a_queue() {
    let mut play = Play::new(NODES, plan("100%", "1"));
    // All have fetched, and wait for their window.
    for _ in 0..NODES / FETCHING {
        for node in told(&play.look()) {
            play.says(&node, UpdateState::Waiting);
        }
    }
    let waits = |member: &Member| member.progress == Progress::Node { state: UpdateState::Waiting };
    assert!(play.campaign.members.values().all(waits));
    play.campaign.cancel().unwrap();
    let mut recalled = BTreeSet::new();
    for _ in 0..NODES / BATCH {
        let before = recalled.len();
        for _ in 0..3 {
            for node in told(&play.look()) {
                assert!(recalled.insert(node.clone()), "{node} was recalled twice");
                play.says(&node, UpdateState::Failed { fault: Fault::new(Code::Revoked, "given up") });
            }
        }
        assert_eq!(recalled.len() - before, BATCH, "in one second");
        play.now += 1000;
    }
    assert_eq!(recalled.len(), NODES);
    assert!(play.look().is_empty());
}
