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
    store.write_now(write).await.unwrap();
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
    ];
    store.write(writes, vec![]).await;
    drop(store);
    threads.join();

    let (store, remembered, _threads) = Store::open(&path).unwrap();
    assert_eq!(remembered.positions[&node("a")], ("o".to_owned(), 7));
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
