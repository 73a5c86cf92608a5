//! An order until its end: what the node says, what root's helper does, and what is there after a boot.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use std::os::unix::process::CommandExt;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};
use support::board::Board;
use support::follow::{end, exit, installation, reply, state, with_downgrade};
use support::{Fleet, Running, order, until};

#[test]
fn a_bundle_is_fetched_through_a_cut_installed_booted_and_committed_once_it_is_healthy() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.server.state.lock().unwrap().cut_once = Some("/v1/bundles".into());
    fleet.publish("command", &board.rauc_order("u1", "2"));
    assert_eq!(reply(&fleet, "command-u1"), Value::Null);
    state(&fleet, "restarting");
    assert_eq!(exit(agent), Some(7), "it asks for a boot");
    assert!(board.was_asked("systemctl reboot"));
    let ranges = fleet.server.state.lock().unwrap().ranges.clone();
    assert!(
        matches!(ranges[..], [0, from] if from > 0),
        "the second one goes on where the first was cut: {ranges:?}"
    );

    board.boot("second boot");
    assert_eq!(board.get("booted"), "B");
    let mut guard = board.guard();
    let agent = fleet.silent_agent();
    state(&fleet, "done");
    assert_eq!(guard.wait().code(), Some(0), "nothing is on trial any more");
    assert!(board.was_asked("rauc status mark-good booted"));
    end(agent, &fleet, helper);

    // Much later: what was committed stays.
    board.time("second boot", 5000);
    assert_eq!(board.guard().wait().code(), Some(0));
    assert!(!board.was_asked("rauc status mark-bad booted"));
    let helper = board.helper();
    let agent = fleet.silent_agent();
    let installed = installation(&fleet);
    assert_eq!((&installed["version"], &installed["slot"]), (&json!("2"), &json!("B")));
    assert_eq!((&installed["updates_by"], &installed["privileged"]), (&json!("rauc"), &json!(true)));
    end(agent, &fleet, helper);
}

#[test]
fn a_version_that_does_not_prove_itself_in_time_is_left_and_that_is_reported() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    assert_eq!(exit(agent), Some(7));
    board.boot("second boot");
    // Its agent never comes.
    let guard = board.guard();
    until("the guard waits", || fleet.processes().iter().any(|process| process.contains("system guard")));
    board.time("second boot", 61);
    until("the guard marks the slot and boots", || {
        board.get("state-B") == "bad" && board.get("calls").matches("systemctl reboot").count() == 2
    });
    drop(guard);
    board.boot("third boot");
    assert_eq!(board.get("booted"), "A");
    assert_eq!(board.guard().wait().code(), Some(0));
    let agent = fleet.silent_agent();
    let update = state(&fleet, "rolled_back");
    assert_eq!(update["state"]["fault"]["code"], "unhealthy", "{update}");
    end(agent, &fleet, helper);
}

#[test]
fn a_bootloader_that_went_back_by_itself_is_noticed() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    assert_eq!(exit(agent), Some(7));
    // A kernel that hangs: the watchdog, and no try is left.
    board.set("state-B", "bad");
    board.boot("third boot");
    let agent = fleet.silent_agent();
    let update = state(&fleet, "rolled_back");
    assert!(update["state"]["fault"]["text"].as_str().unwrap().contains("went back to 1"), "{update}");
    end(agent, &fleet, helper);
}

