//! The choice of a node for a task. Pure: the same facts give the same answer.

use std::cmp::Ordering;

use headwater_protocol::{Codec, NodeId};

/// What matters of a node for one task.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub node: NodeId,
    /// Online, not draining, and heard of.
    pub online: bool,
    /// Broken or busy a moment ago.
    pub resting: bool,
    /// Codecs it proved to encode.
    pub encodes: Vec<Codec>,
    pub max_input_bytes: u64,
    pub workers: u32,
    pub in_flight: u32,
    pub queue: u32,
    /// Streams it has attempts of.
    pub streams: u32,
    /// Attempts it has, all and of this task's stream.
    pub running: u32,
    pub running_here: u32,
    /// Live streams whose node it is, whether or not a segment of theirs is with it right now.
    pub keeps: u32,
    /// Pixels a second of its fastest encoder.
    pub speed: f64,
}

#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub codecs: &'a [Codec],
    pub bytes: u64,
    pub sticky: Option<&'a NodeId>,
    pub unable: &'a [NodeId],
    pub avoid: &'a [NodeId],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Offer(NodeId),
    /// Somebody can, but not now.
    Wait,
    /// No node that is there can do this.
    Nobody,
}

impl Candidate {
    /// Could do this task, apart from what else it does.
    pub fn is_able(&self, wanted: &Wanted<'_>) -> bool {
        self.online
            && wanted.bytes <= self.max_input_bytes
            && wanted.codecs.iter().all(|codec| self.encodes.contains(codec))
            && !wanted.unable.contains(&self.node)
    }

    fn has_room(&self) -> bool {
        match self.running_here {
            0 => self.streams < self.workers,
            here => here < self.in_flight.saturating_add(self.queue),
        }
    }
}

/// The stream's own node while it has room; an idle one rather than wait for it; else the one with the
/// fewest streams and attempts for its size, the faster first. Nodes that failed the task come last.
pub fn choose(candidates: &[Candidate], wanted: &Wanted<'_>) -> Decision {
    let able: Vec<&Candidate> = candidates.iter().filter(|c| c.is_able(wanted)).collect();
    if able.is_empty() {
        return Decision::Nobody;
    }
    let fresh: Vec<&Candidate> = able.iter().copied().filter(|c| !wanted.avoid.contains(&c.node)).collect();
    let pool = if fresh.is_empty() { able } else { fresh };
    let free = || pool.iter().copied().filter(|c| !c.resting && c.has_room());
    if let Some(sticky) = wanted.sticky {
        if let Some(own) = free().find(|c| c.node == *sticky) {
            return Decision::Offer(own.node.clone());
        }
        let own_is_full = pool.iter().any(|c| c.node == *sticky && !c.resting);
        if own_is_full && !free().any(|c| c.running == 0) {
            return Decision::Wait;
        }
    }
    match free().min_by(|a, b| order(a, b)) {
        Some(best) => Decision::Offer(best.node.clone()),
        None => Decision::Wait,
    }
}

fn order(a: &Candidate, b: &Candidate) -> Ordering {
    // Between two segments a stream's node looks idle, yet its worker waits there for the next.
    let load = |c: &Candidate| f64::from(c.running.max(c.keeps)) / f64::from(c.workers.max(1));
    load(a).total_cmp(&load(b)).then_with(|| b.speed.total_cmp(&a.speed)).then_with(|| a.node.cmp(&b.node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Candidate {
        Candidate {
            node: NodeId::new(name).unwrap(),
            online: true,
            resting: false,
            encodes: vec![Codec::H264],
            max_input_bytes: 1000,
            workers: 2,
            in_flight: 1,
            queue: 1,
            streams: 0,
            running: 0,
            running_here: 0,
            keeps: 0,
            speed: 1.0,
        }
    }

    fn wanted() -> Wanted<'static> {
        Wanted { codecs: &[Codec::H264], bytes: 10, sticky: None, unable: &[], avoid: &[] }
    }

    fn offer(name: &str) -> Decision {
        Decision::Offer(NodeId::new(name).unwrap())
    }

    #[test]
    fn the_least_loaded_is_asked_and_of_two_idle_ones_the_faster() {
        let fast = Candidate { speed: 9.0, ..node("b") };
        assert_eq!(choose(&[node("a"), fast.clone()], &wanted()), offer("b"));
        let busy = Candidate { running: 1, streams: 1, ..fast };
        assert_eq!(choose(&[node("a"), busy], &wanted()), offer("a"));
    }

    #[test]
    fn a_new_stream_goes_where_fewer_streams_live_even_between_their_segments() {
        let host = Candidate { keeps: 1, speed: 9.0, ..node("b") };
        assert_eq!(choose(&[node("a"), host], &wanted()), offer("a"));
    }

    #[test]
    fn a_stream_stays_with_its_node_until_that_is_full_and_another_idle() {
        let own = NodeId::new("b").unwrap();
        let wanted = Wanted { sticky: Some(&own), ..wanted() };
        let at_work = Candidate { running: 1, running_here: 1, streams: 1, ..node("b") };
        assert_eq!(choose(&[node("a"), at_work.clone()], &wanted), offer("b"));
        let full = Candidate { running: 2, running_here: 2, ..at_work };
        let other = Candidate { running: 1, streams: 1, ..node("a") };
        assert_eq!(choose(&[other, full.clone()], &wanted), Decision::Wait);
        assert_eq!(choose(&[node("a"), full], &wanted), offer("a"));
    }

    #[test]
    fn a_node_that_does_two_segments_of_a_stream_at_once_gets_them_and_one_to_wait() {
        let own = NodeId::new("b").unwrap();
        let wanted = Wanted { sticky: Some(&own), ..wanted() };
        let two = Candidate { in_flight: 2, running: 2, running_here: 2, streams: 1, ..node("b") };
        assert_eq!(choose(&[node("a"), two.clone()], &wanted), offer("b"));
        let full = Candidate { running: 3, running_here: 3, ..two };
        assert_eq!(choose(&[full], &wanted), Decision::Wait);
    }

    #[test]
    fn who_failed_it_is_asked_again_only_where_there_is_no_other() {
        let failed = [NodeId::new("a").unwrap()];
        let wanted = Wanted { avoid: &failed, ..wanted() };
        assert_eq!(choose(&[node("a"), node("b")], &wanted), offer("b"));
        assert_eq!(choose(&[node("a")], &wanted), offer("a"));
        let busy = Candidate { running: 2, streams: 2, ..node("b") };
        assert_eq!(choose(&[node("a"), busy], &wanted), Decision::Wait);
    }

    #[test]
    fn nobody_is_not_the_same_as_not_now() {
        assert_eq!(choose(&[], &wanted()), Decision::Nobody);
        let offline = Candidate { online: false, ..node("a") };
        assert_eq!(choose(&[offline], &wanted()), Decision::Nobody);
        let resting = Candidate { resting: true, ..node("a") };
        assert_eq!(choose(&[resting], &wanted()), Decision::Wait);
        let small = Candidate { max_input_bytes: 9, ..node("a") };
        assert_eq!(choose(&[small], &wanted()), Decision::Nobody);
        let hevc = Wanted { codecs: &[Codec::Hevc], ..wanted() };
        assert_eq!(choose(&[node("a")], &hevc), Decision::Nobody);
    }
}
