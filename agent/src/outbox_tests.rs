use super::*;
use headwater_protocol::message::{Header, TimeSource};
use headwater_protocol::{Code, Fault, Millis};

fn event(task: &str, event: EventKind) -> Event {
    let header = Header { v: 1, ts: Millis(1), ts_src: TimeSource::Rtc, boot_id: "b".into(), seq: 1 };
    Event {
        header,
        number: None,
        task: TaskId::new(task).unwrap(),
        epoch: Epoch(1),
        event,
        extra: Default::default(),
    }
}

fn failed(task: &str) -> Event {
    event(task, EventKind::Failed { fault: Fault::new(Code::Interrupted, "x") })
}

fn number(outbox: &str, n: u64) -> EventNumber {
    EventNumber { outbox: outbox.into(), n }
}

/// Writes what is due into `file`, as the store would.
fn write(outbox: &mut Outbox, file: &mut Vec<u8>) {
    match outbox.take_work(false).unwrap() {
        Some(Work::Append { bytes, upto }) => {
            file.extend(bytes);
            outbox.written(Ok((upto, file.len() as u64))).unwrap();
        }
        Some(Work::Rewrite { bytes, upto }) => {
            *file = bytes;
            outbox.written(Ok((upto, file.len() as u64))).unwrap();
        }
        None => {}
    }
}

fn unsent(outbox: &mut Outbox) -> Vec<u64> {
    let mut all = vec![];
    while let Some((n, json)) = outbox.next_unsent() {
        let event: Event = serde_json::from_slice(&json).unwrap();
        assert_eq!(event.number.unwrap().n, n);
        outbox.sent(n);
        all.push(n);
    }
    all
}

#[test]
fn an_event_is_published_only_after_it_is_stored_and_again_until_it_is_acknowledged() {
    let (mut outbox, mut file) = (Outbox::read(b"", "o".into()).unwrap(), vec![]);
    outbox.push(event("a", EventKind::Accepted)).unwrap();
    assert_eq!(unsent(&mut outbox), [0; 0]);
    write(&mut outbox, &mut file);
    outbox.push(failed("a")).unwrap();
    assert_eq!(unsent(&mut outbox), [1]);
    write(&mut outbox, &mut file);
    assert_eq!(unsent(&mut outbox), [2]);
    outbox.rewind();
    outbox.ack(&number("o", 1)).unwrap();
    assert_eq!(unsent(&mut outbox), [2], "sent again, the acknowledged one is not");
    outbox.ack(&number("other", 2)).unwrap();
    outbox.ack(&number("o", 99)).unwrap();
    assert_eq!(outbox.waiting(), 1, "acks that are not ours change nothing");
    outbox.ack(&number("o", 2)).unwrap();
    assert_eq!((outbox.waiting(), outbox.live_bytes), (0, 0));
}

#[test]
fn an_ack_said_again_asks_once_for_what_follows_it() {
    let (mut outbox, mut file) = (Outbox::read(b"", "o".into()).unwrap(), vec![]);
    for task in ["a", "b", "c", "d"] {
        outbox.push(failed(task)).unwrap();
    }
    write(&mut outbox, &mut file);
    assert_eq!(unsent(&mut outbox), [1, 2, 3, 4]);
    outbox.ack(&number("o", 1)).unwrap();
    assert_eq!(unsent(&mut outbox), [0; 0]);
    outbox.ack(&number("o", 1)).unwrap();
    assert_eq!(unsent(&mut outbox), [2, 3, 4], "2 was lost on its way");
    outbox.ack(&number("o", 1)).unwrap();
    assert_eq!(unsent(&mut outbox), [0; 0], "3 and 4 ask as well, and are not a reason to send all again");
    outbox.ack(&number("o", 4)).unwrap();
    assert_eq!(outbox.waiting(), 0);
}

