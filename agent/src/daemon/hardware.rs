//! Devices that hang or crash, and what the node says of itself without them.

use std::collections::BTreeSet;
use std::time::Instant;

use headwater_protocol::{Capability, ProbeReport, TaskId};

use super::Daemon;
use crate::node::Event;
use crate::quarantine::{self, Trouble};

impl Daemon {
    /// What was proved and is still used.
    pub(super) fn usable<'a>(&'a self, report: &'a ProbeReport) -> impl Iterator<Item = &'a Capability> {
        report.capabilities.iter().filter(|capability| !self.quarantine.holds(&capability.element))
    }

    pub(super) fn hardware(
        &mut self,
        elements: &BTreeSet<String>,
        task: Option<&TaskId>,
        trouble: Option<Trouble>,
    ) -> Event {
        let Some(trouble) = trouble else {
            self.quarantine.served(elements);
            return Event::Tick;
        };
        if !self.quarantine.met(Instant::now(), task, elements, trouble) {
            return Event::Tick;
        }
        for avoid in self.quarantine.avoid().iter() {
            tracing::error!(
                element = avoid.element,
                reason = avoid.reason,
                "not used any more until this board boots again"
            );
        }
        // Rare and short; the next worker may meet the same driver.
        if let Err(error) = quarantine::save(&self.config.state_dir, self.quarantine.held()) {
            tracing::error!(%error, "the quarantine cannot be written and ends with this agent");
        }
        self.avoid.send_replace(self.quarantine.avoid());
        // The spare one may have met the driver already, by loading its library.
        self.shop.spare.renew();
        self.publish_birth();
        match &self.report {
            Some(report) => self.capable(report),
            None => Event::Tick,
        }
    }

    /// Everybody is told what the node can do now.
    pub(super) fn capable(&self, report: &ProbeReport) -> Event {
        let usable: Vec<_> = self.usable(report).cloned().collect();
        self.shop.sessions.learn(&usable);
        Event::Capabilities(usable)
    }
}
