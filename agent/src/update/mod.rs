//! An update, as the node goes through it.
//!
//! ```text
//!  order ─▶ Fetching ─▶ Waiting ─▶ Installing ─▶ Restarting ─ boot, or start ─▶ Verifying ─▶ Done
//!              │ ▲ once    │ ▲          │              │                            │
//!              └─┘         │ └── cut ───┤              └──── the helper says ───────┤
//!              └─ fault ─┬─┘ cancel     │                                           ▼
//!                        └─────────▶ Failed                                     RolledBack
//! ```
//!
//! Plain data: events go in, actions come out. `Store` comes before the step that the stage names, so that a power
//! cut at any point leads on: what is on disk says what to do again, and from `Installing` on root's helper says what
//! really happened. A report is state, published again after each connection; nothing depends on its being read.

mod able;
pub(crate) mod fetch;
pub(crate) mod journal;
mod refusal;

use std::time::Duration;

use headwater_protocol::update::{UpdateOrder, UpdateState};
use headwater_protocol::{Code, Fault, UpdateId};
use serde::{Deserialize, Serialize};

use crate::system::wire::{Standing, Status};
use fetch::FetchError;

pub(crate) use able::Able;
pub(crate) use refusal::refusal;

/// Between two questions to the helper: while it works, and while it does not answer.
const AGAIN: Duration = Duration::from_secs(3);
const LATER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// `again`: the whole had a wrong digest once.
    Fetching {
        again: bool,
    },
    Waiting,
    Installing,
    Restarting,
    Verifying,
    Done,
    RolledBack {
        fault: Fault,
    },
    Failed {
        fault: Fault,
    },
}

/// What is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    order: UpdateOrder,
    stage: Stage,
    /// What the version could do that the update replaces; known from `Installing` on.
    #[serde(default = "unknown")]
    before: Able,
}

fn unknown() -> Able {
    Able::BOTH
}

#[derive(Debug)]
pub(crate) enum Event {
    /// `refusal`: what this node knows against it at once.
    Order {
        order: Box<UpdateOrder>,
        reply: String,
        refusal: Option<Fault>,
    },
    Cancel {
        id: UpdateId,
        reply: String,
    },
    FetchedSome(u64),
    Fetched(Result<(), FetchError>),
    InstalledSome(u8),
    /// Whether it takes a new boot.
    Installed(Result<bool, Fault>),
    /// `replaced`: this process runs a program that is not on the disk any more.
    Standing {
        status: Result<Box<Status>, Fault>,
        replaced: bool,
    },
    Committed(Result<(), Fault>),
    /// Something may have changed.
    Look(View),
    /// The journal could not be written.
    Unstored(String),
}

