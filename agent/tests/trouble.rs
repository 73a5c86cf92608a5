//! Things around the agent that fail: the broker, the disk, the gateway, a worker that does not obey.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;
use support::pki::Ca;
use support::{Fleet, Running, offer, order, revoke, until};

/// The node's place is free again, and a worker does the next segment; the answer is whether it was warm.
fn next_works(fleet: &Fleet, task: &str) -> bool {
    fleet.message("telemetry", |t| {
        t["workers"].as_array().unwrap().iter().all(|worker| worker["busy"] == false)
    });
    fleet.offer(task, "show", b"fine");
    let done = fleet.end(task);
    assert_eq!(done["event"]["kind"], "done", "{done}");
    done["event"]["report"]["warm"].as_bool().unwrap()
}

fn end(mut agent: Running, fleet: &Fleet) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
    fleet.no_process_is_left();
}

#[test]
fn a_worker_that_does_not_get_ready_is_not_waited_for_once_its_attempt_is_revoked() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.offer("t1", "sleepy", b"fine");
    fleet.event("t1", "progress");
    fleet.publish("revoke", &revoke("t1"));
    assert_eq!(fleet.end("t1")["event"]["fault"]["code"], "revoked");
    assert!(!next_works(&fleet, "next"));
    end(agent, &fleet);
}

#[test]
fn an_attempt_revoked_while_its_input_is_on_its_way_leaves_a_warm_worker() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.server.state.lock().unwrap().stall = Some("/in/slow".into());
    fleet.offer("slow", "show", b"a segment that stops in its middle");
    until("the input stops", || fleet.server.state.lock().unwrap().stalled);
    // Told by the lane once the worker has the segment.
    fleet.event("slow", "progress");
    fleet.publish("revoke", &revoke("slow"));
    assert_eq!(fleet.end("slow")["event"]["fault"]["code"], "revoked");
    next_works(&fleet, "next");
    end(agent, &fleet);
}

#[test]
fn a_worker_that_works_on_after_a_cancel_is_replaced() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.offer("deaf", "show", b"stubborn");
    fleet.message("event", |event| event["task"] == "deaf" && event["event"]["decoded"] == 1);
    fleet.publish("revoke", &revoke("deaf"));
    assert_eq!(fleet.end("deaf")["event"]["fault"]["code"], "revoked");
    assert!(!next_works(&fleet, "next"));
    end(agent, &fleet);
}

#[test]
fn an_attempt_is_revoked_while_the_worker_before_its_own_does_not_end() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.offer("t1", "clingy", b"fine");
    assert_eq!(fleet.end("t1")["event"]["kind"], "done");
    fleet.server.put_input("/in/t2", b"until never");
    let mut other = offer("t2", "clingy", 11);
    other["ladder"][0]["rate"]["bitrate"] = json!(300_000);
    fleet.publish("offer", &other);
    until("the worker of the old ladder is asked to end", || fleet.log().contains("it was asked to end"));
    fleet.publish("revoke", &revoke("t2"));
    assert_eq!(fleet.end("t2")["event"]["fault"]["code"], "revoked");
    assert!(!next_works(&fleet, "next"));
    end(agent, &fleet);
}

#[test]
fn an_attempt_whose_runtime_is_over_fails_as_too_slow_and_costs_its_worker() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.server.put_input("/in/slow", b"stubborn");
    let mut slow = offer("slow", "show", 8);
    slow["lease"]["runtime"] = json!(1500);
    fleet.publish("offer", &slow);
    assert_eq!(fleet.end("slow")["event"]["fault"]["code"], "too_slow");
    assert!(!next_works(&fleet, "next"));
    end(agent, &fleet);
}

#[test]
fn a_gateway_that_thanks_before_it_has_a_rendition_has_not_got_it() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.server.state.lock().unwrap().hasty = Some("/out/hasty".into());
    fleet.offer("hasty", "show", &vec![b'x'; 8_000_000]);
    assert_eq!(fleet.end("hasty")["event"]["fault"]["code"], "upload_failed");
    next_works(&fleet, "next");
    end(agent, &fleet);
}