#[test]
fn bundles_that_root_does_not_trust_change_nothing_and_the_node_works_on() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    let failed = |order: Value, code: &str| {
        fleet.publish("command", &order);
        let id = order["command"]["update"]["id"].clone();
        let update = fleet.message("update", |u| u["id"] == id && u["state"]["kind"] == "failed");
        assert_eq!(update["state"]["fault"]["code"], code, "{update}");
        update["state"]["fault"]["text"].as_str().unwrap().to_owned()
    };
    let text = failed(board.order("unsigned", "2", "rauc", vec![7; 1000]), "bad_bundle");
    assert!(text.contains("signature verification failed"), "{text}");
    let mut other = board.rauc_order("other", "3");
    other["command"]["update"]["bundle"]["version"] = json!("2");
    assert!(failed(other, "bad_bundle").contains("version \"3\""));
    let mut damaged = board.rauc_order("damaged", "2");
    let digest = "0".repeat(64);
    damaged["command"]["update"]["bundle"]["sha256"] = json!(digest);
    let before = fleet.server.state.lock().unwrap().ranges.len();
    assert!(failed(damaged, "bad_bundle").contains("fetched twice"));
    assert_eq!(fleet.server.state.lock().unwrap().ranges.len(), before + 2);
    board.set("install-fails", "");
    assert!(failed(board.rauc_order("full", "2"), "install_failed").contains("No space left"));
    assert!(!board.was_asked("systemctl reboot"));
    assert_eq!(std::fs::read_dir(fleet.state_dir().join("update")).unwrap().count(), 1, "the journal alone");
    assert_eq!(std::fs::read_dir(fleet.home.path().join("root/staged")).unwrap().count(), 0);

    let mut wrong_board = board.rauc_order("wrong-board", "2");
    wrong_board["command"]["update"]["bundle"]["compatible"] = json!("another board");
    fleet.publish("command", &wrong_board);
    assert_eq!(reply(&fleet, "command-wrong-board")["code"], "bad_bundle", "before anything is fetched");
    fleet.publish("command", &board.deb_order("packages", "2"));
    assert_eq!(reply(&fleet, "command-packages")["code"], "unsupported");
    fleet.offer("t1", "show", b"fine");
    assert_eq!(fleet.end("t1")["event"]["kind"], "done", "it takes work again");
    end(agent, &fleet, helper);
}

#[test]
fn an_older_image_is_refused_before_it_is_fetched_unless_the_order_says_so() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("older", "0.9"));
    let fault = reply(&fleet, "command-older");
    assert_eq!(fault["code"], "bad_bundle");
    assert!(fault["text"].as_str().unwrap().contains("0.9 is older than 1, which runs"), "{fault}");
    assert!(fleet.server.state.lock().unwrap().ranges.is_empty());
    assert!(!board.get("calls").contains("rauc install"));
    fleet.publish("command", &with_downgrade(board.rauc_order("meant", "0.9")));
    assert_eq!(exit(agent), Some(7));
    assert_eq!(board.get("version-B"), "0.9");
    drop(helper);
    fleet.no_process_is_left();
}

#[test]
fn root_refuses_what_is_older_whatever_the_agent_and_the_order_say() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    board.root_says("allow_downgrade = false");
    let helper = board.helper();
    let ask = |order: &Value| {
        // As an agent that somebody has taken over would.
        board.put_bundle(order);
        board.ask(&json!({ "install": { "order": order["command"]["update"] } }))
    };
    let said = ask(&board.rauc_order("u1", "0.9"));
    assert!(said["fault"]["text"].as_str().unwrap().contains("0.9 is older than 1"), "{said}");
    let said = ask(&with_downgrade(board.rauc_order("u2", "0.9")));
    assert!(said["fault"]["text"].as_str().unwrap().contains("does not allow downgrades"), "{said}");
    // The order lies about a bundle that is older.
    let mut lie = board.rauc_order("u3", "0.9");
    lie["command"]["update"]["bundle"]["version"] = json!("3");
    let said = ask(&lie);
    assert!(said["fault"]["text"].as_str().unwrap().contains("version \"0.9\", and version \"3\""), "{said}");
    assert!(!board.get("calls").contains("rauc install"));
    drop(helper);
    fleet.no_process_is_left();
}

#[test]
fn an_update_is_cancelled_while_it_is_fetched() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.server.state.lock().unwrap().stall = Some("/v1/bundles".into());
    fleet.publish("command", &board.rauc_order("u1", "2"));
    state(&fleet, "fetching");
    until("the transfer stalls", || fleet.server.state.lock().unwrap().stalled);
    fleet.publish("command", &board.rauc_order("u2", "3"));
    assert_eq!(reply(&fleet, "command-u2")["code"], "busy");
    fleet.publish("command", &order("c1", json!({ "cancel_update": { "id": "u1" } })));
    assert_eq!(state(&fleet, "failed")["state"]["fault"]["code"], "revoked");
    assert_eq!(reply(&fleet, "c1"), Value::Null);
    end(agent, &fleet, helper);
}

