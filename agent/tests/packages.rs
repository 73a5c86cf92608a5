//! Updates by packages: who installs them, what comes back, what is too old.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use serde_json::{Value, json};
use support::board::Board;
use support::follow::{end, exit, reply, state, with_downgrade};
use support::{Fleet, until};

#[test]
fn packages_are_installed_by_the_guard_and_the_next_ones_have_a_way_back() {
    let fleet = Fleet::start();
    let board = Board::with_packages(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.deb_order("u2", "2"));
    assert_eq!(exit(agent), Some(6), "the new program is started by the service manager");
    assert_eq!(board.get("installed"), "2");
    let agent = fleet.silent_agent();
    state(&fleet, "done");
    board.no_guard_is_left();

    fleet.publish("command", &board.deb_order("u3", "3"));
    assert_eq!(exit(agent), Some(6));
    // Its agent never comes.
    board.time("first boot", 161);
    until("the guard brings version 2 back", || board.get("installed") == "2");
    board.no_guard_is_left();
    assert!(board.was_asked("systemctl restart headwater-agent.service"));
    let agent = fleet.silent_agent();
    let update = state(&fleet, "rolled_back");
    assert_eq!((&update["id"], &update["state"]["fault"]["code"]), (&json!("u3"), &json!("unhealthy")));

    end(agent, &fleet, helper);
}

#[test]
fn the_first_packages_have_a_way_back_to_what_was_installed_by_hand() {
    let fleet = Fleet::start();
    let board = Board::with_packages(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.deb_order("u2", "2"));
    assert_eq!(exit(agent), Some(6));
    assert_eq!(board.get("installed"), "2");
    // Its agent never comes.
    board.time("first boot", 161);
    until("the guard brings version 1 back", || board.get("installed") == "1");
    board.no_guard_is_left();
    let agent = fleet.silent_agent();
    let update = state(&fleet, "rolled_back");
    assert_eq!(update["state"]["fault"]["code"], "unhealthy", "{update}");

    // What was packed is still there: once is enough.
    fleet.publish("command", &board.deb_order("u3", "3"));
    assert_eq!(exit(agent), Some(6));
    let agent = fleet.silent_agent();
    fleet.message("update", |update| update["id"] == "u3" && update["state"]["kind"] == "done");
    board.no_guard_is_left();
    assert_eq!(board.get("calls").matches("dpkg-repack").count(), 1);
    end(agent, &fleet, helper);
}

#[test]
fn real_dpkg_and_dpkg_repack_bring_back_the_version_before_and_leave_the_owners_configuration() {
    let fleet = Fleet::start();
    let board = Board::with_dpkg(&fleet, &["headwater-agent"]);
    let configuration = "root/etc/headwater/agent.toml";
    board.set(configuration, "# of the owner");
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.deb_order("u2", "2"));
    assert_eq!(exit(agent), Some(6));
    assert_eq!(board.installed("headwater-agent"), "ii 2");
    // Its agent never comes.
    board.time("first boot", 161);
    until("the guard brings version 1 back", || board.installed("headwater-agent") == "ii 1");
    board.no_guard_is_left();
    assert_eq!(board.get(configuration), "# of the owner");
    let agent = fleet.silent_agent();
    state(&fleet, "rolled_back");
    end(agent, &fleet, helper);
}

/// Versions of agent and worker by real dpkg, after a bundle of the agent alone and then one of both whose agent never comes.
fn of_both(repack: bool) -> ([String; 2], Value) {
    const BOTH: [&str; 2] = ["headwater-agent", "headwater-worker"];
    let fleet = Fleet::start();
    let board = Board::with_dpkg(&fleet, &BOTH);
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.deb_order("u2", "2"));
    assert_eq!(exit(agent), Some(6));
    let agent = fleet.silent_agent();
    state(&fleet, "done");
    board.no_guard_is_left();

    if !repack {
        board.set("repack-fails", "");
    }
    fleet.publish("command", &board.deb_order_of("u3", "3", &BOTH.map(|package| (package, "3"))));
    assert_eq!(exit(agent), Some(6));
    assert_eq!(BOTH.map(|package| board.installed(package)), ["ii 3", "ii 3"]);
    // Its agent never comes.
    board.time("first boot", 161);
    board.no_guard_is_left();
    let installed = BOTH.map(|package| board.installed(package));
    let agent = fleet.silent_agent();
    let update = fleet.receive("end of the update", |channel, message| {
        let state = &message["state"]["kind"];
        channel == "update" && message["id"] == "u3" && (state == "rolled_back" || state == "failed")
    });
    end(agent, &fleet, helper);
    (installed, update["state"]["kind"].clone())
}

