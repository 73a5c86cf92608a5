//! Several segments of a stream at once, and workers that harm nobody but themselves.

#[allow(dead_code, reason = "each test binary uses its part of the support code")]
mod support;

use std::fs;

use headwater_protocol::Evidence;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Fleet, Running, offer, order, revoke, until};

fn two_at_once() -> Fleet {
    let mut fleet = Fleet::start();
    fleet.in_flight = 2;
    fleet
}

/// Lets go of the worker whose input was `until NAME`.
fn let_go(fleet: &Fleet, name: &str) {
    fs::write(fleet.home.path().join(name), "").unwrap();
}

fn working(fleet: &Fleet, task: &str) {
    fleet.message("event", |event| event["task"] == task && event["event"]["decoded"] == 1);
}

fn end(mut agent: Running, fleet: &Fleet) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0));
    fleet.no_process_is_left();
}

fn code(event: &Value) -> &str {
    event["event"]["fault"]["code"].as_str().unwrap_or("done")
}

/// Elements that the node said at its birth that it can encode with.
fn encoders(birth: &Value) -> Vec<&str> {
    let capabilities = birth["capabilities"].as_array().unwrap().iter();
    capabilities.filter(|c| c["kind"] == "encode").map(|c| c["element"].as_str().unwrap()).collect()
}

#[test]
fn two_segments_of_a_stream_run_at_once_and_end_in_any_order() {
    let fleet = two_at_once();
    let agent = fleet.agent();
    fleet.offer("first", "show", b"until first-may-end");
    working(&fleet, "first");
    fleet.offer("second", "show", b"fine");
    // Its answer comes while the first still runs.
    assert_eq!(code(&fleet.end("second")), "done");
    assert_eq!(fleet.workers().len(), 2);
    fleet.offer("third", "show", b"until third-may-end");
    working(&fleet, "third");
    fleet.offer("waits", "show", b"fine");
    fleet.event("waits", "accepted");
    fleet.offer("too-much", "show", b"fine");
    assert_eq!(code(&fleet.end("too-much")), "busy", "two run and one waits");
    let_go(&fleet, "third-may-end");
    let third = fleet.end("third");
    assert_eq!(third["event"]["report"]["warm"], true, "the second's worker: {third}");
    assert_eq!(code(&fleet.end("waits")), "done");
    let_go(&fleet, "first-may-end");
    assert_eq!(code(&fleet.end("first")), "done");
    for task in ["first", "second", "third", "waits"] {
        assert!(fleet.server.output(&format!("/out/{task}/high")).is_some(), "{task}");
    }
    let telemetry = fleet.message("telemetry", |t| t["workers"][0]["segments"] == 4);
    assert_eq!(telemetry["workers"].as_array().unwrap().len(), 1, "one stream: {telemetry}");
    end(agent, &fleet);
}

#[test]
fn a_second_worker_that_is_not_needed_any_more_ends_while_the_first_works_on() {
    let mut fleet = two_at_once();
    fleet.idle = 1;
    let agent = fleet.agent();
    fleet.offer("long", "show", b"until it-may-end");
    working(&fleet, "long");
    let first = fleet.workers();
    fleet.offer("short", "show", b"fine");
    assert_eq!(code(&fleet.end("short")), "done");
    until("the second worker ends", || fleet.workers() == first);
    let_go(&fleet, "it-may-end");
    assert_eq!(code(&fleet.end("long")), "done");
    end(agent, &fleet);
}

/// A segment that only the device with its two sessions encodes, where it is all that does.
fn hevc(fleet: &Fleet, task: &str, stream: &str, input: &[u8]) {
    fleet.server.put_input(&format!("/in/{task}"), input);
    let mut offer = offer(task, stream, input.len());
    for rendition in offer["ladder"].as_array_mut().unwrap() {
        rendition["codec"] = json!("hevc");
    }
    fleet.publish("offer", &offer);
}