/// The node around the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// The order's window, if any; see [`Updater::order`].
    pub(crate) window_open: bool,
    /// The node takes new work.
    pub(crate) taking: bool,
    /// No attempt runs.
    pub(crate) idle: bool,
    /// Connected, and the probe has passed.
    pub(crate) healthy: bool,
    /// What the probe has proved and is still used; None until it has ended, however it did.
    pub(crate) able: Option<Able>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// If it fails, what follows must not be done, and [`Event::Unstored`] is due.
    Store,
    Publish,
    Reply(String, Option<Fault>),
    Fetch,
    StopFetch,
    /// What was fetched.
    Remove,
    Drain,
    Resume,
    Install,
    /// The helper, for its status.
    Ask(Duration),
    Commit,
    Restart {
        boot: bool,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Updater {
    kept: Option<Kept>,
    fetched: u64,
    percent: u8,
    /// The node takes no work because of us.
    draining: bool,
    committing: bool,
    /// What the helper said to `Install`, until its status tells what that means.
    refused: Option<Fault>,
}

impl Updater {
    /// With what an earlier life left, and what is to be done about it.
    pub(crate) fn new(kept: Option<Kept>) -> (Self, Vec<Action>) {
        let actions = match kept.as_ref().map(|kept| &kept.stage) {
            Some(Stage::Fetching { .. }) => vec![Action::Fetch],
            Some(Stage::Installing | Stage::Restarting | Stage::Verifying) => {
                vec![Action::Ask(Duration::ZERO)]
            }
            Some(Stage::Waiting | Stage::Done | Stage::RolledBack { .. } | Stage::Failed { .. }) | None => {
                vec![]
            }
        };
        (Self { kept, ..Self::default() }, actions)
    }

    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    pub(crate) fn order(&self) -> Option<&UpdateOrder> {
        self.kept.as_ref().map(|kept| &kept.order)
    }

    /// Whether a restart for another reason would disturb.
    pub(crate) fn is_delicate(&self) -> bool {
        matches!(self.kept.as_ref().map(|kept| &kept.stage), Some(Stage::Installing | Stage::Restarting))
    }

    /// Later the helper's journal says all that ours would.
    pub(crate) fn needs_its_journal(&self) -> bool {
        let stage = self.kept.as_ref().map(|kept| &kept.stage);
        matches!(stage, Some(Stage::Fetching { .. } | Stage::Waiting | Stage::Installing))
    }

    pub(crate) fn state(&self) -> Option<UpdateState> {
        self.kept.as_ref().map(|kept| match &kept.stage {
            Stage::Fetching { .. } => UpdateState::Fetching { bytes: self.fetched },
            Stage::Waiting => UpdateState::Waiting,
            Stage::Installing => UpdateState::Installing { percent: self.percent },
            Stage::Restarting => UpdateState::Restarting,
            Stage::Verifying => UpdateState::Verifying,
            Stage::Done => UpdateState::Done,
            Stage::RolledBack { fault } => UpdateState::RolledBack { fault: fault.clone() },
            Stage::Failed { fault } => UpdateState::Failed { fault: fault.clone() },
        })
    }

    pub(crate) fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match (event, self.kept.as_ref().map(|kept| kept.stage.clone())) {
            (Event::Order { order, reply, refusal }, stage) => {
                self.ordered(*order, reply, refusal, stage.as_ref(), &mut actions);
            }
            (Event::Cancel { id, reply }, stage) => self.cancel(&id, reply, stage.as_ref(), &mut actions),
            (_, None) => {}
            (Event::FetchedSome(bytes), Some(Stage::Fetching { .. })) => {
                self.fetched = bytes;
                actions.push(Action::Publish);
            }
            (Event::Fetched(Ok(())), Some(Stage::Fetching { .. })) => {
                self.enter(Stage::Waiting, &mut actions)
            }
            (Event::Fetched(Err(FetchError::Wrong)), Some(Stage::Fetching { again: false })) => {
                self.fetched = 0;
                self.enter(Stage::Fetching { again: true }, &mut actions);
                actions.extend([Action::Remove, Action::Fetch]);
            }
            (Event::Fetched(Err(FetchError::Wrong)), Some(Stage::Fetching { again: true })) => {
                let text = "the bundle was fetched twice and does not have the SHA-256 of its order";
                self.end(Stage::Failed { fault: Fault::new(Code::BadBundle, text) }, &mut actions);
            }
            (Event::Fetched(Err(FetchError::Fault(fault))), Some(Stage::Fetching { .. })) => {
                self.end(Stage::Failed { fault }, &mut actions);
            }
            (Event::InstalledSome(percent), Some(Stage::Installing)) => {
                self.percent = percent;
                actions.push(Action::Publish);
            }
            (Event::Installed(Ok(boot)), Some(Stage::Installing)) => self.restart(boot, &mut actions),
            (Event::Installed(Err(fault)), Some(Stage::Installing)) => {
                // Also where the helper was ended by what it installed.
                self.refused = Some(fault);
                actions.push(Action::Ask(Duration::ZERO));
            }
            (
                Event::Standing { status, replaced },
                Some(stage @ (Stage::Installing | Stage::Restarting | Stage::Verifying)),
            ) => match status {
                Ok(status) => self.standing(&status, replaced, &stage, &mut actions),
                Err(_) => actions.push(Action::Ask(LATER)),
            },
            (Event::Committed(result), Some(Stage::Verifying)) => {
                self.committing = false;
                match result {
                    Ok(()) => self.end(Stage::Done, &mut actions),
                    // Its status says what it means.
                    Err(_) => actions.push(Action::Ask(AGAIN)),
                }
            }
            (Event::Look(view), Some(stage)) => self.look(view, &stage, &mut actions),
            (Event::Unstored(why), Some(Stage::Fetching { .. } | Stage::Waiting | Stage::Installing)) => {
                // Nothing was begun: the step would have come after.
                let fault = Fault::new(Code::Storage, format!("the node cannot write its journal: {why}"));
                self.set(Stage::Failed { fault });
                self.resume(&mut actions);
                actions.extend([Action::StopFetch, Action::Publish]);
            }
            // Late words of a step that is over.
            (
                Event::FetchedSome(_)
                | Event::Fetched(_)
                | Event::InstalledSome(_)
                | Event::Installed(_)
                | Event::Standing { .. }
                | Event::Committed(_)
                | Event::Unstored(_),
                Some(_),
            ) => {}
        }
        actions
    }

    fn ordered(
        &mut self,
        order: UpdateOrder,
        reply: String,
        refusal: Option<Fault>,
        stage: Option<&Stage>,
        actions: &mut Vec<Action>,
    ) {
        if self.order().is_some_and(|known| known.id == order.id) {
            actions.extend([Action::Reply(reply, None), Action::Publish]);
        } else if stage.is_some_and(|stage| !is_over(stage)) {
            let known = self.order().map_or("", |known| known.id.as_str());
            let fault =
                Fault::new(Code::Busy, format!("update {known} is not over; cancel it, or wait for it"));
            actions.push(Action::Reply(reply, Some(fault)));
            if stage == Some(&Stage::Verifying) {
                // Root may have given it up since it was asked last.
                actions.push(Action::Ask(Duration::ZERO));
            }
        } else if refusal.is_some() {
            actions.push(Action::Reply(reply, refusal));
        } else {
            *self = Self {
                kept: Some(Kept { order, stage: Stage::Fetching { again: false }, before: Able::BOTH }),
                draining: self.draining,
                ..Self::default()
            };
            actions.extend([Action::Store, Action::Reply(reply, None), Action::Publish, Action::Fetch]);
        }
    }

    fn cancel(&mut self, id: &UpdateId, reply: String, stage: Option<&Stage>, actions: &mut Vec<Action>) {
        let mine = self.order().is_some_and(|order| order.id == *id);
        match stage {
            Some(Stage::Fetching { .. } | Stage::Waiting) if mine => {
                actions.push(Action::StopFetch);
                let fault = Fault::new(Code::Revoked, "the update was cancelled");
                self.end(Stage::Failed { fault }, actions);
                actions.push(Action::Reply(reply, None));
            }
            Some(Stage::Installing | Stage::Restarting | Stage::Verifying) if mine => {
                let fault = Fault::new(Code::Busy, "too late: the update is being installed");
                actions.push(Action::Reply(reply, Some(fault)));
            }
            Some(_) | None => {
                let fault = Fault::new(Code::Unsupported, format!("there is no update {id} to cancel"));
                actions.push(Action::Reply(reply, Some(fault)));
            }
        }
    }

    fn look(&mut self, view: View, stage: &Stage, actions: &mut Vec<Action>) {
        match stage {
            Stage::Waiting if !view.window_open => self.resume(actions),
            Stage::Waiting => {
                // Not where an operator drained it before: then it stays so afterwards.
                if view.taking {
                    self.draining = true;
                    actions.push(Action::Drain);
                }
                if let (true, Some(able), Some(kept)) = (view.idle, view.able, &mut self.kept) {
                    // Written with the stage: the new version is measured by it. A board without codecs stays legal.
                    kept.before = able;
                    self.percent = 0;
                    self.enter(Stage::Installing, actions);
                    actions.push(Action::Install);
                }
            }
            Stage::Verifying if view.healthy && !self.committing && self.is_able_enough(view.able) => {
                self.committing = true;
                actions.push(Action::Commit);
            }
            Stage::Fetching { .. }
            | Stage::Installing
            | Stage::Restarting
            | Stage::Verifying
            | Stage::Done
            | Stage::RolledBack { .. }
            | Stage::Failed { .. } => {}
        }
    }

    fn is_able_enough(&self, able: Option<Able>) -> bool {
        let before = self.kept.as_ref().map_or(Able::BOTH, |kept| kept.before);
        able.is_some_and(|able| able.is_no_less_than(before))
    }

    /// Or soon will be.
    pub(crate) fn is_on_trial(&self) -> bool {
        let stage = self.kept.as_ref().map(|kept| &kept.stage);
        matches!(stage, Some(Stage::Installing | Stage::Restarting | Stage::Verifying))
    }

    /// This is too little for the version on trial to be committed.
    pub(crate) fn lacks(&self, able: Able) -> bool {
        self.is_on_trial() && !self.is_able_enough(Some(able))
    }

    /// What the helper's journal and the boot say, which is what happened.
    fn standing(&mut self, status: &Status, replaced: bool, stage: &Stage, actions: &mut Vec<Action>) {
        let mine = self.order().map(|order| &order.id);
        let standing = status.pending.as_ref().filter(|pending| Some(&pending.order) == mine);
        match standing.map(|pending| &pending.standing) {
            Some(Standing::Installing) => actions.push(Action::Ask(AGAIN)),
            Some(Standing::AwaitsBoot) => self.restart(true, actions),
            Some(Standing::Trial) if replaced => self.restart(false, actions),
            Some(Standing::Trial) => {
                self.refused = None;
                if *stage != Stage::Verifying {
                    self.enter(Stage::Verifying, actions);
                }
            }
            Some(Standing::Committed) => self.end(Stage::Done, actions),
            Some(Standing::RolledBack { fault }) => {
                self.end(Stage::RolledBack { fault: fault.clone() }, actions);
            }
            Some(Standing::Failed { fault }) => self.end(Stage::Failed { fault: fault.clone() }, actions),
            Some(Standing::Interrupted) | None => match (self.refused.take(), stage) {
                // Asked for again after that, when the other work may be over.
                (Some(fault), _) if fault.code == Code::Busy => actions.push(Action::Ask(LATER)),
                (Some(fault), _) => self.end(Stage::Failed { fault }, actions),
                // Cut off before it was done: once more, from the drained node on.
                (None, Stage::Installing) => self.enter(Stage::Waiting, actions),
                (None, _) => {
                    let text =
                        "root's journal does not know the update; the earlier version may run or the new one";
                    self.end(Stage::Failed { fault: Fault::new(Code::InstallFailed, text) }, actions);
                }
            },
        }
    }

    fn restart(&mut self, boot: bool, actions: &mut Vec<Action>) {
        self.enter(Stage::Restarting, actions);
        actions.push(Action::Restart { boot });
    }

    fn end(&mut self, stage: Stage, actions: &mut Vec<Action>) {
        self.enter(stage, actions);
        actions.push(Action::Remove);
        self.resume(actions);
    }

    fn enter(&mut self, stage: Stage, actions: &mut Vec<Action>) {
        self.set(stage);
        actions.extend([Action::Store, Action::Publish]);
    }

    fn set(&mut self, stage: Stage) {
        if let Some(kept) = &mut self.kept {
            kept.stage = stage;
        }
    }

    fn resume(&mut self, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.draining) {
            actions.push(Action::Resume);
        }
    }
}

fn is_over(stage: &Stage) -> bool {
    match stage {
        Stage::Done | Stage::RolledBack { .. } | Stage::Failed { .. } => true,
        Stage::Fetching { .. }
        | Stage::Waiting
        | Stage::Installing
        | Stage::Restarting
        | Stage::Verifying => false,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
