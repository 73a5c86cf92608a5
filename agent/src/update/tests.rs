use super::journal::{load, store};
use super::*;
use crate::system::wire::Pending;
use headwater_protocol::Millis;
use headwater_protocol::update::{Bundle, BundleKind, Window};

const OPEN: View =
    View { window_open: true, taking: false, idle: true, healthy: false, able: Some(Able::BOTH) };

fn order(id: &str) -> Box<UpdateOrder> {
    let bundle = Bundle {
        kind: BundleKind::Rauc,
        compatible: "board".into(),
        version: "2".into(),
        bytes: 10,
        sha256: "a".repeat(64),
        path: "/b".into(),
    };
    let window = Some(Window { from: 0, until: 60 });
    let id = UpdateId::new(id).unwrap();
    Box::new(UpdateOrder { id, bundle, window, allow_downgrade: false, health: Millis(60_000) })
}

fn ordered(updater: &mut Updater, id: &str) -> Vec<Action> {
    updater.handle(Event::Order { order: order(id), reply: "r".into(), refusal: None })
}

fn standing(standing: Standing) -> Event {
    let pending = Some(Pending { order: UpdateId::new("u1").unwrap(), standing });
    Event::Standing { status: Ok(Box::new(Status { pending, ..Status::default() })), replaced: false }
}

fn nothing_pending() -> Event {
    Event::Standing { status: Ok(Box::default()), replaced: false }
}

fn fault(code: Code) -> Fault {
    Fault::new(code, "as asked")
}

/// The power goes: what is left is what the last `Store` wrote.
struct Disk {
    folder: tempfile::TempDir,
    updater: Updater,
}

impl Disk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), updater: Updater::new(None).0 }
    }

    /// Carries out `Store` alone; the others are the daemon's.
    fn handle(&mut self, event: Event) -> Vec<Action> {
        let actions = self.updater.handle(event);
        if actions.contains(&Action::Store) {
            store(self.folder.path(), self.updater.kept().unwrap()).unwrap();
        }
        actions
    }

    fn order(&mut self) -> Vec<Action> {
        self.handle(Event::Order { order: order("u1"), reply: "r".into(), refusal: None })
    }

    fn cut(&mut self) -> Vec<Action> {
        let (updater, actions) = Updater::new(load(self.folder.path()));
        self.updater = updater;
        actions
    }

    fn install_it(&mut self) {
        self.order();
        self.handle(Event::Fetched(Ok(())));
        assert!(self.handle(Event::Look(OPEN)).contains(&Action::Install));
    }

    fn state(&self) -> UpdateState {
        self.updater.state().unwrap()
    }
}

/// Where each step comes after its state is on disk.
fn stored_before(actions: &[Action], step: &Action) -> bool {
    let at = |wanted: &Action| actions.iter().position(|action| action == wanted);
    matches!((at(&Action::Store), at(step)), (Some(store), Some(step)) if store < step)
}

#[test]
fn an_order_goes_its_way_and_each_state_is_on_disk_before_its_step() {
    let mut disk = Disk::new();
    let actions = disk.order();
    assert!(stored_before(&actions, &Action::Fetch));
    assert!(stored_before(&actions, &Action::Reply("r".into(), None)), "answered when it is on disk");
    assert_eq!(disk.handle(Event::FetchedSome(5)), [Action::Publish]);
    assert_eq!(disk.state(), UpdateState::Fetching { bytes: 5 });
    disk.handle(Event::Fetched(Ok(())));
    assert_eq!(disk.state(), UpdateState::Waiting);
    assert!(stored_before(&disk.handle(Event::Look(OPEN)), &Action::Install));
    let actions = disk.handle(Event::Installed(Ok(true)));
    assert!(stored_before(&actions, &Action::Restart { boot: true }));
    assert_eq!(disk.cut(), [Action::Ask(Duration::ZERO)], "the boot");
    disk.handle(standing(Standing::Trial));
    assert_eq!(disk.state(), UpdateState::Verifying);
    assert_eq!(disk.handle(Event::Look(OPEN)), [], "not healthy");
    let healthy = View { healthy: true, ..OPEN };
    assert_eq!(disk.handle(Event::Look(healthy)), [Action::Commit]);
    assert_eq!(disk.handle(Event::Look(healthy)), [], "once");
    disk.handle(Event::Committed(Ok(())));
    assert_eq!(disk.state(), UpdateState::Done);
    assert_eq!(disk.cut(), [], "nothing is left to do");
    assert_eq!(disk.state(), UpdateState::Done);
}