#[test]
fn segments_follow_each_other_where_the_device_has_no_sessions_for_a_second_worker() {
    let fleet = two_at_once();
    fs::write(fleet.home.path().join("few"), "").unwrap();
    let agent = fleet.agent();
    hevc(&fleet, "first", "hard-a", b"until it-may-end");
    working(&fleet, "first");
    hevc(&fleet, "second", "hard-a", b"fine");
    fleet.message("event", |event| event["task"] == "second" && event["event"]["kind"] == "accepted");
    let_go(&fleet, "it-may-end");
    assert_eq!(code(&fleet.end("first")), "done");
    let done = fleet.end("second");
    assert_eq!((code(&done), &done["number"]["n"]), ("done", &json!(4)), "after the first: {done}");
    assert_eq!(fleet.log().matches("fakedeviceenc: 2 of 2 sessions").count(), 1, "one worker did both");
    end(agent, &fleet);
}

#[test]
fn a_device_that_is_in_use_is_named_in_the_refusal_and_an_idle_stream_gives_it_away() {
    let mut fleet = Fleet::start();
    fleet.workers = 2;
    fs::write(fleet.home.path().join("few"), "").unwrap();
    let agent = fleet.agent();
    hevc(&fleet, "first", "hard-a", b"until it-may-end");
    working(&fleet, "first");
    hevc(&fleet, "second", "hard-b", b"fine");
    let refused = fleet.end("second");
    let said = "fakedeviceenc here runs 2 at once, of which 2 are in use, and the ladder wants 2";
    assert_eq!((code(&refused), refused["event"]["fault"]["text"].as_str()), ("busy", Some(said)));
    // A probe beside them would find that fewer run at once.
    fleet.publish("command", &order("count", "probe"));
    let reply = fleet.message("reply", |reply| reply["id"] == "count");
    assert_eq!(reply["fault"]["code"], "busy", "{reply}");
    let_go(&fleet, "it-may-end");
    assert_eq!(code(&fleet.end("first")), "done");
    hevc(&fleet, "third", "hard-b", b"fine");
    assert_eq!(code(&fleet.end("third")), "done");
    let told = || fleet.log().matches("fakedeviceenc: 2 of 2 sessions").count();
    until("both workers have said what they may use", || told() == 2);
    end(agent, &fleet);
}

#[test]
fn a_crash_a_cancel_and_a_bad_segment_cost_themselves_alone() {
    let fleet = two_at_once();
    let agent = fleet.agent();
    fleet.offer("stays", "show", b"until it-may-end");
    working(&fleet, "stays");
    for (task, input, expected) in
        [("crashes", &b"crash"[..], "worker_crashed"), ("fails", b"fail", "pipeline_failed")]
    {
        fleet.offer(task, "show", input);
        assert_eq!(code(&fleet.end(task)), expected);
    }
    fleet.offer("cancelled", "show", b"wait");
    working(&fleet, "cancelled");
    fleet.publish("revoke", &revoke("cancelled"));
    assert_eq!(code(&fleet.end("cancelled")), "revoked");
    let_go(&fleet, "it-may-end");
    let done = fleet.end("stays");
    assert_eq!(code(&done), "done");
    let log = fleet.log();
    let mut failures = log.lines().filter(|line| line.contains("failed code=")).peekable();
    assert!(failures.peek().is_some() && failures.all(|line| line.contains("task=")), "{log}");
    // Four were accepted and ended, each once: eight numbers, no gap and no double.
    assert_eq!(done["number"]["n"], 8, "{done}");
    end(agent, &fleet);
}

