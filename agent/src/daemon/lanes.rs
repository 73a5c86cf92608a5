//! Lanes as the owner has them: what runs in them, and their ends.

use headwater_protocol::message::Offer;
use tokio::sync::watch;
use tokio::task::{self, JoinError};

use super::{Daemon, Running};
use crate::lane::Job;
use crate::node::{AttemptId, Event, LaneId};

impl Daemon {
    pub(super) fn lane_ended(&mut self, ended: Result<(task::Id, ()), JoinError>) -> Event {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(lane) = self.lane_ids.remove(&id) else { return Event::Tick };
        if let Err(error) = ended {
            tracing::error!(%error, "a lane has failed in itself; its attempts fail with it");
        }
        self.jobs.remove(&lane);
        Event::LaneEnded(lane)
    }

    /// Makes what the actions after an offer need.
    pub(super) fn prepare(&mut self, offer: &Offer) {
        let attempt = AttemptId::of(offer);
        // An offer that comes twice must not replace the first one's.
        self.running.entry(attempt).or_insert_with(|| Running {
            span: tracing::info_span!(
                "attempt",
                node = %self.identity.node,
                stream = %offer.stream,
                segment = offer.segment,
                task = %offer.task,
                epoch = %offer.epoch,
            ),
            stop: watch::channel(None).0,
        });
    }

    pub(super) fn start(&mut self, lane: LaneId, offer: Box<Offer>) {
        let attempt = AttemptId::of(&offer);
        let (Some(jobs), Some(running)) = (self.jobs.get(&lane), self.running.get(&attempt)) else {
            tracing::error!(task = %attempt.task, "a lane or an attempt is missing; its lease will end it");
            return;
        };
        let job = Job { offer, stop: running.stop.subscribe(), span: running.span.clone() };
        if jobs.try_send(job).is_err() {
            tracing::error!(task = %attempt.task, "a lane takes no segment; the attempt's lease will end it");
        }
    }
}
