//! What RAUC does that nobody ordered: it is cut off, takes too long, or reads another bundle than was checked.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use std::fs;
use std::io::Write;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::board::{Board, answer};
use support::follow::{end, exit, state};
use support::{Fleet, Running, until};

fn root_journal(fleet: &Fleet) -> Value {
    serde_json::from_slice(&fs::read(fleet.home.path().join("root/pending.json")).unwrap()).unwrap()
}

fn root_log(fleet: &Fleet) -> String {
    fs::read_to_string(fleet.home.path().join("system.log")).unwrap_or_default()
}

/// An agent and a helper that begin anew after the power failed in the middle of `rauc install`, the last of so many tries.
fn after_cuts(fleet: &Fleet, board: &Board<'_>, tries: u8) -> (Running, Running) {
    let helper = board.helper();
    let mut agent = fleet.agent();
    // Fetched, and then waiting for an attempt.
    fleet.offer("t1", "show", b"until it-may-end");
    fleet.message("event", |event| event["task"] == "t1" && event["event"]["decoded"] == 1);
    let order = board.rauc_order("u1", "2");
    fleet.publish("command", &order);
    state(fleet, "waiting");
    agent.signal(Signal::SIGKILL);
    agent.wait();
    drop(helper);
    until("its worker ends too", || fleet.workers().is_empty());
    let record = json!({
        "order": "u1", "kind": "rauc", "sha256": order["command"]["update"]["bundle"]["sha256"],
        "from": { "slot": "A", "version": "1" }, "to": { "version": "2" }, "health_s": 60, "tries": tries,
        "way_back": true, "at": { "boot_id": "first boot", "uptime_s": 90 }, "phase": "installing",
    });
    let journal = fleet.state_dir().join("update/order.json");
    let kept = fs::read_to_string(&journal).unwrap();
    fs::write(journal, kept.replace("\"waiting\"", "\"installing\"")).unwrap();
    fs::write(fleet.home.path().join("root/pending.json"), record.to_string()).unwrap();
    board.boot("second boot");
    (board.helper(), fleet.silent_agent())
}

#[test]
fn a_power_cut_while_root_installs_leads_to_the_same_order_again() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let (helper, agent) = after_cuts(&fleet, &board, 21);
    assert_eq!(exit(agent), Some(7), "installed, and a boot is asked for");
    assert_eq!(board.get("version-B"), "2");
    assert_eq!(root_journal(&fleet)["tries"], 22, "those of before count");
    board.boot("third boot");
    let agent = fleet.silent_agent();
    state(&fleet, "done");
    end(agent, &fleet, helper);
}

#[test]
fn an_installation_that_is_cut_off_each_time_is_given_up() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let (helper, agent) = after_cuts(&fleet, &board, 50);
    let update = state(&fleet, "failed");
    let fault = &update["state"]["fault"];
    assert_eq!(fault["code"], "install_failed", "{update}");
    assert!(fault["text"].as_str().unwrap().contains("asked 50 times"), "{update}");
    assert!(!board.get("calls").contains("rauc install"));
    assert_eq!(board.get("state-B"), "bad", "whatever was written there is not started");
    assert!(root_journal(&fleet)["phase"]["failed"].is_object());
    end(agent, &fleet, helper);
}

#[test]
fn a_slot_that_rauc_switched_to_when_nobody_waited_any_more_is_on_trial() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    board.root_says("install_seconds = 1");
    board.set("install-waits", "");
    let helper = board.helper();
    let mut agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    until("the helper gives up to wait", || root_log(&fleet).contains("rauc did not end within 1s"));
    until("it has said so", || root_log(&fleet).contains("not done"));
    assert_eq!(root_journal(&fleet)["phase"], "installing");
    agent.signal(Signal::SIGKILL);
    agent.wait();
    // RAUC's service comes to its end all the same, and then the power fails.
    for (name, text) in [("version-B", "2"), ("state-B", "good"), ("primary", "B")] {
        board.set(name, text);
    }
    board.boot("second boot");
    assert_eq!(board.get("booted"), "B");
    let guard = board.guard();
    // Its agent never comes.
    until("the guard waits", || fleet.processes().iter().any(|process| process.contains("system guard")));
    board.time("second boot", 61);
    until("the guard marks the slot and boots", || board.was_asked("rauc status mark-bad booted"));
    until("the boot was asked for", || board.was_asked("systemctl reboot"));
    assert!(!board.was_asked("rauc status mark-good booted"), "it proved nothing");
    drop(guard);
    board.boot("third boot");
    assert_eq!(board.get("booted"), "A");
    let agent = fleet.silent_agent();
    assert_eq!(state(&fleet, "rolled_back")["state"]["fault"]["code"], "unhealthy");
    end(agent, &fleet, helper);
}

#[test]
fn an_installation_that_took_too_long_is_asked_for_again() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    board.root_says("install_seconds = 1");
    board.set("install-waits", "");
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    until("the helper gives up to wait", || root_log(&fleet).contains("rauc did not end within 1s"));
    fs::remove_file(fleet.home.path().join("board/install-waits")).unwrap();
    assert_eq!(exit(agent), Some(7), "installed, and a boot is asked for");
    assert_eq!(root_journal(&fleet)["tries"], 2);
    drop(helper);
    fleet.no_process_is_left();
}

#[test]
fn an_older_bundle_that_is_written_over_the_checked_one_is_never_started() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    board.set("install-waits", "");
    let helper = board.helper();
    let order = board.rauc_order("u1", "2");
    // As an agent that somebody has taken over would keep it.
    let mut file = fs::OpenOptions::new().write(true).open(board.put_bundle(&order)).unwrap();
    let install = board.asks(&json!({ "install": { "order": order["command"]["update"] } }));
    until("RAUC installs", || board.get("calls").contains("rauc install"));
    file.write_all(b"{\"compatible\":\"board\",\"version\":\"0\"}\n").unwrap();
    assert_eq!(board.ask(&json!("reboot"))["fault"]["code"], "busy", "not before it was looked at");
    fs::remove_file(fleet.home.path().join("board/install-waits")).unwrap();
    let said = answer(install);
    assert_eq!(said["fault"]["code"], "bad_bundle", "{said}");
    let text = said["fault"]["text"].as_str().unwrap();
    assert!(text.contains("version \"0\" was installed, and version \"2\" was ordered"), "{said}");
    assert_eq!((board.get("version-B"), board.get("state-B")), ("0".to_owned(), "bad".to_owned()));
    assert!(!board.was_asked("systemctl reboot"));
    board.boot("second boot");
    assert_eq!(board.get("booted"), "A");
    drop(helper);
    fleet.no_process_is_left();
}

#[test]
fn an_order_whose_trial_would_last_longer_than_root_allows_fails_and_says_so() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    board.root_says("max_health_seconds = 59");
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    let update = state(&fleet, "failed");
    assert_eq!(update["state"]["fault"]["code"], "unsupported", "{update}");
    assert!(!board.get("calls").contains("rauc install"));
    end(agent, &fleet, helper);
}