#[test]
fn installing_waits_for_the_window_and_for_the_attempts_that_run() {
    let mut disk = Disk::new();
    disk.order();
    disk.handle(Event::Fetched(Ok(())));
    let taking = View { taking: true, idle: false, ..OPEN };
    let (closed, busy) = (View { window_open: false, ..taking }, View { idle: false, ..OPEN });
    assert_eq!(disk.handle(Event::Look(closed)), []);
    assert_eq!(disk.handle(Event::Look(taking)), [Action::Drain]);
    assert_eq!(disk.handle(Event::Look(busy)), []);
    assert_eq!(
        disk.handle(Event::Look(closed)),
        [Action::Resume],
        "the window closed before the node was idle"
    );
    assert_eq!(disk.handle(Event::Look(taking)), [Action::Drain]);
    assert!(disk.handle(Event::Look(OPEN)).contains(&Action::Install));
}

/// Of a probe that ended, and proved nothing.
fn nothing_proved() -> Option<Able> {
    Some(Able::of([].iter()))
}

#[test]
fn a_new_version_that_can_do_less_than_the_one_before_is_not_committed() {
    let mut disk = Disk::new();
    disk.install_it();
    disk.handle(Event::Installed(Ok(true)));
    // What the version before could do is on the disk.
    disk.cut();
    disk.handle(standing(Standing::Trial));
    let healthy = View { healthy: true, ..OPEN };
    assert_eq!(disk.handle(Event::Look(View { able: nothing_proved(), ..healthy })), []);
    assert_eq!(disk.handle(Event::Look(View { able: None, ..healthy })), [], "its probe has not ended");
    assert_eq!(disk.handle(Event::Look(healthy)), [Action::Commit], "a later probe proves it");
}

#[test]
fn a_board_that_had_no_codec_before_is_updated_all_the_same() {
    let mut disk = Disk::new();
    disk.order();
    disk.handle(Event::Fetched(Ok(())));
    let unknown = View { able: None, ..OPEN };
    assert_eq!(disk.handle(Event::Look(unknown)), [], "not before it is known what this version can do");
    let none = View { able: nothing_proved(), ..OPEN };
    assert!(stored_before(&disk.handle(Event::Look(none)), &Action::Install));
    disk.handle(Event::Installed(Ok(true)));
    disk.cut();
    disk.handle(standing(Standing::Trial));
    assert_eq!(disk.handle(Event::Look(none)), [], "it is not connected, or its probe failed");
    assert_eq!(disk.handle(Event::Look(View { healthy: true, ..none })), [Action::Commit]);
}