/// Does `inputs` one after the other, and gives of each whether its worker was warm, and that worker.
fn served(fleet: &Fleet, inputs: &[&str]) -> Vec<(bool, i32)> {
    let mut served = Vec::new();
    for (at, input) in inputs.iter().enumerate() {
        let task = format!("t{at}");
        // Right after the last one's answer, while its worker may be on its way out.
        fleet.offer(&task, "show", format!("{input}until go-{task}").as_bytes());
        working(fleet, &task);
        let here: Vec<i32> = fleet.workers().iter().map(|pid| pid.as_raw()).collect();
        let [worker] = here[..] else { panic!("one segment, one worker: {here:?}, before {served:?}") };
        let_go(fleet, &format!("go-{task}"));
        let done = fleet.end(&task);
        assert_eq!(code(&done), "done", "{done}");
        // Accepted and done, each once: no attempt was lost or made twice.
        assert_eq!(done["number"]["n"], 2 * (at as u64 + 1), "{done}");
        served.push((done["event"]["report"]["warm"].as_bool().unwrap(), worker));
    }
    served
}

#[test]
fn a_worker_that_has_done_its_number_of_segments_is_replaced_between_two() {
    let mut fleet = Fleet::start();
    fleet.limits = "worker_segments = 2".into();
    let agent = fleet.agent();
    let [(false, a), (true, b), (false, c), (true, d), (false, e)] = served(&fleet, &[""; 5])[..] else {
        panic!("every second segment has a fresh worker")
    };
    assert!(a == b && c == d && a != c && c != e);
    end(agent, &fleet);
}

#[test]
fn a_worker_that_has_grown_too_large_is_replaced_after_its_segment() {
    let mut fleet = Fleet::start();
    fleet.limits = "worker_memory_mib = 100".into();
    let agent = fleet.agent();
    let [(false, a), (true, b), (false, c), (true, d)] = served(&fleet, &["", "grow ", "", ""])[..] else {
        panic!("the one behind the large one has a fresh worker")
    };
    assert!(a == b && c == d && a != c);
    end(agent, &fleet);
}

#[test]
fn garbage_and_floods_on_both_outputs_hurt_nothing_and_are_counted() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.offer("noise", "show", b"noise");
    assert_eq!(code(&fleet.end("noise")), "done");
    fleet.offer("again", "show", b"flood");
    assert_eq!(code(&fleet.end("again")), "done");
    let log = fleet.log();
    assert!(log.len() < 300_000, "{} bytes of log from 11 MB of noise", log.len());
    assert!(log.contains("dropped="), "{log}");
    end(agent, &fleet);
}

#[test]
fn a_worker_that_ignores_sigterm_is_killed_after_its_segment_was_answered() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.offer("deaf", "show", b"deaf");
    assert_eq!(code(&fleet.end("deaf")), "worker_hung");
    fleet.offer("next", "show", b"fine");
    assert_eq!(code(&fleet.end("next")), "done");
    assert_eq!(fleet.workers().len(), 1, "the deaf one is gone");
    end(agent, &fleet);
}

#[test]
fn a_spare_worker_is_there_before_it_is_needed_and_replaced_once_it_is_taken() {
    let mut fleet = Fleet::start();
    fleet.spare = true;
    let agent = fleet.agent();
    until("a spare worker is there", || fleet.workers().len() == 1);
    let spare = fleet.workers();
    fleet.offer("t1", "show", b"fine");
    assert_eq!(code(&fleet.end("t1")), "done");
    until("another spare worker is there", || fleet.workers().len() == 2);
    assert!(fleet.workers().contains(&spare[0]), "it is the stream's now");
    end(agent, &fleet);
}

#[test]
fn a_spare_worker_from_before_a_probe_is_replaced_after_it() {
    let mut fleet = Fleet::start();
    fleet.spare = true;
    let agent = fleet.agent();
    until("a spare worker is there", || fleet.workers().len() == 1);
    let spare = fleet.workers();
    fleet.publish("command", &order("again", "probe"));
    fleet.message("reply", |reply| reply["id"] == "again");
    until("another spare worker is there", || fleet.workers().iter().any(|worker| *worker != spare[0]));
    until("the earlier one is gone", || fleet.workers().len() == 1);
    end(agent, &fleet);
}