#[test]
fn an_outbox_that_cannot_be_written_refuses_work_until_it_can() {
    let fleet = Fleet::start();
    assert!(fleet.enroll(&fleet.token()).status.success());
    // Stands where the outbox puts its file before it renames it: the write fails as on a full disk, for root too.
    let obstacle = fleet.state_dir().join("outbox/events.tmp/full");
    fs::create_dir_all(&obstacle).unwrap();
    let agent = fleet.agent();
    fleet.offer("early", "show", b"fine");
    assert_eq!(fleet.end("early")["event"]["fault"]["code"], "storage");
    fs::remove_dir_all(obstacle.parent().unwrap()).unwrap();
    until("the outbox is written", || fleet.log().contains("the outbox can be written again"));
    assert_eq!(fleet.log().matches("the outbox cannot be written").count(), 1, "said once:\n{}", fleet.log());
    fleet.offer("late", "show", b"fine");
    let done = fleet.end("late");
    assert_eq!(done["number"]["n"], 2, "accepted, done: {done}");
    end(agent, &fleet);
}

#[test]
fn a_probe_that_fails_is_tried_again_and_takes_nothing_away_that_was_proved() {
    let fleet = Fleet::start();
    assert!(fleet.enroll(&fleet.token()).status.success());
    let obstacle = fleet.home.path().join("probe-fails");
    fs::write(&obstacle, "").unwrap();
    let agent = fleet.agent_that_soon_probes_again();
    let birth = fleet.message("birth", |_| true);
    assert_eq!(birth["capabilities"], json!([]));
    fs::remove_file(&obstacle).unwrap();
    fleet.message("birth", |birth| birth["capabilities"] != json!([]));
    fs::write(&obstacle, "").unwrap();
    fleet.publish("command", &order("again", "probe"));
    let reply = fleet.message("reply", |reply| reply["id"] == "again");
    assert!(reply["fault"]["text"].as_str().unwrap().contains("as asked"), "{reply}");
    fleet.offer("t1", "show", b"fine");
    let done = fleet.end("t1");
    assert_eq!(done["event"]["kind"], "done", "{done}");
    end(agent, &fleet);
}

#[test]
fn what_a_board_can_do_is_the_workers_to_remember_and_each_start_asks_it() {
    let fleet = Fleet::start();
    assert!(fleet.enroll(&fleet.token()).status.success());
    let agent = fleet.agent();
    end(agent, &fleet);
    // As after a new profile or driver in the same boot: what held is no longer true.
    fs::write(fleet.home.path().join("probe-empty"), "").unwrap();
    let agent = fleet.silent_agent();
    fleet.message("birth", |birth| birth["capabilities"] == json!([]));
    fleet.publish("command", &order("anew", "probe"));
    fleet.message("reply", |reply| reply["id"] == "anew");
    let probed = fs::read_to_string(fleet.home.path().join("probed")).unwrap();
    assert_eq!(probed.lines().collect::<Vec<_>>(), ["probe --cached", "probe --cached", "probe"]);
    end(agent, &fleet);
}

/// Waits for the agent's sentence and reads the pause in it.
fn refusal(fleet: &Fleet) -> f64 {
    let sentence = "the broker does not let this node in; is it still enrolled?";
    until("the agent says that it is refused", || fleet.log().contains(sentence));
    let log = fleet.log();
    let line = log.lines().find(|line| line.contains(sentence)).unwrap();
    let pause = line.split("retry_in=").nth(1).unwrap().split(' ').next().unwrap();
    pause.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn a_broker_that_refuses_the_node_is_asked_again_much_later() {
    let mut fleet = Fleet::start();
    assert!(fleet.enroll(&fleet.token()).status.success());
    fleet.replace_broker("ca", "clientid_prefixes someone-else");
    let agent = fleet.silent_agent();
    assert!(refusal(&fleet) >= 30.0, "{}", fleet.log());
    end_alone(agent);
}

#[test]
fn a_broker_that_does_not_know_the_nodes_ca_is_asked_again_much_later() {
    let mut fleet = Fleet::start();
    assert!(fleet.enroll(&fleet.token()).status.success());
    fs::write(fleet.home.path().join("other.crt"), Ca::new("other").pem()).unwrap();
    fleet.replace_broker("other", "");
    let agent = fleet.silent_agent();
    assert!(refusal(&fleet) >= 30.0, "{}", fleet.log());
    end_alone(agent);
}

fn end_alone(mut agent: Running) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
}
