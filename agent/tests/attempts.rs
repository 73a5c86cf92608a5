//! Attempts against a real broker, a real HTTPS server and real processes.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;
use serde_json::json;
use support::{Fleet, PATIENCE, Running, ack, offer, order, revoke, until};

#[test]
fn a_segment_goes_in_and_its_renditions_come_out_over_warm_connections_and_a_warm_worker() {
    let fleet = Fleet::start();
    let mut agent = fleet.agent();
    let input = vec![b'x'; 700_000];
    for (task, warm) in [("t1", false), ("t2", true), ("t3", true)] {
        fleet.offer(task, "show", &input);
        let accepted = fleet.event(task, "accepted");
        let done = fleet.end(task);
        assert_eq!(done["event"]["kind"], "done", "{done}");
        assert_eq!(done["event"]["report"]["warm"], warm);
        let n = |event: &serde_json::Value| event["number"]["n"].as_u64().unwrap();
        assert_eq!(n(&done), n(&accepted) + 1);
        for rendition in ["high", "low"] {
            assert_eq!(fleet.server.output(&format!("/out/{task}/{rendition}")).as_ref(), Some(&input));
        }
        fleet.publish("ack", &ack(&done));
    }
    let telemetry = fleet.message("telemetry", |t| t["outbox"] == 0 && t["workers"][0]["segments"] == 3);
    assert!(telemetry["agent_memory_bytes"].as_u64().unwrap() > 0, "{telemetry}");
    // Two at enrolment; then never more than were used at once.
    assert!(fleet.server.connections.load(Ordering::Relaxed) <= 2 + 3);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
    fleet.message("status", |status| status["state"] == "offline");
    fleet.no_process_is_left();
}

#[test]
fn each_way_a_worker_can_fail_has_its_code_and_the_next_segment_works() {
    let fleet = Fleet::start();
    let mut agent = fleet.agent();
    for (input, code, evidence) in [
        ("hang", "worker_hung", "no sign of life"),
        ("orphan", "worker_hung", "no sign of life"),
        ("crash", "worker_crashed", "SIGABRT"),
        ("fail", "pipeline_failed", "as asked"),
    ] {
        let task = format!("bad-{input}");
        fleet.offer(&task, "show", input.as_bytes());
        let failed = fleet.end(&task);
        assert_eq!(failed["event"]["fault"]["code"], code, "{failed}");
        assert!(failed["event"]["fault"]["text"].as_str().unwrap().contains(evidence), "{failed}");
        if input == "crash" {
            let detail = failed["event"]["fault"]["detail"].as_str().unwrap();
            assert!(detail.contains("the last words of a worker"), "{failed}");
        }
        assert_eq!(fleet.server.output(&format!("/out/{task}/high")), None);
        fleet.offer(&format!("good-{input}"), "show", b"fine");
        let done = fleet.end(&format!("good-{input}"));
        assert_eq!(done["event"]["kind"], "done", "{done}");
        assert_eq!(done["event"]["report"]["warm"], false, "a fresh worker");
    }
    until("half a rendition is cut, not published", || {
        fleet.server.state.lock().unwrap().cut.contains(&"/out/bad-fail/high".to_owned())
    });
    assert!(!fleet.processes().iter().any(|command| command.starts_with("sleep")), "{:?}", fleet.processes());
    fleet.offer("loud", "show", b"flood");
    assert_eq!(fleet.end("loud")["event"]["kind"], "done");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
    fleet.no_process_is_left();
}

#[test]
fn input_that_is_not_there_and_output_that_is_not_taken_fail_the_attempt_alone() {
    let fleet = Fleet::start();
    let _agent = fleet.agent();
    fleet.publish("offer", &offer("lost", "show", 4));
    assert_eq!(fleet.end("lost")["event"]["fault"]["code"], "fetch_failed");
    fleet.server.put_input("/in/short", b"abc");
    fleet.publish("offer", &offer("short", "show", 4));
    assert_eq!(fleet.end("short")["event"]["fault"]["code"], "fetch_failed");
    fleet.server.put_input("/in/long", b"abcde");
    fleet.publish("offer", &offer("long", "show", 4));
    assert_eq!(fleet.end("long")["event"]["fault"]["code"], "too_large");
    fleet.server.state.lock().unwrap().refuse = Some("/out/full".into());
    fleet.offer("full", "show", &[b'x'; 300_000]);
    assert_eq!(fleet.end("full")["event"]["fault"]["code"], "upload_failed");
    fleet.offer("fine", "show", b"fine");
    let done = fleet.end("fine");
    assert_eq!(done["event"]["kind"], "done", "{done}");
}

#[test]
fn a_revoked_attempt_stops_and_its_worker_is_free_for_the_next() {
    let fleet = Fleet::start();
    let _agent = fleet.agent();
    fleet.offer("long", "show", b"wait");
    fleet.event("long", "progress");
    fleet.publish("revoke", &revoke("long"));
    assert_eq!(fleet.end("long")["event"]["fault"]["code"], "revoked");
    fleet.offer("next", "show", b"fine");
    let done = fleet.end("next");
    assert_eq!(done["event"]["kind"], "done");
    assert_eq!(done["event"]["report"]["warm"], true, "a worker that was asked and answered is kept");
}