#[test]
fn what_a_failed_attempt_leaves_behind_is_put_to_the_gateway() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    let put = |task: &str| {
        until("evidence comes", || fleet.server.output(&format!("/evidence/{task}")).is_some());
        let bytes = fleet.server.output(&format!("/evidence/{task}")).unwrap();
        serde_json::from_slice::<Evidence>(&bytes).unwrap()
    };
    fleet.offer("fails", "show", b"fail");
    fleet.end("fails");
    let evidence = put("fails");
    assert_eq!(evidence.graphs[0].dot, "digraph pipeline {}");
    assert_eq!(evidence.log, "a last line");
    assert!(evidence.fault.unwrap().text.contains("as asked"));
    fleet.offer("crashes", "show", b"crash");
    fleet.end("crashes");
    assert!(put("crashes").output.contains("the last words of a worker"));
    end(agent, &fleet);
}

#[test]
fn a_device_that_hangs_twice_is_not_used_again_until_the_next_boot() {
    let fleet = Fleet::start();
    let mut agent = fleet.agent();
    fleet.offer("h1", "hard", b"hang");
    assert_eq!(code(&fleet.end("h1")), "worker_hung");
    fleet.offer("h2", "hard", b"hang");
    // The event waits for the disk, so either may come first.
    let (mut hung, mut birth) = (false, Value::Null);
    fleet.receive("end and birth", |channel, message| {
        hung |= channel == "event" && message["task"] == "h2" && code(message) == "worker_hung";
        if channel == "birth" {
            birth = message.clone();
        }
        hung && birth != Value::Null
    });
    assert_eq!(encoders(&birth), ["copy"]);
    assert_eq!(birth["avoids"][0]["element"], "fakedeviceenc");
    fleet.offer("software", "hard", b"fine");
    assert_eq!(code(&fleet.end("software")), "done");
    until("the worker says so", || fleet.log().contains("planned without fakedeviceenc: it hung"));

    agent.signal(Signal::SIGTERM);
    agent.wait();
    let mut agent = fleet.silent_agent();
    let birth = fleet.message("birth", |_| true);
    assert_eq!(encoders(&birth), ["copy"], "a restarted agent remembers");
    agent.signal(Signal::SIGTERM);
    agent.wait();

    // As after a boot: the file is of another one.
    let file = fleet.state_dir().join("quarantine.json");
    let mut held: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    held["boot_id"] = json!("an earlier boot");
    fs::write(&file, held.to_string()).unwrap();
    let agent = fleet.silent_agent();
    let birth = fleet.message("birth", |_| true);
    assert_eq!(encoders(&birth), ["copy", "fakedeviceenc"]);
    end(agent, &fleet);
}

/// A process in D state needs a driver that hangs. What it means for the agent is the same as here, where the test
/// traces the worker: SIGKILL is sent, and the process is still there however long its parent waits.
#[test]
fn a_worker_that_not_even_sigkill_ends_is_left_behind_and_its_device_avoided() {
    let fleet = Fleet::start();
    let agent = fleet.agent();
    fleet.offer("stuck", "hard", b"until never");
    working(&fleet, "stuck");
    let worker = fleet.workers()[0];
    ptrace::seize(worker, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(worker).unwrap();
    let failed = fleet.end("stuck");
    assert_eq!(code(&failed), "worker_hung", "answered in time: {failed}");
    let birth = fleet.message("birth", |birth| birth["avoids"] != Value::Null);
    assert!(birth["avoids"][0]["reason"].as_str().unwrap().contains("could not be killed"), "{birth}");
    fleet.offer("next", "hard", b"fine");
    assert_eq!(code(&fleet.end("next")), "done");
    until("the worker says so", || fleet.log().contains("planned without fakedeviceenc"));
    end(agent, &fleet);
    nix::sys::wait::waitpid(worker, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
}
