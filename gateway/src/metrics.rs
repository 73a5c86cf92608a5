//! What Prometheus reads at `/metrics`.

use headwater_protocol::message::NodeState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::rollout::State;
use crate::schedule::Outcome;
use crate::store::Write;
use crate::views::NodeView;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    segments: Family<Label, Counter>,
    attempts: Family<Label, Counter>,
    delay: Histogram,
    added: Histogram,
    nodes: Family<StateLabel, Gauge>,
    updates: Family<StateLabel, Gauge>,
    waiting: Gauge,
    in_flight: Gauge,
    streams: Gauge,
    received: Counter,
    returned: Counter,
    pixels: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let spans = || Histogram::new(exponential_buckets(0.005, 2.0, 15));
        let mut all = Self {
            registry: Registry::with_prefix("headwater"),
            segments: Family::default(),
            attempts: Family::default(),
            delay: spans(),
            added: spans(),
            nodes: Family::default(),
            updates: Family::default(),
            waiting: Gauge::default(),
            in_flight: Gauge::default(),
            streams: Gauge::default(),
            received: Counter::default(),
            returned: Counter::default(),
            pixels: Counter::default(),
        };
        let r = &mut all.registry;
        r.register("segments", "Pushed segments by how they ended", all.segments.clone());
        r.register("attempts", "Attempts by how they ended", all.attempts.clone());
        r.register_with_unit(
            "delay",
            "From a segment's last byte to its answer's first",
            Unit::Seconds,
            all.delay.clone(),
        );
        r.register_with_unit(
            "added_delay",
            "The same without the worker's own time",
            Unit::Seconds,
            all.added.clone(),
        );
        r.register("nodes", "Nodes by state", all.nodes.clone());
        r.register("updates", "Remembered updates by state", all.updates.clone());
        r.register("segments_waiting", "Segments that wait for a node", all.waiting.clone());
        r.register("segments_in_flight", "Segments between push and answer", all.in_flight.clone());
        r.register("streams_live", "Streams with a segment in the last minute", all.streams.clone());
        r.register_with_unit("received", "Pushed media", Unit::Bytes, all.received.clone());
        r.register_with_unit("rendition", "Renditions made", Unit::Bytes, all.returned.clone());
        r.register("encoded_pixels", "Width x height over all frames encoded", all.pixels.clone());
        all
    }
}

impl Metrics {
    pub fn outcome(&self, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Done(_) => "done",
            Outcome::Nothing => "nothing",
            Outcome::Input(_) => "input",
            Outcome::Exhausted(_) => "exhausted",
            Outcome::NoSession => "no_session",
            Outcome::BadLadder(_) => "bad_ladder",
            Outcome::Full(_) => "full",
            Outcome::Internal(_) => "internal",
            Outcome::Gone => "gone",
        };
        self.segments.get_or_create(&Label { outcome }).inc();
    }

    pub fn write(&self, write: &Write) {
        let attempt = |outcome| {
            self.attempts.get_or_create(&Label { outcome }).inc();
        };
        match write {
            Write::TaskNew { bytes, .. } => drop(self.received.inc_by(*bytes)),
            Write::AttemptEnded { code, .. } => {
                attempt(code.map_or("done", headwater_protocol::Code::as_str));
            }
            Write::Winner { report, .. } => {
                attempt("done");
                for made in &report.renditions {
                    self.returned.inc_by(made.bytes);
                    self.pixels.inc_by(made.pixels);
                }
            }
            Write::StreamOpened(_)
            | Write::StreamEnded { .. }
            | Write::AttemptNew { .. }
            | Write::TaskEnded { .. }
            | Write::Position { .. }
            | Write::Counts { .. }
            | Write::Delay { .. }
            | Write::TokenNew { .. }
            | Write::TasksRemoved { .. }
            | Write::Settle(_)
            | Write::Update(_)
            | Write::UpdateNode { .. }
            | Write::Config { .. }
            | Write::Birth { .. }
            | Write::Seen { .. }
            | Write::Evidence { .. } => {}
        }
    }

    /// Delay of an answer, and the worker's part of it.
    pub fn answered(&self, delay_seconds: f64, worker_seconds: f64) {
        self.delay.observe(delay_seconds);
        self.added.observe((delay_seconds - worker_seconds).max(0.0));
    }

    pub fn depth(&self, waiting: usize, in_flight: usize, streams: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.waiting.set(number(waiting));
        self.in_flight.set(number(in_flight));
        self.streams.set(number(streams));
    }

    pub fn updates<'a>(&self, states: impl Iterator<Item = &'a State>) {
        let states: Vec<&str> = states.map(State::as_str).collect();
        for state in ["running", "paused", "stopped", "done", "cancelled"] {
            let count = states.iter().filter(|other| **other == state).count();
            self.updates.get_or_create(&StateLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The text, with the nodes as they are now.
    pub fn render(&self, nodes: &[NodeView]) -> Result<String, std::fmt::Error> {
        for (wanted, state) in [
            (NodeState::Online, "online"),
            (NodeState::Draining, "draining"),
            (NodeState::Offline, "offline"),
        ] {
            let count = nodes.iter().filter(|node| node.state == wanted).count();
            let gauge = self.nodes.get_or_create(&StateLabel { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