#[test]
fn a_journal_of_a_version_that_did_not_know_what_it_can_do_asks_for_a_codec() {
    let mut disk = Disk::new();
    disk.install_it();
    let file = disk.folder.path().join("update/order.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(kept.as_object_mut().unwrap().remove("before").is_some());
    std::fs::write(&file, kept.to_string()).unwrap();
    disk.cut();
    disk.handle(standing(Standing::Trial));
    let healthy = View { healthy: true, ..OPEN };
    assert_eq!(disk.handle(Event::Look(View { able: nothing_proved(), ..healthy })), []);
    assert_eq!(disk.handle(Event::Look(healthy)), [Action::Commit]);
}

#[test]
fn a_power_cut_leads_on_from_each_state() {
    let mut disk = Disk::new();
    disk.order();
    assert_eq!(disk.cut(), [Action::Fetch]);
    disk.handle(Event::Fetched(Ok(())));
    assert_eq!(disk.cut(), []);
    assert_eq!(disk.state(), UpdateState::Waiting);
    disk.handle(Event::Look(OPEN));
    // While installing: once more, if root's journal says that it was not done.
    for cut in [standing(Standing::Interrupted), nothing_pending()] {
        assert_eq!(disk.cut(), [Action::Ask(Duration::ZERO)]);
        disk.handle(cut);
        assert!(disk.handle(Event::Look(OPEN)).contains(&Action::Install));
    }
    // After it was done, and before that was on our disk.
    disk.cut();
    assert!(disk.handle(standing(Standing::AwaitsBoot)).contains(&Action::Restart { boot: true }));
    // While restarting and verifying.
    for _ in 0..2 {
        assert_eq!(disk.cut(), [Action::Ask(Duration::ZERO)]);
        disk.handle(standing(Standing::Trial));
        assert_eq!(disk.state(), UpdateState::Verifying);
    }
    // Between the commit and its answer.
    disk.cut();
    disk.handle(standing(Standing::Committed));
    assert_eq!(disk.state(), UpdateState::Done);
}

#[test]
fn what_went_back_is_said_to_have_gone_back_and_what_failed_to_have_failed() {
    let unhealthy = fault(Code::Unhealthy);
    let mut disk = Disk::new();
    disk.install_it();
    disk.handle(Event::Installed(Ok(true)));
    disk.cut();
    let actions = disk.handle(standing(Standing::RolledBack { fault: unhealthy.clone() }));
    assert!(actions.contains(&Action::Remove));
    assert_eq!(disk.state(), UpdateState::RolledBack { fault: unhealthy });

    let mut disk = Disk::new();
    disk.order();
    disk.handle(Event::Fetched(Ok(())));
    disk.handle(Event::Look(View { taking: true, ..OPEN }));
    let bad = fault(Code::BadBundle);
    assert_eq!(disk.handle(Event::Installed(Err(bad.clone()))), [Action::Ask(Duration::ZERO)]);
    let actions = disk.handle(nothing_pending());
    assert!(actions.contains(&Action::Resume), "the node works on");
    assert_eq!(disk.state(), UpdateState::Failed { fault: bad });
}

#[test]
fn a_node_that_an_operator_drained_stays_drained_after_an_update() {
    let mut disk = Disk::new();
    disk.install_it();
    disk.handle(Event::Installed(Err(fault(Code::BadBundle))));
    assert!(!disk.handle(nothing_pending()).contains(&Action::Resume));
}

#[test]
fn a_helper_that_was_ended_by_what_it_installed_is_no_failure() {
    let mut disk = Disk::new();
    disk.install_it();
    disk.handle(Event::Installed(Err(fault(Code::Interrupted))));
    assert_eq!(disk.handle(standing(Standing::Installing)), [Action::Ask(AGAIN)]);
    let Event::Standing { status, .. } = standing(Standing::Trial) else { unreachable!() };
    let actions = disk.handle(Event::Standing { status: status.clone(), replaced: true });
    assert!(
        actions.contains(&Action::Restart { boot: false }),
        "this process is the old program: {actions:?}"
    );
    disk.cut();
    disk.handle(Event::Standing { status, replaced: false });
    assert_eq!(disk.state(), UpdateState::Verifying);
}

#[test]
fn a_helper_that_is_busy_or_away_is_asked_again() {
    let mut disk = Disk::new();
    disk.install_it();
    disk.handle(Event::Installed(Err(fault(Code::Busy))));
    assert_eq!(disk.handle(standing(Standing::Interrupted)), [Action::Ask(LATER)]);
    let away = Event::Standing { status: Err(fault(Code::Unsupported)), replaced: false };
    assert_eq!(disk.handle(away), [Action::Ask(LATER)]);
    disk.handle(standing(Standing::Interrupted));
    assert!(disk.handle(Event::Look(OPEN)).contains(&Action::Install));
}

#[test]
fn a_version_that_root_has_given_up_makes_room_for_the_next_order() {
    let mut disk = Disk::new();
    disk.install_it();
    disk.handle(Event::Installed(Ok(false)));
    disk.cut();
    disk.handle(standing(Standing::Trial));
    let next = || Event::Order { order: order("u2"), reply: "r".into(), refusal: None };
    let actions = disk.handle(next());
    assert!(
        matches!(&actions[..], [Action::Reply(_, Some(fault)), Action::Ask(Duration::ZERO)] if fault.code == Code::Busy)
    );
    disk.handle(standing(Standing::Failed { fault: fault(Code::Unhealthy) }));
    assert!(disk.handle(next()).contains(&Action::Fetch));
}

#[test]
fn a_commit_whose_answer_was_lost_is_asked_for_and_never_rolled_back_by_a_report() {
    let mut disk = Disk::new();
    disk.install_it();
    disk.handle(Event::Installed(Ok(false)));
    disk.cut();
    disk.handle(standing(Standing::Trial));
    disk.handle(Event::Look(View { healthy: true, ..OPEN }));
    assert_eq!(disk.handle(Event::Committed(Err(fault(Code::Interrupted)))), [Action::Ask(AGAIN)]);
    disk.handle(standing(Standing::Committed));
    assert_eq!(disk.state(), UpdateState::Done);
}

#[test]
fn a_wrong_digest_is_fetched_once_more_and_then_failed() {
    let mut disk = Disk::new();
    disk.order();
    let actions = disk.handle(Event::Fetched(Err(FetchError::Wrong)));
    assert!(actions.ends_with(&[Action::Remove, Action::Fetch]), "{actions:?}");
    assert_eq!(disk.cut(), [Action::Fetch], "the second one is remembered");
    disk.handle(Event::Fetched(Err(FetchError::Wrong)));
    assert!(matches!(disk.state(), UpdateState::Failed { fault } if fault.code == Code::BadBundle));
}

#[test]
fn one_order_at_a_time_and_the_same_one_as_often_as_it_comes() {
    let (mut updater, _) = Updater::new(None);
    ordered(&mut updater, "u1");
    let again = ordered(&mut updater, "u1");
    assert_eq!(again, [Action::Reply("r".into(), None), Action::Publish]);
    let other = ordered(&mut updater, "u2");
    assert!(matches!(&other[..], [Action::Reply(_, Some(fault))] if fault.code == Code::Busy));
    updater.handle(Event::Fetched(Err(FetchError::Fault(fault(Code::FetchFailed)))));
    let next = ordered(&mut updater, "u2");
    assert!(next.contains(&Action::Fetch), "after its end");
    let refused =
        Event::Order { order: order("u3"), reply: "r".into(), refusal: Some(fault(Code::Unsupported)) };
    updater.handle(Event::Fetched(Err(FetchError::Fault(fault(Code::FetchFailed)))));
    updater.handle(refused);
    assert_eq!(updater.order().unwrap().id.as_str(), "u2", "what is refused leaves the last state there");
}

#[test]
fn an_update_can_be_cancelled_until_it_is_installed() {
    let cancel = |id: &str| Event::Cancel { id: UpdateId::new(id).unwrap(), reply: "c".into() };
    let code = |actions: &[Action]| match actions {
        [.., Action::Reply(_, fault)] => fault.as_ref().map(|fault| fault.code),
        other => panic!("no answer: {other:?}"),
    };
    let mut disk = Disk::new();
    disk.order();
    assert_eq!(code(&disk.handle(cancel("u9"))), Some(Code::Unsupported));
    let actions = disk.handle(cancel("u1"));
    assert_eq!((code(&actions), &actions[0]), (None, &Action::StopFetch));
    assert!(matches!(disk.state(), UpdateState::Failed { fault } if fault.code == Code::Revoked));
    assert_eq!(disk.handle(Event::Fetched(Ok(()))), [], "late words");
    let mut disk = Disk::new();
    disk.install_it();
    assert_eq!(code(&disk.handle(cancel("u1"))), Some(Code::Busy));
}

#[test]
fn without_a_journal_nothing_is_begun() {
    let (mut updater, _) = Updater::new(None);
    ordered(&mut updater, "u1");
    let actions = updater.handle(Event::Unstored("disk full".into()));
    assert!(actions.contains(&Action::StopFetch));
    assert!(matches!(updater.state(), Some(UpdateState::Failed { fault }) if fault.code == Code::Storage));
}

#[test]
fn an_order_that_cannot_be_done_here_is_refused_with_what_to_do() {
    let status =
        Status { updates_by: Some(BundleKind::Rauc), compatible: "board".into(), ..Status::default() };
    assert_eq!(refusal(&order("u1"), Ok(&status)), None);
    let code = |order: &UpdateOrder, status: &Status| refusal(order, Ok(status)).map(|fault| fault.code);
    let other = Status { compatible: "other".into(), ..status.clone() };
    assert_eq!(code(&order("u1"), &other), Some(Code::BadBundle));
    let packages = Status { updates_by: Some(BundleKind::Deb), ..status.clone() };
    assert_eq!(code(&order("u1"), &packages), Some(Code::Unsupported));
    let by_hand = Status { explanation: "copy it".into(), ..Status::default() };
    assert_eq!(refusal(&order("u1"), Ok(&by_hand)).unwrap().text, "copy it");
    let mut traversal = order("u1");
    traversal.bundle.sha256 = "../x".into();
    assert_eq!(code(&traversal, &status), Some(Code::BadBundle));
    assert_eq!(refusal(&order("u1"), Err(&fault(Code::Unsupported))), Some(fault(Code::Unsupported)));
}