#[test]
fn a_gateway_that_has_lost_what_it_acknowledged_gets_the_rest_under_a_new_id() {
    let (mut outbox, mut file) = (Outbox::read(b"", "o".into()).unwrap(), vec![]);
    for task in ["a", "b", "c", "d"] {
        outbox.push(failed(task)).unwrap();
    }
    write(&mut outbox, &mut file);
    assert_eq!(unsent(&mut outbox), [1, 2, 3, 4]);
    outbox.ack(&number("o", 3)).unwrap();
    // A power cut took it back to 1. Not in the middle of a write, whose numbers are the old ones.
    outbox.push(event("e", EventKind::Accepted)).unwrap();
    let Some(Work::Append { bytes, upto: 5 }) = outbox.take_work(false).unwrap() else {
        panic!("nothing to write")
    };
    outbox.ack(&number("o", 1)).unwrap();
    assert_eq!(outbox.id, "o");
    file.extend(bytes);
    outbox.written(Ok((5, file.len() as u64))).unwrap();
    assert_eq!((&*outbox.id, outbox.waiting()), ("o-1", 2), "d and e");
    assert_eq!(unsent(&mut outbox), [0; 0], "not before it is on the disk");
    write(&mut outbox, &mut file);
    assert_eq!(unsent(&mut outbox), [1, 2]);
    outbox.ack(&number("o", 1)).unwrap();
    assert_eq!(outbox.id, "o-1", "each event behind the gap asked");
    let mut next = Outbox::read(&file, "fresh".into()).unwrap();
    assert_eq!((&*next.id, next.open_attempts().len()), ("o-1", 1));
    next.ack(&number("o-1", 2)).unwrap();
    next.ack(&number("o-1", 0)).unwrap();
    assert_eq!((&*next.id, next.waiting(), next.open_attempts().len()), ("o-2", 0, 1));
}

#[test]
fn events_that_come_while_a_write_is_on_its_way_go_with_the_next_one() {
    let mut outbox = Outbox::read(b"", "o".into()).unwrap();
    outbox.push(event("a", EventKind::Accepted)).unwrap();
    let first = outbox.take_work(false).unwrap().unwrap();
    outbox.push(failed("a")).unwrap();
    assert!(outbox.take_work(false).unwrap().is_none());
    let Work::Rewrite { bytes, upto } = first else { panic!("the first write makes the file") };
    outbox.written(Ok((upto, bytes.len() as u64))).unwrap();
    assert_eq!(unsent(&mut outbox), [1]);
    assert!(matches!(outbox.take_work(false).unwrap(), Some(Work::Append { upto: 2, .. })));
}

#[test]
fn a_file_cut_at_any_byte_gives_back_a_whole_number_of_events_and_never_uses_a_number_twice() {
    let (mut outbox, mut file) = (Outbox::read(b"", "o".into()).unwrap(), vec![]);
    write(&mut outbox, &mut file);
    let mut synced = vec![(file.len(), 0)];
    for task in ["a", "b", "c"] {
        outbox.push(event(task, EventKind::Accepted)).unwrap();
        write(&mut outbox, &mut file);
        synced.push((file.len(), outbox.stored));
        outbox.push(failed(task)).unwrap();
        outbox.ack(&number("o", 1)).unwrap();
        write(&mut outbox, &mut file);
        synced.push((file.len(), outbox.stored));
    }
    for cut in file.iter().enumerate().map(|(at, _)| at) {
        let mut found = Outbox::read(&file[..cut], "fresh".into()).unwrap();
        // Everything that was synced at this length may have been published, and must be there.
        let published = synced.iter().rev().find(|(length, _)| *length <= cut).map(|(_, n)| *n);
        match published {
            None => assert_eq!((found.id.as_str(), found.next), ("fresh", 1), "cut at {cut}"),
            Some(published) => {
                assert_eq!(found.id, "o", "cut at {cut}");
                assert!(found.next > published, "cut at {cut}: {} <= {published}", found.next);
                assert!(found.open.len() <= 1);
            }
        }
        // It goes on from there, also through another power cut.
        let mut next_file = file[..cut].to_vec();
        found.push(failed("z")).unwrap();
        write(&mut found, &mut next_file);
        let again = Outbox::read(&next_file, "other".into()).unwrap();
        assert_eq!((again.id.clone(), again.next, again.waiting()), (found.id, found.next, again.waiting()));
    }
}