#[test]
fn a_package_that_no_update_had_brought_comes_back_with_the_others() {
    assert_eq!(of_both(true), (["ii 2".to_owned(), "ii 1".to_owned()], json!("rolled_back")));
}

#[test]
fn packages_of_which_only_some_could_come_back_stay_all_together() {
    assert_eq!(of_both(false), (["ii 3".to_owned(), "ii 3".to_owned()], json!("failed")));
}

#[test]
fn without_a_way_back_packages_that_prove_nothing_stay_and_make_room_for_the_next() {
    let fleet = Fleet::start();
    let board = Board::with_packages(&fleet);
    board.set("repack-fails", "");
    let helper = board.helper();
    let agent = fleet.agent();
    fleet.publish("command", &board.deb_order("u2", "2"));
    assert_eq!(exit(agent), Some(6));
    board.time("first boot", 161);
    board.no_guard_is_left();
    let log = std::fs::read_to_string(fleet.home.path().join("system.log")).unwrap();
    assert!(log.contains("not to be packed") && log.contains("it stays"), "{log}");
    assert_eq!(board.get("installed"), "2");
    let agent = fleet.silent_agent();
    let update = state(&fleet, "failed");
    assert!(update["state"]["fault"]["text"].as_str().unwrap().contains("it stays"), "{update}");
    // The repaired version, which is not refused for an update that is over.
    fleet.publish("command", &board.deb_order("u3", "3"));
    assert_eq!(exit(agent), Some(6));
    let agent = fleet.silent_agent();
    state(&fleet, "done");
    assert_eq!(board.get("installed"), "3");
    board.no_guard_is_left();
    end(agent, &fleet, helper);
}

#[test]
fn an_older_package_in_a_newer_bundle_is_refused_too() {
    let fleet = Fleet::start();
    let board = Board::with_packages(&fleet);
    board.set("installed", "2");
    let helper = board.helper();
    let agent = fleet.agent();
    // The manifest's version is the bundle's alone.
    fleet.publish("command", &board.deb_order_of("u3", "3", &[("headwater-agent", "1")]));
    let update = state(&fleet, "failed");
    let text = update["state"]["fault"]["text"].as_str().unwrap();
    assert!(text.contains("headwater-agent 1 is older than the installed 2"), "{update}");
    fleet.publish("command", &board.deb_order("u1", "1"));
    assert!(reply(&fleet, "command-u1")["text"].as_str().unwrap().contains("1 is older than 2, which runs"));
    fleet.publish("command", &with_downgrade(board.deb_order("u2", "1")));
    assert_eq!(exit(agent), Some(6));
    assert_eq!(board.get("installed"), "1");
    let agent = fleet.silent_agent();
    state(&fleet, "done");
    board.no_guard_is_left();
    end(agent, &fleet, helper);
}

#[test]
fn a_board_takes_packages_of_the_signer_whom_root_was_told_to_trust() {
    let fleet = Fleet::start();
    let board = Board::with_packages(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    let home = fleet.home.path();
    let order = board.deb_order("u2", "2");
    let (keyring, signer) = (home.join("keyring.pem"), home.join("signer.pem"));
    std::fs::rename(&keyring, &signer).unwrap();
    fleet.publish("command", &order);
    let update = state(&fleet, "failed");
    let text = update["state"]["fault"]["text"].as_str().unwrap();
    assert!(text.contains("headwater-agent system trust FILE"), "{update}");

    let trust = |file: &str| {
        let output = board.system(&["trust", file]).stderr(std::process::Stdio::piped()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (good, said) = trust("release.key");
    assert!(!good && said.contains("holds no certificate") && !keyring.exists(), "{said}");
    // As people keep them: key and certificate in one file.
    let both = [home.join("release.key"), signer].map(|path| std::fs::read(path).unwrap()).concat();
    std::fs::write(home.join("both.pem"), both).unwrap();
    let (good, said) = trust("both.pem");
    assert!(good && said.contains("packages that release signed"), "{said}");
    assert!(!std::fs::read_to_string(&keyring).unwrap().contains("PRIVATE KEY"));

    fleet.publish("command", &board.deb_order("u3", "3"));
    assert_eq!(exit(agent), Some(6));
    let agent = fleet.silent_agent();
    fleet.message("update", |update| update["id"] == "u3" && update["state"]["kind"] == "done");
    board.no_guard_is_left();
    end(agent, &fleet, helper);
}
