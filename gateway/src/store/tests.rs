use headwater_protocol::message::EventNumber;
use headwater_protocol::{Code, Container, Epoch, Evidence, Fault, Millis, StreamId, TaskId};
use rusqlite::params;

use super::*;

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, _) = Store::open(&dir.path().join("db")).unwrap();
    (dir, store)
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

async fn token(store: &Store, hash: &str, expires: u64) {
    let write = Write::TokenNew { hash: hash.into(), node: node("a"), expires };
    store.write_now(vec![write]).await.unwrap();
}

#[tokio::test]
async fn a_token_works_once_for_its_node_and_in_its_time() {
    let (_dir, store) = open();
    token(&store, "h", 100).await;
    let sign = || Some("print".to_owned());
    assert!(!store.use_token("h".into(), node("b"), 50, sign).await.unwrap(), "another node's");
    assert!(!store.use_token("h".into(), node("a"), 100, sign).await.unwrap(), "expired");
    assert!(store.use_token("h".into(), node("a"), 50, || None).await.unwrap(), "a bad request");
    assert!(store.use_token("h".into(), node("a"), 50, sign).await.unwrap(), "leaves it usable");
    assert!(!store.use_token("h".into(), node("a"), 50, sign).await.unwrap(), "used");
}

#[tokio::test]
async fn what_ran_in_an_earlier_life_is_closed_and_event_numbers_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (store, _, threads) = Store::open(&path).unwrap();
    let (task, stream) = (TaskId::new("t").unwrap(), StreamId::new("s").unwrap());
    let number = EventNumber { outbox: "o".into(), n: 7 };
    let writes = vec![
        Write::StreamOpened(OpenStream {
            stream: stream.clone(),
            run: 4,
            ladder: None,
            resolution: None,
            at: 1,
        }),
        Write::TaskNew {
            task: task.clone(),
            stream: stream.clone(),
            run: 4,
            segment: 0,
            container: Container::Ts,
            bytes: 1,
            sha256: String::new(),
            duration: Millis(2000),
            at: 1,
        },
        Write::AttemptNew { task, epoch: Epoch(1), node: node("a"), at: 1 },
        Write::Position { node: node("a"), number },
        Write::Counts { node: node("a"), done: 8, failed: 1 },
        Write::Counts { node: node("a"), done: 9, failed: 1 },
    ];
    store.write(writes, vec![]).await;
    drop(store);
    threads.join();

    let (store, remembered, _threads) = Store::open(&path).unwrap();
    assert_eq!(remembered.positions[&node("a")], ("o".to_owned(), 7));
    assert_eq!(remembered.counts[&node("a")], (9, 1));
    assert_eq!(remembered.next_run, 5);
    let view = store.stream(&stream).await.unwrap().unwrap();
    assert!(!view.live);
    assert_eq!(view.segments_failed, 1);
    assert_eq!(view.segments[0].fault.as_ref().unwrap().code, Code::Interrupted);
}

#[tokio::test]
async fn nothing_comes_after_a_batch_that_was_not_stored() {
    let (_dir, store) = open();
    let epoch = Epoch(1);
    // A winner for a task that is not there.
    let ended = Write::AttemptNew { task: TaskId::new("t").unwrap(), epoch, node: node("a"), at: 1 };
    let (tell, told) = oneshot::channel();
    let after: After = Box::new(move |result| tell.send(result).unwrap());
    store.write(vec![ended.clone(), ended], vec![after]).await;
    assert!(told.await.unwrap().is_err());
}

#[tokio::test]
async fn what_a_failed_write_would_have_ended_is_ended_and_what_runs_goes_on() {
    let (_dir, store) = open();
    let stream = |name: &str| StreamId::new(name).unwrap();
    let task = |name: &str| TaskId::new(name).unwrap();
    let mut writes = Vec::new();
    for (name, run) in [("over", 1), ("runs", 2)] {
        let opened = Write::StreamOpened(OpenStream {
            stream: stream(name),
            run,
            ladder: None,
            resolution: None,
            at: 1,
        });
        let new = Write::TaskNew {
            task: task(name),
            stream: stream(name),
            run,
            segment: 0,
            container: Container::Ts,
            bytes: 1,
            sha256: String::new(),
            duration: Millis(2000),
            at: 1,
        };
        let attempt = Write::AttemptNew { task: task(name), epoch: Epoch(1), node: node("a"), at: 1 };
        writes.extend([opened, new, attempt]);
    }
    store.write_now(writes).await.unwrap();
    assert!(!store.has_missed());
    let end = Write::TaskEnded { task: task("over"), ending: Ending::Passed, attempts: 1, at: 2 };
    let twice = Write::AttemptNew { task: task("over"), epoch: Epoch(1), node: node("a"), at: 2 };
    assert!(store.write_now(vec![end, twice]).await.is_err());
    assert!(store.has_missed());
    assert!(!store.has_missed(), "told once");
    let opened = |name, run| OpenStream { stream: stream(name), run, ladder: None, resolution: None, at: 3 };
    let open = Open { tasks: vec![task("runs")], streams: vec![opened("runs", 2), opened("missed", 3)] };
    store.write_now(vec![Write::Settle(open)]).await.unwrap();
    assert!(store.stream(&stream("missed")).await.unwrap().unwrap().live);
    let over = store.stream(&stream("over")).await.unwrap().unwrap();
    assert_eq!((over.live, over.segments_failed), (false, 1));
    assert_eq!(over.segments[0].fault.as_ref().unwrap().code, Code::Interrupted);
    let runs = store.stream(&stream("runs")).await.unwrap().unwrap();
    assert_eq!((runs.live, runs.segments_failed), (true, 0));
}

