//! Updates: the operator's wishes, the nodes' words, and a look at the clocks now and then.

use std::collections::BTreeMap;

use headwater_protocol::message::{Command, CommandKind, Extra, Reply};
use headwater_protocol::topic::Channel;
use headwater_protocol::update::{Bundle, UpdateOrder, UpdateStatus};
use headwater_protocol::{Millis, NodeId, UpdateId};
use tokio::sync::oneshot;

use super::commands::COMMAND_LIFE;
use super::{Event, Handle, Running, Stopped, send};
use crate::operate::views::UpdateView;
use crate::rollout::{
    Action, BadPlan, Campaign, Candidate, Head, NotNow, Plan, State, Time, check, enlist, is_older, step,
    suits,
};
use crate::schedule::{Node, Now};
use crate::selector::{Facts, Selector};
use crate::store::{After, REMEMBERED, Write};

/// Longest time between two looks at the clocks.
const LOOK_MS: u64 = 1000;
/// Before the update's id in the ids of its commands: repeats of one order are one command.
const ORDER: &str = "update.";
const RECALL: &str = "recall.";
/// Updates that have not ended; further ones are refused.
const OPEN: usize = 32;

/// An update as it is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: UpdateId,
    pub name: Option<String>,
    pub selector: Selector,
    pub bundle: Bundle,
    pub plan: Plan,
    /// Only say what would happen.
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    Pause,
    Resume,
    Cancel,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    #[error(transparent)]
    Plan(#[from] BadPlan),
    #[error("no node matches {0}; headwater nodes shows what there is")]
    Nobody(String),
    #[error("{OPEN} updates have not ended; cancel those that are not needed")]
    TooMany,
    #[error(
        "{node} runs {runs}, which is newer than {version}, and no other node can take it; --allow-downgrade takes it back"
    )]
    Older { node: NodeId, runs: String, version: String },
    #[error("no update is called {0}")]
    Unknown(UpdateId),
    #[error(transparent)]
    NotNow(#[from] NotNow),
    #[error("the update could not be stored: {0}")]
    Store(String),
}

pub(super) type Answer = oneshot::Sender<Result<Campaign, UpdateError>>;

/// Updates, and when they were looked at last.
#[derive(Debug, Default)]
pub(super) struct Updates {
    pub(super) campaigns: BTreeMap<UpdateId, Campaign>,
    /// Something happened that may lead to more.
    due: bool,
    looked: u64,
    /// Since when nodes are heard, on the clock that never jumps.
    heard_since: Option<u64>,
}

impl Updates {
    pub(super) fn of(campaigns: BTreeMap<UpdateId, Campaign>) -> Self {
        Self { campaigns, due: true, looked: 0, heard_since: None }
    }

    /// The broker is there, or no more.
    pub(super) fn listens(&mut self, since: Option<u64>) {
        self.heard_since = since;
    }

    /// Those that the store has forgotten too: of the newest it keeps all, of the others what has not ended.
    fn forget_old(&mut self) {
        let mut created: Vec<Millis> = self.campaigns.values().map(|campaign| campaign.created).collect();
        created.sort_by_key(|at| std::cmp::Reverse(*at));
        let Some(oldest) = created.get(REMEMBERED - 1).copied() else { return };
        self.campaigns.retain(|_, campaign| campaign.created >= oldest || !campaign.head.state.is_final());
    }
}

impl Handle {
    pub async fn start_update(&self, asked: Asked) -> Result<Result<Campaign, UpdateError>, Stopped> {
        let (answer, started) = oneshot::channel();
        let event = Event::StartUpdate { asked: Box::new(asked), answer };
        self.events.send(event).await.map_err(|_| Stopped)?;
        started.await.map_err(|_| Stopped)
    }

    pub async fn steer_update(
        &self,
        update: UpdateId,
        steer: Steer,
    ) -> Result<Result<Campaign, UpdateError>, Stopped> {
        let (answer, steered) = oneshot::channel();
        self.events.send(Event::SteerUpdate { update, steer, answer }).await.map_err(|_| Stopped)?;
        steered.await.map_err(|_| Stopped)
    }

    /// All that are remembered, without their nodes, the newest first.
    pub async fn updates(&self) -> Result<Vec<UpdateView>, Stopped> {
        let (answer, updates) = oneshot::channel();
        self.events.send(Event::Updates { answer }).await.map_err(|_| Stopped)?;
        updates.await.map_err(|_| Stopped)
    }

    /// One with all its nodes.
    pub async fn update(&self, update: UpdateId) -> Result<Option<UpdateView>, Stopped> {
        let (answer, found) = oneshot::channel();
        self.events.send(Event::Update { update, answer }).await.map_err(|_| Stopped)?;
        found.await.map_err(|_| Stopped)
    }
}

