//! Configuration and logs, from afar.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Fleet, Running, order, until, with_header};

fn config(revision: u64, settings: Value) -> Value {
    with_header(json!({ "revision": revision, "settings": settings }))
}

/// What the birth says of this revision.
fn reported(fleet: &Fleet, revision: u64) -> Value {
    let birth = fleet.message("birth", |birth| birth["config"]["revision"] == revision);
    birth["config"]["fault"].clone()
}

fn exit(mut agent: Running) -> Option<i32> {
    agent.wait().code()
}

fn end(agent: Running, fleet: &Fleet) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(exit(agent), Some(0));
    fleet.no_process_is_left();
}

#[test]
fn a_configuration_is_taken_up_when_nothing_runs_and_stays_with_the_node() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.offer("t1", "show", b"until it-may-end");
    fleet.message("event", |event| event["task"] == "t1" && event["event"]["decoded"] == 1);
    fleet.retain("config", &config(3, json!({ "limits": { "queue": 9 } })));
    fleet.message("status", |status| status["state"] == "draining");
    std::fs::write(fleet.home.path().join("it-may-end"), "").unwrap();
    assert_eq!(fleet.end("t1")["event"]["kind"], "done", "what ran was not disturbed");
    assert_eq!(exit(agent), Some(6));
    let agent = fleet.silent_agent();
    let birth = fleet.message("birth", |birth| birth["config"]["revision"] == 3);
    assert_eq!((&birth["config"]["fault"], &birth["limits"]["queue"]), (&Value::Null, &json!(9)));
    agent.signal(Signal::SIGTERM);
    assert_eq!(exit(agent), Some(0), "the retained message is not taken up again");
    let agent = fleet.silent_agent();
    let birth = fleet.message("birth", |_| true);
    assert_eq!((&birth["config"]["revision"], &birth["limits"]["queue"]), (&json!(3), &json!(9)));
    end(agent, &fleet);
}

#[test]
fn a_configuration_with_a_wrong_key_is_refused_by_name_and_nothing_happens() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.retain("config", &config(1, json!({ "limits": { "quue": 9 } })));
    let fault = reported(&fleet, 1);
    assert_eq!(fault["code"], "bad_config");
    assert!(fault["text"].as_str().unwrap().starts_with("limits.quue"), "{fault}");
    fleet.retain("config", &config(2, json!({ "state_dir": "/tmp" })));
    assert!(reported(&fleet, 2)["text"].as_str().unwrap().starts_with("state_dir"));
    fleet.offer("t1", "show", b"fine");
    assert_eq!(fleet.end("t1")["event"]["kind"], "done");
    end(agent, &fleet);
}

#[test]
fn a_configuration_with_which_the_node_cannot_connect_is_rolled_back_and_not_tried_again() {
    let mut fleet = Fleet::start();
    fleet.config_limit = 5;
    let agent = fleet.agent();
    fleet.publish("config", &config(1, json!({ "limits": { "queue": 9 } })));
    assert_eq!(exit(agent), Some(6));
    // As if the configuration had cut it off.
    drop(fleet.broker.take());
    let agent = fleet.silent_agent();
    assert_eq!(exit(agent), Some(6), "it gives up by itself");
    fleet.restart_broker();
    fleet.hear();
    let agent = fleet.silent_agent();
    let birth = fleet.message("birth", |birth| birth["config"]["revision"] == 1);
    assert_eq!(birth["config"]["fault"]["code"], "config_rolled_back", "{birth}");
    assert_eq!(birth["limits"]["queue"], 1, "of the node's own file");
    fleet.publish("config", &config(1, json!({ "limits": { "queue": 9 } })));
    fleet.offer("t1", "show", b"fine");
    assert_eq!(fleet.end("t1")["event"]["kind"], "done", "it stays as it is");
    end(agent, &fleet);
}

#[test]
fn a_drained_node_stays_drained_over_restarts_until_it_is_resumed() {
    let fleet = Fleet::start();
    let answer = |id: &str, command: &str| {
        fleet.publish("command", &order(id, command));
        fleet.message("reply", |reply| reply["id"] == id)["fault"].clone()
    };
    let status = |state: &str| fleet.message("status", |status| status["state"] == state);
    let agent = fleet.agent();
    assert_eq!(answer("d1", "drain"), Value::Null);
    assert_eq!(answer("r1", "restart"), Value::Null);
    assert_eq!(exit(agent), Some(6));
    for _ in 0..2 {
        status("offline");
        let mut agent = fleet.silent_agent();
        status("draining");
        // As the power goes.
        agent.signal(Signal::SIGKILL);
        agent.wait();
    }
    status("offline");
    let agent = fleet.silent_agent();
    status("draining");
    fleet.offer("t1", "show", b"fine");
    assert_eq!(fleet.end("t1")["event"]["fault"]["code"], "draining");
    assert_eq!(answer("r2", "resume"), Value::Null);
    status("online");
    assert_eq!(answer("r3", "restart"), Value::Null);
    assert_eq!(exit(agent), Some(6));
    // Online: neither the drain nor what the restart let finish is kept.
    end(fleet.agent(), &fleet);
}

#[test]
fn a_drain_that_cannot_be_kept_is_refused() {
    let fleet = Fleet::start();
    assert!(fleet.enroll(&fleet.token()).status.success());
    // Where the file is written before it gets its name: as on a full disk, for root too.
    let obstacle = fleet.state_dir().join("drained.tmp/full");
    std::fs::create_dir_all(&obstacle).unwrap();
    let agent = fleet.agent();
    fleet.publish("command", &order("d1", "drain"));
    assert_eq!(fleet.message("reply", |reply| reply["id"] == "d1")["fault"]["code"], "storage");
    fleet.offer("t1", "show", b"fine");
    assert_eq!(fleet.end("t1")["event"]["kind"], "done", "as it was");
    end(agent, &fleet);
}

#[test]
fn the_end_of_the_log_is_put_to_the_gateway_without_secrets() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    // Commands are logged with their ids.
    fleet.publish("command", &order("https://operator:s3cret@gw/ token=s3cret", "resume"));
    fleet.message("reply", |_| true);
    let logs = |id: &str, most: u64| {
        let path = format!("/v1/logs/{id}");
        fleet.publish("command", &order(id, json!({ "logs": { "path": path, "max_bytes": most } })));
        let reply = fleet.message("reply", |reply| reply["id"] == id);
        assert_eq!(reply["fault"], Value::Null, "{reply}");
        String::from_utf8(fleet.server.output(&path).expect("it is there when the answer comes")).unwrap()
    };
    let text = logs("l1", 100_000);
    assert!(text.contains("starting") && text.contains("***@gw/"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let short = logs("l2", 300);
    assert!(!short.is_empty() && short.len() <= 300, "{short}");
    fleet.server.state.lock().unwrap().refuse = Some("/v1/logs".into());
    fleet.publish("command", &order("l3", json!({ "logs": { "path": "/v1/logs/l3", "max_bytes": 10 } })));
    let reply = fleet.message("reply", |reply| reply["id"] == "l3");
    assert_eq!(reply["fault"]["code"], "upload_failed");
    until("nothing is left over", || fleet.server.output("/v1/logs/l3").is_none());
    end(agent, &fleet);
}
