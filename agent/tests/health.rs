//! What a new version must prove to be stayed with: a board that is connected and can do nothing is no success.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use std::fs;

use serde_json::{Value, json};
use support::board::Board;
use support::follow::{end, exit, reply, state};
use support::{Fleet, order, until};

/// Connected, and nothing is proved: in whatever order these three come.
fn verifies_without_a_codec(fleet: &Fleet) {
    let (mut verifying, mut born, mut online) = (false, false, false);
    fleet.receive("node that can do nothing", |channel, message| {
        verifying |= channel == "update" && message["state"]["kind"] == "verifying";
        born |= channel == "birth" && message["capabilities"] == json!([]);
        online |= channel == "status" && message["state"] == "online";
        verifying && born && online
    });
}

/// Updates a board to a version whose probe is as the worker's file `obstacle` makes it; the earlier version comes back.
fn goes_back_from(obstacle: &str) {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    assert_eq!(exit(agent), Some(7));
    board.boot("second boot");
    assert_eq!(board.get("booted"), "B");
    let obstacle = fleet.home.path().join(obstacle);
    fs::write(&obstacle, "").unwrap();
    let guard = board.guard();
    let mut agent = fleet.silent_agent();
    verifies_without_a_codec(&fleet);
    board.time("second boot", 61);
    until("the guard marks the slot and boots", || {
        board.get("state-B") == "bad" && board.get("calls").matches("systemctl reboot").count() == 2
    });
    assert!(!board.was_asked("rauc status mark-good booted"), "it was committed");
    drop(guard);
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    agent.wait();

    fs::remove_file(obstacle).unwrap();
    board.boot("third boot");
    assert_eq!(board.get("booted"), "A");
    let agent = fleet.silent_agent();
    let update = state(&fleet, "rolled_back");
    let fault = &update["state"]["fault"];
    assert_eq!(fault["code"], "unhealthy", "{update}");
    assert!(fault["text"].as_str().unwrap().contains("proved no codec"), "{update}");
    end(agent, &fleet, helper);
}

#[test]
fn a_version_whose_probe_fails_is_left() {
    goes_back_from("probe-fails");
}

#[test]
fn a_version_whose_probe_proves_no_codec_is_left() {
    goes_back_from("probe-empty");
}

#[test]
fn what_was_proved_before_in_the_same_boot_does_not_count_for_a_new_version() {
    let fleet = Fleet::start();
    let board = Board::with_packages(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    // The agent alone, say with a unit that closes the codecs' devices: the worker is the same.
    fleet.publish("command", &board.deb_order("u2", "2"));
    assert_eq!(exit(agent), Some(6));
    let obstacle = fleet.home.path().join("probe-empty");
    fs::write(&obstacle, "").unwrap();
    let agent = fleet.silent_agent();
    verifies_without_a_codec(&fleet);
    board.time("first boot", 161);
    until("the guard brings version 1 back", || board.get("installed") == "1");
    board.no_guard_is_left();
    drop(agent);
    fs::remove_file(obstacle).unwrap();
    let agent = fleet.silent_agent();
    assert_eq!(state(&fleet, "rolled_back")["state"]["fault"]["code"], "unhealthy");
    end(agent, &fleet, helper);
}

#[test]
fn codecs_that_come_late_are_waited_for() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    assert_eq!(exit(agent), Some(7));
    board.boot("second boot");
    let obstacle = fleet.home.path().join("probe-empty");
    fs::write(&obstacle, "").unwrap();
    let agent = fleet.agent_that_soon_probes_again();
    fleet.message("birth", |birth| birth["capabilities"] == json!([]));
    fs::remove_file(obstacle).unwrap();
    state(&fleet, "done");
    end(agent, &fleet, helper);
}

#[test]
fn a_drained_node_proves_its_new_version_and_stays_drained() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &order("d1", "drain"));
    assert_eq!(reply(&fleet, "d1"), Value::Null);
    fleet.publish("command", &board.rauc_order("u1", "2"));
    assert_eq!(exit(agent), Some(7));
    board.boot("second boot");
    let agent = fleet.silent_agent();
    state(&fleet, "done");
    assert!(board.was_asked("rauc status mark-good booted"));
    fleet.offer("t1", "show", b"fine");
    assert_eq!(fleet.end("t1")["event"]["fault"]["code"], "draining");
    end(agent, &fleet, helper);
}

#[test]
fn a_board_without_codecs_is_updated_all_the_same() {
    let fleet = Fleet::start();
    fs::write(fleet.home.path().join("probe-empty"), "").unwrap();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    assert_eq!(exit(agent), Some(7));
    board.boot("second boot");
    let agent = fleet.silent_agent();
    state(&fleet, "done");
    assert!(board.was_asked("rauc status mark-good booted"));
    end(agent, &fleet, helper);
}
