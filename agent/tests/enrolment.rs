//! A node gets its certificate, or nothing is left.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;
use support::pki::Ca;
use support::{Fleet, Running, SECRET, fake_worker, order};

#[test]
fn a_token_makes_an_identity_once_and_only_force_replaces_it() {
    let fleet = Fleet::start();
    let output = fleet.enroll(&fleet.token());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("node orin-1 of fleet home"));
    let key = fleet.state_dir().join("identity/node.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();

    let again = fleet.enroll(&fleet.token());
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));

    let forced = fleet.command().args(["enroll", "--force", &fleet.token().to_string()]).output().unwrap();
    let text = String::from_utf8_lossy(&forced.stderr);
    assert_eq!(forced.status.code(), Some(4), "{text}");
    assert!(text.contains("this token was used already") && !text.contains(SECRET), "{text}");
    assert_eq!(std::fs::read(&key).unwrap(), before, "a failed enrolment keeps the old identity");
}

#[test]
fn a_server_with_another_ca_is_refused_before_the_secret_is_sent() {
    let fleet = Fleet::start();
    let mut token = fleet.token();
    token.ca_sha256 = Ca::new("other").fingerprint();
    let output = fleet.enroll(&token);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not the one of the token"));
    assert!(fleet.server.state.lock().unwrap().secrets_seen.is_empty());
    assert!(!fleet.state_dir().exists(), "nothing is left");
}

#[test]
fn a_gateway_that_cannot_answer_now_has_not_refused_the_token() {
    let fleet = Fleet::start();
    fleet.server.state.lock().unwrap().refuse = Some("/enroll".into());
    assert_eq!(fleet.enroll(&fleet.token()).status.code(), Some(70));
    fleet.server.state.lock().unwrap().refuse = None;
    // Too many boards at once; and before the gateway has shown whose it is, anything may answer: a router, a login page.
    for (path, status, body) in [
        ("/enroll/v1/certificate", "429 Too Many Requests", "try again in a minute"),
        ("/enroll/v1/certificate", "408 Request Timeout", ""),
        ("/enroll/v1/ca", "429 Too Many Requests", ""),
        ("/enroll/v1/ca", "404 Not Found", "<h1>Router</h1>"),
        ("/enroll/v1/ca", "302 Found", ""),
        ("/enroll/v1/ca", "200 OK", "<h1>Please log in</h1>"),
        ("/enroll/v1/ca", "200 OK", "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n"),
    ] {
        fleet.server.state.lock().unwrap().instead = Some((path, status, body));
        let output = fleet.enroll(&fleet.token());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{path} {status}: {text}");
    }
    fleet.server.state.lock().unwrap().instead = None;
    assert!(fleet.enroll(&fleet.token()).status.success());
}

#[test]
fn a_token_is_read_from_standard_input_and_a_damaged_one_is_not_shown() {
    let fleet = Fleet::start();
    let enroll = |token: &str| {
        let mut child = fleet
            .command()
            .args(["enroll", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let damaged = enroll(&fleet.token().to_string().replace("hw1/home", "hw1/ho me"));
    assert_eq!(damaged.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&damaged.stderr).contains(SECRET));
    assert!(enroll(&format!("{}\n", fleet.token())).status.success());
}

#[test]
fn whoever_enrols_a_board_without_a_worker_is_told_what_to_install() {
    let fleet = Fleet::start();
    let worker = fleet.home.path().join("headwater-worker");
    let enrol = |arguments: &[&str]| {
        let mut command = fleet.command_with(&worker);
        let output = command.arg("enroll").args(arguments).arg(fleet.token().to_string()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = enrol(&[]);
    assert_eq!(code, Some(0), "the identity is good, and the token is spent: {text}");
    assert!(text.contains("headwater-worker is not there"), "{text}");
    assert!(text.contains("apt install ./headwater-worker_*.deb"), "{text}");

    // Nor does the agent fall: it says so, and takes the worker once it is there.
    let log = std::fs::File::create(fleet.home.path().join("agent.log")).unwrap();
    let agent = Running(fleet.command_with(&worker).arg("run").stderr(log).spawn().unwrap());
    fleet.message("birth", |birth| birth["capabilities"] == json!([]));
    assert!(fleet.log().contains("apt install ./headwater-worker_*.deb"), "{}", fleet.log());
    std::fs::copy(fake_worker(), &worker).unwrap();
    fleet.publish("command", &order("again", "probe"));
    fleet.message("birth", |birth| birth["capabilities"] != json!([]));
    drop(agent);
    fleet.no_process_is_left();
}

#[test]
fn without_an_identity_the_agent_says_what_to_do() {
    let fleet = Fleet::start();
    let output = fleet.command().output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("headwater-agent enroll TOKEN"));
}