/// A stream "s" whose tasks are named by the test.
struct Show(Store);

impl Show {
    async fn open(&self, run: u64) {
        let stream = StreamId::new("s").unwrap();
        let resolution = Some(format!("{run}x{run}"));
        let opened = Write::StreamOpened(OpenStream { stream, run, ladder: None, resolution, at: 1 });
        self.0.write_now(vec![opened]).await.unwrap();
    }

    async fn push(&self, run: u64, task: &str, segment: u64) {
        let new = Write::TaskNew {
            task: TaskId::new(task).unwrap(),
            stream: StreamId::new("s").unwrap(),
            run,
            segment,
            container: Container::Ts,
            bytes: 1,
            sha256: String::new(),
            duration: Millis(2000),
            at: 1,
        };
        self.0.write_now(vec![new]).await.unwrap();
    }

    async fn end(&self, task: &str, at: u64, ending: Ending) {
        let task = TaskId::new(task).unwrap();
        self.0.write_now(vec![Write::TaskEnded { task, ending, attempts: 0, at }]).await.unwrap();
    }

    async fn done(&self, run: u64, task: &str, segment: u64) {
        self.push(run, task, segment).await;
        self.end(task, 5, Ending::Passed).await;
    }

    /// Number of the first entry, breaks up to it, tasks.
    async fn seen(&self, window: Window) -> (u64, u64, String) {
        let found = self.0.playlist(&StreamId::new("s").unwrap(), window).await.unwrap().unwrap();
        let tasks: Vec<&str> = found.entries.iter().map(|entry| entry.task.as_str()).collect();
        (found.first, found.breaks, tasks.join(" "))
    }

    async fn resolution(&self) -> String {
        let found = self.0.playlist(&StreamId::new("s").unwrap(), Window::All).await.unwrap().unwrap();
        found.row.resolution.unwrap()
    }

    async fn close(&self) {
        self.0.write_now(vec![Write::StreamEnded { stream: StreamId::new("s").unwrap() }]).await.unwrap();
    }
}

fn is(number: u64, breaks: u64, tasks: &str) -> (u64, u64, String) {
    (number, breaks, tasks.to_owned())
}

#[tokio::test]
async fn a_playlist_is_read_by_its_window_and_counts_a_number_once() {
    let (_dir, store) = open();
    let show = Show(store);
    show.open(1).await;
    for segment in 0..10 {
        show.done(1, &format!("t{segment}"), segment).await;
    }
    show.push(1, "again", 3).await;
    show.end("again", 6, Ending::Passed).await;
    show.push(1, "again-open", 4).await;
    show.push(1, "open", 10).await;
    show.done(1, "beyond", 11).await;
    show.0
        .write_now(vec![Write::Delay { task: TaskId::new("t0").unwrap(), delay: Millis(1) }])
        .await
        .unwrap();
    assert_eq!(show.seen(Window::Live(3)).await, is(7, 0, "t7 t8 t9"));
    assert_eq!(show.seen(Window::Newest).await.2, "t9");
    assert_eq!(show.seen(Window::Segment(3)).await.2, "t3", "the first that was done");
    assert_eq!(show.seen(Window::Segment(99)).await.2, "");
    assert_eq!(show.seen(Window::All).await.2, "t0 t1 t2 t3 t4 t5 t6 t7 t8 t9");
    let remove = ["t0", "t1", "t3"].map(|task| TaskId::new(task).unwrap()).into();
    show.0.write_now(vec![Write::TasksRemoved { tasks: remove }]).await.unwrap();
    assert_eq!(show.seen(Window::All).await, is(2, 0, "t2 t4 t5 t6 t7 t8 t9"), "numbers stay");
    show.end("open", 9, Ending::Failed(Fault::new(Code::TooSlow, ""))).await;
    assert_eq!(show.seen(Window::Live(2)).await, is(9, 0, "t9 beyond"), "nothing is waited for any more");
    show.close().await;
    assert_eq!(
        show.seen(Window::Live(2)).await,
        is(2, 0, "t2 t4 t5 t6 t7 t8 t9 beyond"),
        "all that were listed"
    );
    assert_eq!(show.seen(Window::All).await.2, "t2 again t4 t5 t6 t7 t8 t9 beyond", "all that are kept");
}

