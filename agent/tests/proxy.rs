//! A board behind a company's proxy.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::board::Board;
use support::proxy::{self, PASSWORD, Proxy, USER};
use support::{Fleet, Running, free_port, with_header};

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

fn end(mut agent: Running, fleet: &Fleet) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
    fleet.no_process_is_left();
}

fn hides_the_password(text: &str) {
    assert!(!text.contains("s3cret") && !text.contains(PASSWORD), "{text}");
}

#[test]
fn enrolment_control_media_and_bundles_go_through_the_proxy_alone() {
    let mut fleet = Fleet::start();
    let proxy = Proxy::anywhere(&fleet);
    fleet.proxy = proxy.url();
    let (broker, gateway) = (fleet.port, port_of(&fleet.server.url()));
    let output = fleet.enroll(&fleet.token());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let enrolled = proxy.ways_to(gateway);
    assert!(enrolled >= 2, "enrolment has its own connections");
    let board = Board::with_slots(&fleet);
    let helper = board.helper();
    let agent = fleet.agent();
    assert_eq!(proxy.ways_to(broker), 1);
    fleet.offer("t1", "show", b"a segment");
    assert_eq!(fleet.end("t1")["event"]["kind"], "done");
    assert!(fleet.server.output("/out/t1/high").is_some());
    let media = proxy.ways_to(gateway);
    assert!(media > enrolled);
    fleet.server.state.lock().unwrap().stall = Some("/v1/bundles".into());
    fleet.publish("command", &board.rauc_order("u1", "2"));
    support::until("the bundle is asked for", || fleet.server.state.lock().unwrap().stalled);
    let direct = fleet.server.connections.load(std::sync::atomic::Ordering::Relaxed);
    // One way was only tried out.
    assert_eq!(proxy.ways_to(gateway), direct, "nothing went past the proxy");
    // Without the proxy there is no way.
    drop(proxy);
    fleet.message("status", |status| status["state"] == "offline");
    hides_the_password(&fleet.log());
    drop(helper);
    end(agent, &fleet);
}

fn enrolled_through(fleet: &mut Fleet, proxy: String) -> (Option<i32>, String) {
    fleet.proxy = proxy;
    let Output { status, stderr, .. } = fleet.enroll(&fleet.token());
    let text = String::from_utf8_lossy(&stderr).into_owned();
    hides_the_password(&text);
    (status.code(), text)
}

#[test]
fn a_proxy_that_does_not_let_the_board_through_is_named_with_what_to_do() {
    let mut fleet = Fleet::start();
    let only = free_port();
    let proxy = Proxy::start(&fleet, free_port(), &[only]);
    let at = proxy.url().rsplit('@').next().unwrap().to_owned();
    let mut says = |proxy: String, words: &str| {
        let (code, text) = enrolled_through(&mut fleet, proxy);
        assert_eq!(code, Some(70), "{text}");
        assert!(text.contains(words), "{text}");
    };
    says(format!("http://{at}"), &format!("the proxy {at} wants to know who asks"));
    says(format!("http://{USER}:wrong@{at}"), "does not take the user and password");
    says(proxy.url(), "ask who runs it to allow CONNECT to this host and port");
    says(proxy::url(only), "cannot be reached: Connection refused");
    // Speaks first, and no HTTP.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 1024]);
    });
    says(proxy::url(port), "is no HTTP proxy");
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    says(proxy::url(mute.local_addr().unwrap().port()), "does not answer");
    assert!(fleet.server.state.lock().unwrap().secrets_seen.is_empty());
    let (code, text) = enrolled_through(&mut fleet, "http://board:s3cret@proxy:port".to_owned());
    assert_eq!(code, Some(2));
    assert!(text.contains("agent.toml is not a valid configuration: line 1: a proxy is written"), "{text}");
    assert!(!fleet.state_dir().exists(), "nothing is left");
}

#[test]
fn a_gateway_that_the_proxy_cannot_reach_is_not_the_proxys_fault() {
    let mut fleet = Fleet::start();
    let proxy = Proxy::anywhere(&fleet);
    let mut token = fleet.token();
    token.url = format!("https://127.0.0.1:{}", free_port());
    fleet.proxy = proxy.url();
    let output = fleet.enroll(&token);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("cannot reach 127.0.0.1:") && text.contains("is the gateway up"), "{text}");
}

#[test]
fn a_running_agent_says_why_its_proxy_does_not_let_it_through_and_connects_once_it_does() {
    let mut fleet = Fleet::start();
    let output = fleet.enroll(&fleet.token());
    assert!(output.status.success());
    let port = free_port();
    let narrow = Proxy::start(&fleet, port, &[port_of(&fleet.server.url())]);
    fleet.proxy = narrow.url();
    let mut agent = fleet.silent_agent();
    let to = format!("through to 127.0.0.1:{}", fleet.port);
    support::until("the log says why", || fleet.log().contains(&to) && fleet.log().contains("retry_in"));
    agent.signal(Signal::SIGKILL);
    agent.wait();
    drop(narrow);
    let wide = Proxy::start(&fleet, port, &[]);
    let refused = wide.ways_to(fleet.port);
    let agent = fleet.agent();
    assert_eq!(wide.ways_to(fleet.port), refused + 1);
    hides_the_password(&fleet.log());
    end(agent, &fleet);
}

fn config(revision: u64, settings: Value) -> Value {
    with_header(json!({ "revision": revision, "settings": settings }))
}

#[test]
fn a_proxy_comes_over_mqtt_and_one_that_cuts_the_node_off_goes_again() {
    let mut fleet = Fleet::start();
    fleet.config_limit = 5;
    let mut agent = fleet.agent();
    let proxy = Proxy::anywhere(&fleet);
    fleet.publish("config", &config(1, json!({ "proxy": proxy.url() })));
    assert_eq!(agent.wait().code(), Some(6));
    let mut agent = fleet.silent_agent();
    let birth = fleet.message("birth", |birth| birth["config"]["revision"] == 1);
    assert_eq!(birth["config"]["fault"], Value::Null);
    hides_the_password(&birth.to_string());
    assert_eq!(proxy.ways_to(fleet.port), 1);

    let nobody = proxy::url(free_port());
    fleet.publish("config", &config(2, json!({ "proxy": nobody })));
    assert_eq!(agent.wait().code(), Some(6));
    let mut agent = fleet.silent_agent();
    assert_eq!(agent.wait().code(), Some(6), "it gives up by itself");
    let mut agent = fleet.silent_agent();
    let birth = fleet.message("birth", |birth| birth["config"]["revision"] == 2);
    assert_eq!(birth["config"]["fault"]["code"], "config_rolled_back", "{birth}");
    hides_the_password(&birth.to_string());
    assert_eq!(proxy.ways_to(fleet.port), 2, "through the earlier proxy again");

    fleet.publish("config", &config(3, json!({ "proxy": "https://me:s3cret@proxy:3128" })));
    let birth = fleet.message("birth", |birth| birth["config"]["revision"] == 3);
    assert!(birth["config"]["fault"]["text"].as_str().unwrap().starts_with("proxy: a proxy is written"));
    hides_the_password(&birth.to_string());

    fleet.publish("config", &config(4, json!({})));
    assert_eq!(agent.wait().code(), Some(6));
    let agent = fleet.silent_agent();
    fleet.message("birth", |birth| birth["config"]["revision"] == 4);
    assert_eq!(proxy.ways_to(fleet.port), 2, "and without one");
    hides_the_password(&fleet.log());
    end(agent, &fleet);
}
