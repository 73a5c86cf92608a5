//! Updates by the operator's command, on played boards: real bundles, real MQTT, real HTTPS.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use headwater_gateway::operate::views::UpdateView;
use headwater_gateway::rollout::State;
use headwater_protocol::message::NodeState;
use headwater_protocol::{Code, Fault};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::board::Fate;
use crate::harness::{Gateway, until};
use crate::node::Node;

/// A bundle for `board-x`, made by RAUC itself.
pub(crate) fn bundle(dir: &Path, version: &str) -> PathBuf {
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    if !dir.join("key.pem").exists() {
        let request =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"];
        run("openssl", &[&request[..], &["-subj", "/CN=signer"]].concat());
    }
    let content = dir.join(format!("content-{version}"));
    std::fs::create_dir_all(&content).unwrap();
    let manifest = format!(
        "[update]\ncompatible=board-x\nversion={version}\n[bundle]\nformat=verity\n[image.rootfs]\nfilename=a.ext4\n"
    );
    std::fs::write(content.join("manifest.raucm"), manifest).unwrap();
    // Nothing that squashfs could shrink.
    let mut noise = vec![0u8; 300_000];
    getrandom::fill(&mut noise).unwrap();
    std::fs::write(content.join("a.ext4"), noise).unwrap();
    let out = dir.join(format!("{version}.raucb"));
    run(
        "rauc",
        &[
            "bundle",
            "--cert",
            "cert.pem",
            "--key",
            "key.pem",
            content.to_str().unwrap(),
            out.to_str().unwrap(),
        ],
    );
    out
}

struct Fleet {
    gateway: Gateway,
    boards: Vec<Node>,
    bundle: PathBuf,
}

impl Fleet {
    async fn of(fates: &[Fate]) -> Self {
        let gateway = Gateway::start().await;
        let mut boards = Vec::new();
        for (index, fate) in fates.iter().enumerate() {
            boards.push(Node::start_board(&gateway, &format!("n{}", index + 1), fate.clone()).await);
        }
        let bundle = bundle(gateway.dir.path(), "0.2.0");
        Self { gateway, boards, bundle }
    }

    async fn update(&self, arguments: &[&str]) -> Output {
        let all = [&["update", "all", self.bundle.to_str().unwrap()], arguments].concat();
        self.gateway.headwater(&all).await
    }

    /// Starts one and leaves it; its id.
    async fn begin(&self, arguments: &[&str]) -> String {
        let output = self.update(&[arguments, &["--detach", "--json"]].concat()).await;
        assert!(output.status.success(), "{output:?}");
        let view: UpdateView = serde_json::from_slice(&output.stdout).unwrap();
        view.update.id.to_string()
    }

    async fn view(&self, id: &str) -> UpdateView {
        self.gateway.get(&format!("/api/v1/updates/{id}")).await.json().await.unwrap()
    }

    async fn wait(&self, id: &str, what: &str, fits: impl Fn(&UpdateView) -> bool) -> UpdateView {
        let mut seen = None;
        until(what, async || {
            let view = self.view(id).await;
            let fits = fits(&view);
            seen = Some(view);
            fits
        })
        .await;
        seen.unwrap()
    }