#[tokio::test]
async fn a_live_list_only_grows_at_its_end() {
    let (_dir, store) = open();
    let show = Show(store);
    show.open(1).await;
    show.done(1, "t0", 0).await;
    show.push(1, "t1", 1).await;
    show.done(1, "t2", 2).await;
    show.push(1, "t3", 3).await;
    assert_eq!(show.seen(Window::All).await.2, "t0", "1 may still come");
    show.end("t1", 5, Ending::Failed(Fault::new(Code::TooSlow, ""))).await;
    assert_eq!(show.seen(Window::All).await.2, "t0 t2");
    show.push(1, "retry", 1).await;
    show.end("t3", 5, Ending::Passed).await;
    assert_eq!(show.seen(Window::All).await.2, "t0 t2 t3", "a retry holds up nothing");
    show.end("retry", 6, Ending::Passed).await;
    assert_eq!(show.seen(Window::All).await, is(0, 0, "t0 t2 t3"), "and moves no number");
    assert_eq!(show.seen(Window::Live(1)).await, is(2, 1, "t3"), "2 did not follow on 0");
    assert_eq!(show.seen(Window::Segment(1)).await.2, "retry");
    show.open(2).await;
    assert_eq!(show.seen(Window::Live(2)).await, is(1, 1, "t2 t3"), "until there is something new");
    assert_eq!(show.resolution().await, "1x1", "as it was");
    show.done(2, "n0", 0).await;
    assert_eq!(show.resolution().await, "2x2");
    show.done(2, "n1", 1).await;
    assert_eq!(show.seen(Window::All).await, is(3, 2, "n0 n1"), "an encoder that began anew");
    assert_eq!(show.seen(Window::Segment(2)).await.2, "t2", "players may be behind");
    assert_eq!(show.seen(Window::Segment(0)).await.2, "n0");
    show.close().await;
    assert_eq!(show.seen(Window::All).await, is(3, 2, "n0 n1"));
    let remove = ["n0", "n1"].map(|task| TaskId::new(task).unwrap()).into();
    show.0.write_now(vec![Write::TasksRemoved { tasks: remove }]).await.unwrap();
    assert_eq!(show.seen(Window::All).await, is(5, 2, ""), "no number falls");
}

#[tokio::test]
async fn a_database_from_before_lists_kept_their_numbers_still_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let old = Connection::open(&path).unwrap();
    for step in &schema::STEPS[..5] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", 5).unwrap();
    old.execute("INSERT INTO streams(stream, run, started, live, resolution) VALUES('s',1,1,0,'1x1')", [])
        .unwrap();
    for (task, segment, ended) in [("t3", 3, 1), ("again", 3, 2), ("t4", 4, 3), ("last", i64::MAX, 4)] {
        old.execute(
            "INSERT INTO tasks(task, stream, run, segment, container, bytes, sha256, duration_ms, received, ended,
             state) VALUES(?1,'s',1,?2,'ts',1,'',2000,1,?3,'done')",
            params![task, segment, ended],
        )
        .unwrap();
    }
    drop(old);
    let show = Show(Store::open(&path).unwrap().0);
    assert_eq!(show.seen(Window::Live(9)).await, is(3, 0, "t3 t4 last"), "each number once");
    assert_eq!(show.resolution().await, "1x1");
    show.open(2).await;
    show.done(2, "n0", 0).await;
    assert!(show.seen(Window::Live(9)).await.0 > 4, "and counts on");
}

#[tokio::test]
async fn what_was_done_behind_a_segment_that_a_crash_ended_is_listed() {
    let (dir, store) = open();
    let show = Show(store);
    show.open(1).await;
    show.push(1, "runs", 0).await;
    show.done(1, "t1", 1).await;
    assert_eq!(show.seen(Window::Live(2)).await.2, "");
    drop(show);
    let again = Show(Store::open(&dir.path().join("db")).unwrap().0);
    assert_eq!(again.seen(Window::Live(2)).await.2, "t1");
}