#[test]
fn a_transfer_goes_on_after_the_agent_was_killed_in_the_middle_of_it() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let mut agent = fleet.agent();
    fleet.server.state.lock().unwrap().stall = Some("/v1/bundles".into());
    fleet.publish("command", &board.rauc_order("u1", "2"));
    let part = || {
        let files = std::fs::read_dir(fleet.state_dir().join("update")).into_iter().flatten().flatten();
        files
            .filter(|file| file.path().extension().is_some_and(|is| is == "part"))
            .map(|f| f.metadata().unwrap().len())
            .sum::<u64>()
    };
    until("some of it is on the disk", || part() > 0);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let came = usize::try_from(part()).unwrap();
    fleet.server.state.lock().unwrap().stall = None;
    let agent = fleet.silent_agent();
    assert_eq!(exit(agent), Some(7), "fetched and installed");
    assert_eq!(fleet.server.state.lock().unwrap().ranges, [came]);
    drop(helper);
    fleet.no_process_is_left();
}

#[test]
fn a_bundle_for_which_there_is_no_room_is_not_even_asked_for() {
    let mut fleet = Fleet::start();
    fleet.reserve = 1 << 20;
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    let update = state(&fleet, "failed");
    assert_eq!(update["state"]["fault"]["code"], "storage");
    assert!(update["state"]["fault"]["text"].as_str().unwrap().contains("must stay free"), "{update}");
    assert!(fleet.server.state.lock().unwrap().ranges.is_empty());
    end(agent, &fleet, helper);
}

#[test]
fn without_roots_helper_the_node_says_what_to_do_instead() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let agent = fleet.agent();
    fleet.publish("command", &board.rauc_order("u1", "2"));
    let fault = reply(&fleet, "command-u1");
    assert_eq!(fault["code"], "unsupported");
    assert!(fault["text"].as_str().unwrap().contains("headwater-system.socket"), "{fault}");
    fleet.publish("command", &order("r1", "reboot"));
    assert_eq!(reply(&fleet, "r1")["code"], "unsupported");
    agent.signal(Signal::SIGTERM);
    assert_eq!(exit(agent), Some(0));
    let agent = fleet.silent_agent();
    let installed = installation(&fleet);
    assert_eq!((&installed["privileged"], &installed["updates_by"]), (&json!(false), &Value::Null));
    drop(agent);
    fleet.no_process_is_left();
}

#[test]
fn a_boot_is_asked_for_after_the_work_is_done() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.offer("t1", "show", b"until it-may-end");
    fleet.message("event", |event| event["task"] == "t1" && event["event"]["decoded"] == 1);
    fleet.publish("command", &order("r1", "reboot"));
    assert_eq!(reply(&fleet, "r1"), Value::Null, "answered before");
    assert!(!board.was_asked("systemctl reboot"));
    std::fs::write(fleet.home.path().join("it-may-end"), "").unwrap();
    assert_eq!(fleet.end("t1")["event"]["kind"], "done");
    assert_eq!(exit(agent), Some(7));
    assert!(board.was_asked("systemctl reboot"));
    drop(helper);
    fleet.no_process_is_left();
}

#[test]
fn the_helper_is_started_by_its_socket_and_ends_when_nobody_asks() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    board.root_says("idle_seconds = 1");
    let socket = fleet.home.path().join("system.sock");
    // As systemd does with `StandardInput=socket`.
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let helper = board.system(&["serve"]).stdin(std::os::fd::OwnedFd::from(listener)).spawn().unwrap();
    let output = board.system(&["status", "--socket"]).arg(&socket).output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&status["updates_by"], &status["slot"]), (&json!("rauc"), &json!("A")));
    assert_eq!(Running(helper).wait().code(), Some(0));
    fleet.no_process_is_left();
}

#[test]
fn other_users_are_refused_by_the_helper() {
    let fleet = Fleet::start();
    let board = Board::with_slots(&fleet);
    board.serves("nobody");
    let helper = board.helper();
    let socket = fleet.home.path().join("system.sock");
    let mut stranger = board.system(&["status", "--socket"]);
    stranger.arg(socket);
    if geteuid().is_root() {
        // As `daemon`. The folder is the test's own.
        use std::os::unix::fs::PermissionsExt;
        let home = fleet.home.path();
        std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = home.join("agent");
        std::fs::copy(env!("CARGO_BIN_EXE_headwater-agent"), &program).unwrap();
        let args: Vec<_> = stranger.get_args().map(ToOwned::to_owned).collect();
        stranger = std::process::Command::new(program);
        stranger.args(args).uid(1).gid(1);
    }
    let output = stranger.stderr(std::process::Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("only root and nobody may"), "{text}");
    assert!(!board.was_asked("rauc status --detailed --output-format=json"), "nothing was done for it");
    drop(helper);
    fleet.no_process_is_left();
}