    fn orders(&self) -> usize {
        self.boards.iter().map(|board| board.board.orders.lock().unwrap().len()).sum()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn count(view: &UpdateView, progress: &str) -> usize {
    view.counts.get(progress).copied().unwrap_or(0)
}

#[tokio::test]
async fn a_good_update_reaches_every_node_in_three_waves() {
    let fleet = Fleet::of(&[Fate::Works, Fate::Works, Fate::Works, Fate::Works]).await;
    let planned = fleet.update(&["--waves", "1,50%,100%", "--dry-run"]).await;
    assert!(planned.status.success(), "{planned:?}");
    assert!(text(&planned).contains("wave 3 (100%): n"), "{}", text(&planned));
    assert_eq!(fleet.orders(), 0, "a dry run orders nothing");
    assert_eq!(fleet.gateway.text("/api/v1/updates").await.1, "[]");

    let output =
        fleet.update(&["--waves", "1,50%,100%", "--soak", "1ms", "--follow", "--name", "autumn"]).await;
    assert!(output.status.success(), "{output:?}");
    for name in ["n1", "n2", "n3", "n4"] {
        assert!(text(&output).contains(&format!("{name} done")), "{}", text(&output));
    }
    assert!(fleet.boards.iter().all(|board| board.board.version() == "0.2.0"));
    assert_eq!(fleet.orders(), 4, "each order counts once");
    let nodes = fleet.gateway.headwater(&["nodes"]).await;
    assert_eq!(text(&nodes).matches("0.2.0 done").count(), 4, "{}", text(&nodes));
    let listed = fleet.gateway.headwater(&["updates"]).await;
    assert!(text(&listed).contains("autumn") && text(&listed).contains("3 of 3"), "{}", text(&listed));

    let again = fleet.update(&["--follow"]).await;
    assert!(again.status.success());
    assert!(text(&again).contains("skipped n1: it runs 0.2.0 already"), "{}", text(&again));
}

#[tokio::test]
async fn an_older_version_is_sent_only_where_that_is_said_and_nodes_that_run_less_get_it_all_the_same() {
    let fleet = Fleet::of(&[Fate::Works, Fate::Works]).await;
    fleet.boards[0].board.runs("0.3.0");
    fleet.boards[0].cut();
    fleet.gateway.wait_state("n1", NodeState::Offline).await;
    let (certificate, memory) =
        (Arc::clone(&fleet.boards[0].certificate), Arc::clone(&fleet.boards[0].board));
    let _again = Node::connect_board(&fleet.gateway, certificate, memory).await;
    let mixed = fleet.update(&["--waves", "100%", "--follow"]).await;
    assert!(mixed.status.success(), "{mixed:?}");
    let said = text(&mixed);
    assert!(
        said.contains("skipped n1: it runs 0.3.0, which is newer; --allow-downgrade takes it back"),
        "{said}"
    );
    assert_eq!(fleet.boards[1].board.version(), "0.2.0");

    let bundle = fleet.bundle.to_str().unwrap();
    let refused = fleet.gateway.headwater(&["update", "n1", bundle, "--follow"]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused).contains("n1 runs 0.3.0, which is newer than 0.2.0"), "{}", text(&refused));
    assert!(fleet.boards[0].board.orders.lock().unwrap().is_empty());

    let meant = fleet
        .gateway
        .headwater(&["update", "n1", bundle, "--waves", "100%", "--allow-downgrade", "--follow"])
        .await;
    assert!(meant.status.success(), "{meant:?}");
    assert_eq!(fleet.boards[0].board.version(), "0.2.0");
    let allowed = fleet.boards[0].board.allowed.lock().unwrap().clone();
    assert_eq!(allowed, [true], "the order carries it");
}

#[tokio::test]
async fn an_update_that_fails_in_the_first_wave_stops_there() {
    let fleet = Fleet::of(&[Fate::RollsBack, Fate::RollsBack, Fate::RollsBack]).await;
    let output = fleet.update(&["--waves", "1,100%", "--soak", "1ms", "--follow"]).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = text(&output);
    assert!(said.contains("rolled back: unhealthy: the probe did not pass"), "{said}");
    assert!(said.contains("stopped: 1 of 3 nodes failed"), "{said}");
    assert_eq!(fleet.orders(), 1);

    // After a look, and a remedy, it goes on where it was.
    for board in &fleet.boards {
        *board.board.fate.lock().unwrap() = Fate::Works;
    }
    let all: Vec<UpdateView> = fleet.gateway.get("/api/v1/updates").await.json().await.unwrap();
    let id = all[0].update.id.to_string();
    assert!(fleet.gateway.headwater(&["updates", "resume", &id]).await.status.success());
    let view = fleet.wait(&id, "its end", |view| view.update.head.state == State::Done).await;
    assert_eq!((count(&view, "done"), count(&view, "rolled back")), (2, 1));
}

#[tokio::test]
async fn a_failure_recalls_nodes_that_have_not_begun_and_a_refused_order_is_one() {
    let fault = Fault::new(Code::Unsupported, "no room for the bundle");
    let fleet = Fleet::of(&[Fate::Waits, Fate::Deaf]).await;
    let id = fleet.begin(&["--waves", "100%"]).await;
    fleet.wait(&id, "the first", |view| count(view, "waiting") == 1 && count(view, "ordered") == 1).await;
    *fleet.boards[1].board.fate.lock().unwrap() = Fate::Refuses(fault);
    // A connection anew: the order is sent again.
    fleet.boards[1].cut();
    fleet.gateway.wait_state("n2", NodeState::Offline).await;
    let certificate = Arc::clone(&fleet.boards[1].certificate);
    let _again = Node::connect_board(&fleet.gateway, certificate, Arc::clone(&fleet.boards[1].board)).await;
    let view = fleet.wait(&id, "the stop", |view| count(view, "recalled") == 1).await;
    let State::Stopped { reason } = &view.update.head.state else { panic!("{view:?}") };
    assert_eq!(reason, "1 of 2 nodes failed: n2 failed");
}

#[tokio::test]
async fn a_paused_update_orders_nothing_until_it_is_resumed_and_a_cancelled_one_is_given_up() {
    let fleet = Fleet::of(&[Fate::Works, Fate::Works]).await;
    let id = fleet.begin(&["--waves", "1,100%", "--soak", "1h"]).await;
    fleet.wait(&id, "the first wave to soak", |view| view.update.head.soaking.is_some()).await;
    assert!(fleet.gateway.headwater(&["updates", "pause", &id]).await.status.success());
    let twice = fleet.gateway.headwater(&["updates", "pause", &id]).await;
    assert_eq!(twice.status.code(), Some(1));
    assert!(text(&twice).contains("only a running one can be paused"), "{}", text(&twice));
    assert!(fleet.gateway.headwater(&["updates", "resume", &id]).await.status.success());
    assert_eq!(fleet.view(&id).await.update.head.state, State::Running);
    assert!(fleet.gateway.headwater(&["updates", "cancel", &id]).await.status.success());
    assert_eq!(fleet.orders(), 1);

    for board in &fleet.boards {
        *board.board.fate.lock().unwrap() = Fate::Waits;
    }
    let next = bundle(fleet.gateway.dir.path(), "0.3.0");
    let fleet = Fleet { bundle: next, ..fleet };
    let id = fleet.begin(&["--waves", "100%"]).await;
    fleet.wait(&id, "both to wait", |view| count(view, "waiting") == 2).await;
    let other = fleet.update(&["--dry-run"]).await;
    assert!(text(&other).contains("is not through with it"), "{}", text(&other));
    assert!(fleet.gateway.headwater(&["updates", "cancel", &id]).await.status.success());
    fleet.wait(&id, "both recalled", |view| count(view, "recalled") == 2).await;
}

#[tokio::test]
async fn an_update_and_a_configuration_that_cannot_be_stored_are_refused_and_do_not_begin_later() {
    let fleet = Fleet::of(&[Fate::Works]).await;
    let database = fleet.gateway.database();
    let full = "BEGIN SELECT RAISE(ABORT, 'disk full'); END;";
    database
        .execute_batch(&format!(
            "CREATE TRIGGER no_update BEFORE INSERT ON updates {full}
             CREATE TRIGGER no_config BEFORE INSERT ON configs {full}"
        ))
        .unwrap();
    let refused = fleet.update(&["--detach"]).await;
    assert!(!refused.status.success() && text(&refused).contains("disk full"), "{}", text(&refused));
    let refused = fleet.gateway.headwater(&["config", "set", "n1", "workers.count=3"]).await;
    assert!(!refused.status.success() && text(&refused).contains("disk full"), "{}", text(&refused));
    database.execute_batch("DROP TRIGGER no_update; DROP TRIGGER no_config").unwrap();

    assert_eq!(fleet.gateway.text("/api/v1/updates").await.1, "[]");
    let shown = fleet.gateway.headwater(&["config", "get", "n1"]).await;
    assert_eq!(text(&shown), "n1: nothing is wanted; its own file counts\n");
    // What is wanted then is the first that anybody hears of.
    let id = fleet.begin(&[]).await;
    fleet.wait(&id, "the update", |view| view.update.head.state == State::Done).await;
    assert_eq!(fleet.orders(), 1);
}

#[tokio::test]
async fn a_gateway_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let mut fleet = Fleet::of(&[Fate::Waits, Fate::Waits, Fate::Waits]).await;
    let id = fleet.begin(&["--waves", "1,2,100%", "--soak", "1ms"]).await;
    fleet.wait(&id, "the first node to wait", |view| count(view, "waiting") == 1).await;
    fleet.gateway.restart(Signal::SIGKILL).await;
    // It may have ended before it had stored what that node said, which says it again.
    fleet.wait(&id, "that to be known", |view| count(view, "waiting") == 1).await;
    let old: Vec<Node> = std::mem::take(&mut fleet.boards);
    for board in old {
        let (certificate, memory) = (Arc::clone(&board.certificate), Arc::clone(&board.board));
        drop(board);
        *memory.fate.lock().unwrap() = Fate::Works;
        fleet.boards.push(Node::connect_board(&fleet.gateway, certificate, memory).await);
    }
    let view = fleet.wait(&id, "the end", |view| view.update.head.state == State::Done).await;
    assert_eq!(count(&view, "done"), 3, "{view:?}");
}

