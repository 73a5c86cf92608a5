use headwater_protocol::message::EventNumber;
use headwater_protocol::{Code, Container, Epoch, Evidence, Millis, StreamId, TaskId};

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
        Write::StreamOpened { stream: stream.clone(), run: 4, ladder: None, resolution: None, at: 1 },
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
async fn a_playlist_is_read_by_its_window_and_counts_a_number_once() {
    let (_dir, store) = open();
    let stream = StreamId::new("s").unwrap();
    let mut writes =
        vec![Write::StreamOpened { stream: stream.clone(), run: 1, ladder: None, resolution: None, at: 1 }];
    let add = |writes: &mut Vec<Write>, task: &str, segment: u64, ended: Option<u64>| {
        let task = TaskId::new(task).unwrap();
        writes.push(Write::TaskNew {
            task: task.clone(),
            stream: stream.clone(),
            run: 1,
            segment,
            container: Container::Ts,
            bytes: 1,
            sha256: String::new(),
            duration: Millis(2000),
            at: 1,
        });
        if let Some(at) = ended {
            writes.push(Write::TaskEnded { task, ending: Ending::Passed, attempts: 0, at });
        }
    };
    for segment in 0..10 {
        add(&mut writes, &format!("t{segment}"), segment, Some(5));
    }
    add(&mut writes, "again", 3, Some(6));
    add(&mut writes, "again-open", 4, None);
    add(&mut writes, "open", 10, None);
    add(&mut writes, "beyond", 11, Some(5));
    store.write(writes, vec![]).await;
    store.write_now(vec![Write::Delay { task: TaskId::new("t0").unwrap(), delay: Millis(1) }]).await.unwrap();
    let seen = async |window| {
        let found = store.playlist(&stream, window).await.unwrap().unwrap();
        let tasks: Vec<String> = found.entries.iter().map(|entry| entry.task.to_string()).collect();
        (found.row.removed, found.skipped, tasks.join(" "))
    };
    assert_eq!(seen(Window::Live(3)).await, (0, 7, "t7 t8 t9".to_owned()));
    assert_eq!(seen(Window::Newest).await.2, "t9");
    assert_eq!(seen(Window::Segment(3)).await.2, "t3", "the first that was done");
    assert_eq!(seen(Window::Segment(99)).await.2, "");
    assert_eq!(seen(Window::All).await.2, "t0 t1 t2 t3 t4 t5 t6 t7 t8 t9");
    let remove = ["t0", "t3", "t4"].map(|task| TaskId::new(task).unwrap()).into();
    store.write_now(vec![Write::TasksRemoved { tasks: remove }]).await.unwrap();
    assert_eq!(seen(Window::Live(3)).await, (2, 0, "t1 t2 again".to_owned()), "4 is on its way again");
    store.write_now(vec![Write::StreamEnded { stream: stream.clone() }]).await.unwrap();
    assert_eq!(seen(Window::Live(2)).await.2, "t1 t2 again");
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