#[test]
fn a_full_node_refuses_and_the_same_offer_twice_is_done_once() {
    let fleet = Fleet::start();
    let _agent = fleet.agent();
    fleet.offer("long", "show", b"wait");
    fleet.event("long", "accepted");
    fleet.offer("other", "film", b"fine");
    assert_eq!(fleet.end("other")["event"]["fault"]["code"], "busy");
    fleet.publish("offer", &offer("long", "show", 4));
    fleet.publish("offer", &offer("third", "film", 4));
    let next = fleet.message("event", |event| event["event"]["kind"] != "progress");
    assert_eq!(next["task"], "third", "nothing was said of the second `long`");
}

#[test]
fn events_come_again_after_a_broker_has_lost_everything() {
    let mut fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.offer("t1", "show", b"fine");
    let done = fleet.end("t1");
    // Held while the broker forgets, so that the gateway's side is there first.
    agent.signal(Signal::SIGSTOP);
    fleet.restart_broker();
    fleet.hear();
    agent.signal(Signal::SIGCONT);
    fleet.message("birth", |_| true);
    assert_eq!(fleet.event("t1", "accepted")["number"]["n"], 1);
    assert_eq!(fleet.end("t1"), done, "the same event, byte for byte");
    fleet.offer("t2", "show", b"fine");
    assert_eq!(fleet.end("t2")["event"]["kind"], "done", "it subscribed again");
}

#[test]
fn a_killed_agent_has_a_last_will_and_says_what_it_left_unfinished() {
    let fleet = Fleet::start();
    let mut agent = fleet.agent();
    fleet.offer("long", "show", b"wait");
    fleet.event("long", "progress");
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let will = fleet.message("status", |status| status["state"] == "offline");
    assert!(!will["boot_id"].as_str().unwrap().is_empty());
    fleet.no_process_is_left();
    let _agent = fleet.agent();
    // The birth has been read; the event may have come before it, so it is asked for by its place in the outbox.
    fleet.offer("next", "show", b"fine");
    assert_eq!(fleet.end("next")["number"]["n"], 4, "accepted, interrupted, accepted, done");
    let log = fleet.log();
    assert!(log.contains("attempt was interrupted"), "{log}");
}

#[test]
fn sigterm_lets_work_finish_and_a_second_one_does_not() {
    let fleet = Fleet::start();
    let mut agent = fleet.agent();
    fleet.offer("long", "show", b"wait");
    fleet.event("long", "progress");
    agent.signal(Signal::SIGTERM);
    fleet.message("status", |status| status["state"] == "draining");
    fleet.offer("late", "show", b"fine");
    assert_eq!(fleet.end("late")["event"]["fault"]["code"], "draining");
    agent.signal(Signal::SIGTERM);
    assert_eq!(fleet.end("long")["event"]["fault"]["code"], "interrupted");
    fleet.message("status", |status| status["state"] == "offline");
    assert_eq!(agent.wait().code(), Some(0));
    fleet.no_process_is_left();
}

#[test]
fn commands_are_obeyed_and_answered() {
    let fleet = Fleet::start();
    let mut agent = fleet.agent();
    let answered = |id: &str| fleet.message("reply", |reply| reply["id"] == id);
    fleet.publish("command", &order("c1", "drain"));
    assert_eq!(answered("c1").get("fault"), None);
    fleet.offer("t1", "show", b"fine");
    assert_eq!(fleet.end("t1")["event"]["fault"]["code"], "draining");
    fleet.publish("command", &order("c2", "resume"));
    answered("c2");
    fleet.publish("command", &order("c3", "probe"));
    answered("c3");
    fleet.offer("t2", "show", b"fine");
    assert_eq!(fleet.end("t2")["event"]["kind"], "done");
    fleet.publish("command", &json!({ "not": "a command" }));
    fleet.publish("command", &order("c4", "restart"));
    answered("c4");
    assert_eq!(agent.wait().code(), Some(6));
    fleet.no_process_is_left();
}

#[test]
fn the_service_manager_is_told_of_readiness_life_and_the_end() {
    let fleet = Fleet::start();
    assert!(fleet.enroll(&fleet.token()).status.success());
    let path = fleet.home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = fleet.command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000").args(["run", "--log-format", "json"]);
    let log = std::fs::File::create(fleet.home.path().join("agent.log")).unwrap();
    let mut agent = Running(command.stderr(log).spawn().unwrap());
    let told = |word: &str| {
        let mut buffer = [0; 1024];
        loop {
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {word}: {error}"));
            if buffer[..length].starts_with(word.as_bytes()) {
                return;
            }
        }
    };
    told("READY=1");
    told("WATCHDOG=1");
    told("WATCHDOG=1");
    fleet.offer("t1", "show", b"fine");
    fleet.end("t1");
    agent.signal(Signal::SIGINT);
    told("STOPPING=1");
    assert_eq!(agent.wait().code(), Some(0));
    let lines = fleet.log();
    let mut lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let done = lines.find(|line| line["message"] == "done").unwrap();
    assert_eq!(done["span"]["stream"], "show");
    assert_eq!(done["span"]["task"], "t1");
    assert_eq!(done["span"]["node"], "orin-1");
}