#[tokio::test]
async fn a_gateway_that_was_killed_still_knows_its_nodes_and_those_that_are_away_get_their_order_when_they_come()
 {
    let mut fleet = Fleet::of(&[Fate::Works, Fate::Works]).await;
    let [here, away]: [Node; 2] = std::mem::take(&mut fleet.boards).try_into().ok().unwrap();
    let (certificate, memory) = (Arc::clone(&away.certificate), Arc::clone(&away.board));
    drop(away);
    fleet.gateway.wait_state("n2", NodeState::Offline).await;
    let seen = async |fleet: &Fleet| {
        let nodes = fleet.gateway.nodes_list().await;
        nodes.into_iter().find(|node| node.node.as_str() == "n2").unwrap().last_seen
    };
    let last = seen(&fleet).await;
    let (n1, n1_memory) = (Arc::clone(&here.certificate), Arc::clone(&here.board));
    drop(here);
    fleet.gateway.wait_state("n1", NodeState::Offline).await;
    let database = fleet.gateway.database();
    let stored = || database.query_row("SELECT seen FROM births WHERE node='n2'", [], |row| row.get(0)).ok();
    until("that moment to be stored", async || stored() == Some(last.0.cast_signed())).await;
    fleet.gateway.restart(Signal::SIGKILL).await;
    let nodes = fleet.gateway.nodes_list().await;
    assert_eq!(nodes.iter().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    assert!(nodes.iter().all(|node| node.state == NodeState::Offline && node.birth.is_some()), "{nodes:?}");
    assert_eq!(seen(&fleet).await, last, "offline since the same moment");

    fleet.boards.push(Node::connect_board(&fleet.gateway, n1, n1_memory).await);
    let id = fleet.begin(&["--waves", "100%"]).await;
    let view = fleet.wait(&id, "the one that is there", |view| count(view, "done") == 1).await;
    assert_eq!((count(&view, "pending"), &view.update.head.state), (1, &State::Running), "{view:?}");
    assert_eq!(seen(&fleet).await, last);
    fleet.boards.push(Node::connect_board(&fleet.gateway, certificate, memory).await);
    let view = fleet.wait(&id, "the end", |view| view.update.head.state == State::Done).await;
    assert_eq!(count(&view, "done"), 2, "{view:?}");
}

#[tokio::test]
async fn ctrl_c_ends_the_showing_and_not_the_update() {
    let fleet = Fleet::of(&[Fate::Waits]).await;
    let arguments = ["update", "all", fleet.bundle.to_str().unwrap(), "--waves", "100%", "--follow"];
    let mut command = fleet.gateway.headwater_command(&arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The plan is printed once it has begun.
    let line = tokio::time::timeout(crate::harness::LONG, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(line.starts_with("0.2.0 for board-x"), "{line}");
    let all: Vec<UpdateView> = fleet.gateway.get("/api/v1/updates").await.json().await.unwrap();
    let id = all[0].update.id.to_string();
    fleet.wait(&id, "the node to wait", |view| count(view, "waiting") == 1).await;
    let pid = Pid::from_raw(child.id().unwrap() as i32);
    kill(pid, Signal::SIGINT).unwrap();
    let output = tokio::time::timeout(crate::harness::LONG, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(text(&output).contains(&format!("the update {id} goes on")), "{}", text(&output));
    assert_eq!(fleet.view(&id).await.update.head.state, State::Running);
}

/// A gateway whose machine stops answering after its first answer.
#[tokio::test]
async fn ctrl_c_ends_a_look_that_gets_no_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(["--gateway", &url, "--token-file", "/nowhere", "nodes", "--watch", "--json"]);
    let mut child = command.kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let accept = || tokio::time::timeout(crate::harness::LONG, listener.accept());
    let (mut first, _) = accept().await.unwrap().unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]";
    first.write_all(answer.as_bytes()).await.unwrap();
    drop(first);
    let _second = accept().await.unwrap().unwrap();
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGINT).unwrap();
    let status = tokio::time::timeout(std::time::Duration::from_secs(10), child.wait()).await;
    assert_eq!(status.expect("it goes on waiting").unwrap().code(), Some(0));
}