#[tokio::test]
async fn evidence_is_kept_of_the_newest_failures_and_goes_with_its_task() {
    let (_dir, store) = open();
    let stream = StreamId::new("s").unwrap();
    let put = |number: u64| Write::Evidence {
        task: TaskId::new(format!("t{number}")).unwrap(),
        epoch: Epoch(1),
        node: node("a"),
        stream: StreamId::new("s").unwrap(),
        segment: number / 2,
        evidence: Box::new(Evidence { log: number.to_string(), ..Evidence::default() }),
        at: number,
    };
    for number in 0..20 {
        store.write_now(vec![put(number)]).await.unwrap();
    }
    assert!(store.evidence(&stream, 1).await.unwrap().is_empty(), "16 of a stream stay");
    let kept = store.evidence(&stream, 2).await.unwrap();
    assert_eq!(kept.iter().map(|view| view.evidence.log.as_str()).collect::<Vec<_>>(), ["4", "5"]);
    store.write_now(vec![Write::TasksRemoved { tasks: vec![kept[0].task.clone()] }]).await.unwrap();
    assert_eq!(store.evidence(&stream, 2).await.unwrap().len(), 1);
}

#[tokio::test]
async fn updates_and_configurations_come_back_and_only_the_newest_ended_ones_stay() {
    use crate::rollout::{Campaign, Head, Member, Plan, Progress, State};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (store, _, threads) = Store::open(&path).unwrap();
    let plan: Plan = serde_json::from_str(
        r#"{"waves":[{"upto":"1","soak":1000},{"upto":"100%","soak":0}],"stop_after":"2%","health":60000}"#,
    )
    .unwrap();
    let campaign = |number: u64, state| Campaign {
        id: UpdateId::new(format!("u{number}")).unwrap(),
        name: None,
        selector: "all".into(),
        bundle: crate::rollout::testing::bundle("0.2.0"),
        plan: plan.clone(),
        created: Millis(number),
        head: Head { state, wave: 1, soaking: Some(Millis(7)), forgiven: 1, round: 2 },
        members: Default::default(),
    };
    let running = campaign(0, State::Running);
    let member = Member {
        wave: 1,
        progress: Progress::Ordered,
        order: running.id.clone(),
        since: Millis(3),
        sent: None,
        away: None,
        unsure: false,
    };
    let mut writes = vec![Write::Update(Box::new(running.clone()))];
    for number in 1..=105 {
        writes.push(Write::Update(Box::new(campaign(number, State::Done))));
        let update = UpdateId::new(format!("u{number}")).unwrap();
        writes.push(Write::UpdateNode { update, node: node("a"), member: member.clone() });
    }
    let update = running.id.clone();
    writes.push(Write::UpdateNode { update, node: node("a"), member: member.clone() });
    let settings = serde_json::json!({"log": {"level": "debug"}}).as_object().cloned().unwrap();
    let desired = Desired { revision: 4, settings };
    writes.push(Write::Config { node: node("a"), desired: desired.clone() });
    store.write(writes, vec![]).await;
    drop(store);
    threads.join();

    let (_store, remembered, _threads) = Store::open(&path).unwrap();
    assert_eq!(remembered.configs[&node("a")], desired);
    let found = &remembered.campaigns[&running.id];
    assert_eq!((&found.head, &found.plan), (&running.head, &plan), "it has not ended, however old it is");
    assert_eq!(found.members[&node("a")], member);
    assert_eq!(remembered.campaigns.len(), 101);
    assert!(!remembered.campaigns.contains_key(&UpdateId::new("u5").unwrap()));
}

#[tokio::test]
async fn the_last_birth_of_a_node_comes_back_with_its_last_sign_of_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (store, remembered, threads) = Store::open(&path).unwrap();
    assert!(remembered.births.is_empty());
    let write = |name: &str, version: &str, seen| {
        let birth = crate::rollout::testing::birth(name, version);
        Write::Birth { birth: Box::new(birth), seen }
    };
    let late = Write::Seen { node: node("a"), at: 9 };
    let stranger = Write::Seen { node: node("c"), at: 9 };
    store
        .write(vec![write("a", "1", 1), write("b", "1", 2), write("a", "2", 3), late, stranger], vec![])
        .await;
    drop(store);
    threads.join();
    let (_store, remembered, _threads) = Store::open(&path).unwrap();
    let known: Vec<_> =
        remembered.births.values().map(|(seen, birth)| (birth.node.as_str(), *seen)).collect();
    assert_eq!(known, [("a", 9), ("b", 2)]);
    assert_eq!(remembered.births[&node("a")].1, crate::rollout::testing::birth("a", "2"));
}