impl Running {
    pub(super) async fn start_update(&mut self, asked: Asked, answer: Answer, now: Now) {
        let dry_run = asked.dry_run;
        match self.plan_update(asked, now) {
            Ok(campaign) if dry_run => drop(answer.send(Ok(campaign))),
            Ok(campaign) => {
                tracing::info!(
                    update = %campaign.id, version = campaign.bundle.version, nodes = campaign.candidates(),
                    "update wanted"
                );
                self.save_update(campaign, answer).await;
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    pub(super) async fn steer_update(&mut self, update: UpdateId, steer: Steer, answer: Answer) {
        let Some(mut campaign) = self.updates.campaigns.get(&update).cloned() else {
            return drop(answer.send(Err(UpdateError::Unknown(update))));
        };
        let steered = match steer {
            Steer::Pause => campaign.pause(),
            Steer::Resume => campaign.resume(),
            Steer::Cancel => campaign.cancel(),
        };
        if let Err(error) = steered {
            return drop(answer.send(Err(error.into())));
        }
        tracing::info!(%update, ?steer, "update steered");
        self.save_update(campaign, answer).await;
    }

    /// Stores all of it, and goes by it then: what its asker was told is not stored must not begin later.
    async fn save_update(&mut self, campaign: Campaign, answer: Answer) {
        let mut writes = vec![Write::Update(Box::new(campaign.without_members()))];
        writes.extend(campaign.members.iter().map(|(node, member)| Write::UpdateNode {
            update: campaign.id.clone(),
            node: node.clone(),
            member: member.clone(),
        }));
        let stored = self.owner.store.write_now(writes).await;
        if stored.is_ok() {
            self.updates.campaigns.insert(campaign.id.clone(), campaign.clone());
            self.updates.forget_old();
        }
        // Who asked may be gone.
        drop(answer.send(stored.map(|()| campaign).map_err(|error| UpdateError::Store(error.to_string()))));
        self.updates.due = true;
        self.updates_changed();
    }

    fn plan_update(&self, asked: Asked, now: Now) -> Result<Campaign, UpdateError> {
        let Asked { id, name, selector, bundle, plan, dry_run: _ } = asked;
        check(&plan)?;
        let open = |campaign: &&Campaign| !campaign.head.state.is_final();
        if self.updates.campaigns.values().filter(open).count() >= OPEN {
            return Err(UpdateError::TooMany);
        }
        let busy = |node: &NodeId| {
            let waits = |campaign: &&Campaign| {
                campaign.members.get(node).is_some_and(|member| !member.progress.is_over())
            };
            let mut others = self.updates.campaigns.values().filter(open);
            others.find(waits).map(|other| format!("the update {} is not through with it", other.id))
        };
        let fleet = self.owner.core.fleet();
        let selected = fleet.iter().filter(|(node, known)| {
            selector.matches(Facts { node, state: known.state(), birth: known.birth.as_ref() })
        });
        // Looked at again at its turn, as one that has booted is for the first time.
        let able = |known: &Node| {
            let suits = if known.has_booted() { Ok(()) } else { suits(&bundle, &plan, known.birth.as_ref()) };
            suits.map_err(|unfit| unfit.reason)
        };
        let candidates: Vec<Candidate> = selected
            .map(|(node, known)| Candidate {
                node: node.clone(),
                online: known.seen().online,
                suits: busy(node).map_or_else(|| able(known), Err),
            })
            .collect();
        if candidates.is_empty() {
            return Err(UpdateError::Nobody(selector.to_string()));
        }
        let at = Millis(now.unix);
        // A slip, most likely. Where others can take it, those that cannot are only skipped.
        let older = candidates.iter().find_map(|candidate| {
            let runs = is_older(&bundle, fleet.get(&candidate.node)?.birth.as_ref()?)?;
            Some((candidate.node.clone(), runs.to_owned()))
        });
        if let Some((node, runs)) = older
            && !plan.allow_downgrade
            && candidates.iter().all(|candidate| candidate.suits.is_err())
        {
            return Err(UpdateError::Older { node, runs, version: bundle.version });
        }
        let members = enlist(&id, &plan, candidates, at);
        let head = Head { state: State::Running, wave: 0, soaking: None, forgiven: 0, round: 0 };
        Ok(Campaign { id, name, selector: selector.to_string(), bundle, plan, created: at, head, members })
    }

    pub(super) fn update_views(&self) -> Vec<UpdateView> {
        let mut all: Vec<UpdateView> = self.updates.campaigns.values().map(UpdateView::short).collect();
        all.sort_by_key(|view| std::cmp::Reverse(view.update.created));
        all
    }

    /// A node's retained word.
    pub(super) fn update_said(&mut self, node: &NodeId, status: UpdateStatus, now: Now) {
        let mut writes = Vec::new();
        for campaign in self.updates.campaigns.values_mut() {
            if campaign.reported(node, &status, Millis(now.unix)) {
                tracing::info!(%node, update = %campaign.id, state = campaign.members[node].progress.as_str(), "update");
                writes.push(node_write(campaign, node));
            }
        }
        self.owner.core.updated(node, status, now);
        self.note_updates(writes);
    }

    /// True where the reply is one to an order.
    pub(super) fn update_replied(&mut self, node: &NodeId, reply: &Reply, now: Now) -> bool {
        let order = |prefix| reply.id.strip_prefix(prefix).and_then(|id| UpdateId::new(id).ok());
        if let Some(order) = order(RECALL) {
            self.updates.campaigns.values_mut().for_each(|campaign| campaign.recall_heard(node, &order));
            return true;
        }
        let Some(order) = order(ORDER) else { return false };
        if let Some(fault) = &reply.fault {
            tracing::warn!(%node, update = %order, code = %fault.code, text = fault.text, "order refused");
            let mut writes = Vec::new();
            for campaign in self.updates.campaigns.values_mut() {
                if campaign.refused(node, &order, fault.clone(), Millis(now.unix)) {
                    writes.push(node_write(campaign, node));
                }
            }
            self.note_updates(writes);
        }
        true
    }

    pub(super) fn node_returned(&mut self, node: &NodeId) {
        for campaign in self.updates.campaigns.values_mut() {
            campaign.returned(node);
        }
        self.updates.due = true;
    }

    /// What is lost here by a full queue the node says again after its next connection.
    fn note_updates(&mut self, writes: Vec<Write>) {
        for write in writes {
            self.owner.store.note(write);
        }
        self.updates.due = true;
        self.updates_changed();
    }

    fn updates_changed(&mut self) {
        self.owner.metrics.updates(self.updates.campaigns.values().map(|campaign| &campaign.head.state));
        self.changed.send_modify(|generation| *generation += 1);
    }

    /// Looks at the clocks where something happened or some time has passed. Orders go out once they are stored.
    pub(super) async fn look_at_updates(&mut self, now: Now) {
        if !self.updates.due && now.mono < self.updates.looked + LOOK_MS {
            return;
        }
        (self.updates.due, self.updates.looked) = (false, now.mono);
        let known = self.owner.core.fleet();
        let fleet = known.iter().map(|(node, known)| (node, known.seen())).collect();
        let listening = self.updates.heard_since.map_or(0, |since| now.mono.saturating_sub(since).max(1));
        let time = Time { now: Millis(now.unix), listening: Millis(listening) };
        let (mut writes, mut orders) = (Vec::new(), Vec::new());
        // One that is done sends nothing; one that was cancelled may still have to recall.
        for campaign in
            self.updates.campaigns.values_mut().filter(|campaign| campaign.head.state != State::Done)
        {
            let step = step(campaign, &fleet, time);
            for node in &step.touched {
                writes.push(node_write(campaign, node));
            }
            if step.head {
                tracing::info!(update = %campaign.id, head = ?campaign.head, "update goes on");
                writes.push(Write::Update(Box::new(campaign.without_members())));
            }
            for action in step.actions {
                orders.push(command(campaign, action));
            }
        }
        if writes.is_empty() && orders.is_empty() {
            return;
        }
        let (publisher, fleet) = (self.owner.publisher.clone(), self.owner.fleet.clone());
        let header = self.owner.core.header(now);
        let after: After = Box::new(move |stored| {
            if stored.is_err() {
                return;
            }
            for (node, id, kind) in orders {
                tracing::info!(%node, id, "order sent");
                let command =
                    Command { header: header.clone(), id: id.clone(), command: kind, extra: Extra::new() };
                // A lost one is sent again until the node shows it.
                send(&publisher, &fleet, &node, Channel::Command, &command, COMMAND_LIFE, Some(id));
            }
        });
        self.owner.store.write(writes, vec![after]).await;
        self.updates_changed();
    }
}

fn node_write(campaign: &Campaign, node: &NodeId) -> Write {
    // Only members are touched.
    let member = campaign.members[node].clone();
    Write::UpdateNode { update: campaign.id.clone(), node: node.clone(), member }
}

fn command(campaign: &Campaign, action: Action) -> (NodeId, String, CommandKind) {
    match action {
        Action::Order { node, order } => {
            let id = format!("{ORDER}{order}");
            let order = UpdateOrder {
                id: order,
                bundle: campaign.bundle.clone(),
                window: campaign.plan.window,
                allow_downgrade: campaign.plan.allow_downgrade,
                health: campaign.plan.health,
            };
            (node, id, CommandKind::Update(Box::new(order)))
        }
        Action::Recall { node, order } => {
            (node, format!("{RECALL}{order}"), CommandKind::CancelUpdate { id: order })
        }
    }
}