#[test]
fn a_head_that_makes_no_sense_is_damage_and_no_crash() {
    let found = Outbox::read(b"{\"outbox\":\"o\",\"next\":0,\"open\":[]}\n", "fresh".into()).unwrap();
    assert_eq!((found.id.as_str(), found.next), ("fresh", 1));
}

#[test]
fn damage_in_the_middle_keeps_what_can_be_read_under_a_new_id() {
    let (mut outbox, mut file) = (Outbox::read(b"", "o".into()).unwrap(), vec![]);
    for task in ["a", "b", "c", "d"] {
        outbox.push(failed(task)).unwrap();
        write(&mut outbox, &mut file);
    }
    let at = file.iter().position(|byte| *byte == b'\n').unwrap() + 5;
    let second = file[at..].iter().position(|byte| *byte == b'\n').unwrap() + at + 5;
    file[second] = 0xff;
    let mut found = Outbox::read(&file, "fresh".into()).unwrap();
    assert_eq!((found.id.as_str(), found.waiting()), ("fresh", 3));
    assert_eq!(unsent(&mut found), [0; 0], "not before it is stored under its new number");
    write(&mut found, &mut file);
    assert_eq!(unsent(&mut found), [1, 2, 3]);
}

#[test]
fn an_attempt_stays_open_through_compaction_and_ends_once() {
    let (mut outbox, mut file) = (Outbox::read(b"", "o".into()).unwrap(), vec![]);
    outbox.push(event("a", EventKind::Accepted)).unwrap();
    write(&mut outbox, &mut file);
    outbox.ack(&number("o", 1)).unwrap();
    outbox.rewrite = true;
    write(&mut outbox, &mut file);
    let mut found = Outbox::read(&file, "fresh".into()).unwrap();
    assert_eq!(found.open_attempts().len(), 1);
    found.push(failed("a")).unwrap();
    write(&mut found, &mut file);
    let found = Outbox::read(&file, "fresh".into()).unwrap();
    assert!(found.open_attempts().is_empty());
    assert_eq!((found.id.as_str(), found.next), ("o", 3));
    assert_eq!(found.known_attempts().len(), 1);
}

#[test]
fn the_file_stays_small_however_many_events_pass_through() {
    let (mut outbox, mut file) = (Outbox::read(b"", "o".into()).unwrap(), vec![]);
    for n in 1..=5000 {
        outbox.push(failed("a")).unwrap();
        write(&mut outbox, &mut file);
        outbox.ack(&number("o", n)).unwrap();
        assert!(file.len() as u64 <= COMPACT_BYTES + 1024);
    }
}

#[test]
fn a_disk_that_refuses_stops_new_work_and_nothing_is_lost_when_it_recovers() {
    let (mut outbox, mut file) = (Outbox::read(b"", "o".into()).unwrap(), vec![]);
    write(&mut outbox, &mut file);
    outbox.push(event("a", EventKind::Accepted)).unwrap();
    outbox.take_work(false).unwrap().unwrap();
    outbox.written(Err(())).unwrap();
    assert!(outbox.is_full());
    assert_eq!(unsent(&mut outbox), [0; 0]);
    outbox.push(failed("a")).unwrap();
    write(&mut outbox, &mut file);
    assert!(!outbox.is_full());
    assert_eq!(unsent(&mut outbox), [1, 2]);
}

#[test]
fn a_full_outbox_says_so() {
    let mut outbox = Outbox::read(b"", "o".into()).unwrap();
    for _ in 0..MAX_EVENTS {
        assert!(!outbox.is_full());
        outbox.push(failed("a")).unwrap();
    }
    assert!(outbox.is_full());
}

#[test]
fn the_store_writes_what_it_reads_and_only_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let (mut store, mut outbox) = Store::open(home.path(), "o".into()).unwrap();
    for task in ["a", "b"] {
        outbox.push(failed(task)).unwrap();
        let work = outbox.take_work(false).unwrap().unwrap();
        outbox.written(store.write(&work).map_err(|_| ())).unwrap();
    }
    let (_, found) = Store::open(home.path(), "fresh".into()).unwrap();
    assert_eq!((found.id.as_str(), found.next, found.waiting()), ("o", 3, 2));
    let mode = fs::metadata(home.path().join("outbox/events")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
