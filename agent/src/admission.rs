//! Whether this node takes an offer. A pure function: everything it needs is in [`View`].

use std::time::Duration;

use headwater_protocol::message::{Limits, Offer};
use headwater_protocol::{Capability, CapabilityKind, Code, Fault, Millis};

use crate::sessions::{Counts, room};

/// What admission knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) draining: bool,
    pub(crate) outbox_full: bool,
    /// Now, where both clocks are vouched for; otherwise an offer's age cannot be known.
    pub(crate) now: Option<Millis>,
    pub(crate) limits: Limits,
    /// None: still being probed.
    pub(crate) capabilities: Option<&'a [Capability]>,
    /// Attempts in this stream's lane, those that run included; None without a lane.
    pub(crate) lane: Option<u32>,
    pub(crate) lanes: u32,
    /// A lane without work can be closed for this one.
    pub(crate) idle_lane: bool,
    /// Sessions that lanes with work hold; None where no new worker is needed.
    pub(crate) used: Option<&'a Counts>,
}

/// Ok, or the fault with which the offer is refused.
pub(crate) fn admit(offer: &Offer, view: View<'_>) -> Result<(), Fault> {
    let View { draining, outbox_full, now, limits, capabilities, lane, lanes, idle_lane, used } = view;
    let no = |code, text: String| Err(Fault::new(code, text));
    if draining {
        return no(Code::Draining, "this node takes no new work".into());
    }
    if let Some(now) = now
        && now.0 > offer.header.ts.0.saturating_add(offer.lease.accept.0)
    {
        let age = Duration::from_millis(now.0 - offer.header.ts.0);
        return no(Code::OfferExpired, format!("the offer was {age:?} old when it was read"));
    }
    if outbox_full {
        return no(Code::Storage, "this node's outbox is full or cannot be written".into());
    }
    let names = offer.ladder.renditions().iter().map(|rendition| &rendition.name);
    if !names.eq(offer.outputs.iter().map(|output| &output.rendition)) {
        return no(Code::BadLadder, "the offer's outputs are not the ladder's renditions".into());
    }
    let mut paths =
        offer.outputs.iter().map(|output| &output.path).chain([&offer.input.path]).chain(&offer.evidence);
    if let Some(path) = paths.find(|path| !is_path(path)) {
        return no(
            Code::FetchFailed,
            format!("the offer points to {path:?}, which is not a path on the gateway"),
        );
    }
    if offer.input.bytes == 0 {
        return no(Code::EmptyInput, "the segment has no bytes".into());
    }
    if offer.input.bytes > limits.max_input_bytes {
        let (bytes, max) = (offer.input.bytes, limits.max_input_bytes);
        return no(Code::TooLarge, format!("the segment has {bytes} bytes, this node takes at most {max}"));
    }
    let Some(capabilities) = capabilities else {
        return no(Code::Busy, "this node is still finding out what it can do".into());
    };
    for rendition in offer.ladder.renditions() {
        let can = |capability: &Capability| {
            capability.kind == CapabilityKind::Encode && capability.codec == Some(rendition.codec)
        };
        if !capabilities.iter().any(can) {
            let (name, codec) = (&rendition.name, rendition.codec);
            return no(
                Code::NoEncoder,
                format!("this node has no encoder for {codec:?}, wanted by rendition {name}"),
            );
        }
    }
    if let Some(used) = used {
        room(&offer.ladder, capabilities, used)?;
    }
    match lane {
        Some(attempts) if attempts >= limits.in_flight.saturating_add(limits.queue) => {
            no(Code::Busy, format!("{attempts} segments of this stream are being done or wait"))
        }
        None if lanes >= limits.workers && !idle_lane => {
            no(Code::Busy, format!("all {} workers have work", limits.workers))
        }
        Some(_) | None => Ok(()),
    }
}

/// A path that stays on the gateway: `//host/…` and `@` could lead elsewhere once it is joined to the address.
fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use headwater_protocol::message::{Header, Input, Lease, Output, TimeSource};
    use headwater_protocol::{
        Audio, BitsPerSecond, Codec, Container, Epoch, Gop, Ladder, Pixels, Profile, Rate, Rendition,
        RenditionName, StreamId, TaskId,
    };

    pub(crate) fn offer(task: &str, stream: &str) -> Offer {
        let name = RenditionName::new("low").unwrap();
        Offer {
            header: Header {
                v: 1,
                ts: Millis(1_000_000),
                ts_src: TimeSource::Ntp,
                boot_id: String::new(),
                seq: 1,
            },
            task: TaskId::new(task).unwrap(),
            epoch: Epoch(1),
            stream: StreamId::new(stream).unwrap(),
            segment: 7,
            lease: Lease { accept: Millis(2_000), progress: Millis(5_000), runtime: Millis(20_000) },
            ladder: Ladder::new(vec![Rendition {
                name: name.clone(),
                codec: Codec::H264,
                width: Pixels(320),
                height: Pixels(180),
                fps: None,
                rate: Rate::Bitrate(BitsPerSecond(250_000)),
                gop: Gop::Segment,
                profile: Profile::Auto,
                container: Container::Ts,
                audio: Audio::Copy,
                tiles: None,
            }])
            .unwrap(),
            input: Input {
                path: "/in".into(),
                container: Container::Ts,
                bytes: 1000,
                duration: Millis(2_000),
            },
            outputs: vec![Output { rendition: name, path: "/out".into() }],
            evidence: None,
            extra: Default::default(),
        }
    }

    pub(crate) fn h264() -> Capability {
        Capability {
            kind: CapabilityKind::Encode,
            codec: Some(Codec::H264),
            element: "x264enc".into(),
            block: String::new(),
            memory: "system".into(),
            speed_fps: 100.0,
            width: Pixels(1280),
            height: Pixels(720),
            instances: None,
            limit: None,
        }
    }

    pub(crate) const LIMITS: Limits = Limits { workers: 2, in_flight: 1, queue: 1, max_input_bytes: 5000 };

    fn code(change: impl FnOnce(&mut Offer, &mut View<'_>)) -> Option<Code> {
        let mut offer = offer("t1", "s1");
        let capabilities = [h264()];
        let mut view = View {
            draining: false,
            outbox_full: false,
            now: Some(Millis(1_001_000)),
            limits: LIMITS,
            capabilities: Some(&capabilities),
            lane: None,
            lanes: 0,
            idle_lane: false,
            used: None,
        };
        change(&mut offer, &mut view);
        admit(&offer, view).err().map(|fault| fault.code)
    }

    #[test]
    fn a_good_offer_is_taken_and_each_flaw_has_its_code() {
        assert_eq!(code(|_, _| {}), None);
        assert_eq!(code(|_, v| v.draining = true), Some(Code::Draining));
        assert_eq!(code(|_, v| v.now = Some(Millis(1_002_001))), Some(Code::OfferExpired));
        assert_eq!(code(|_, v| v.now = None), None);
        assert_eq!(code(|_, v| v.outbox_full = true), Some(Code::Storage));
        assert_eq!(code(|o, _| o.outputs.clear()), Some(Code::BadLadder));
        assert_eq!(code(|o, _| o.input.bytes = 5001), Some(Code::TooLarge));
        assert_eq!(code(|o, _| o.input.bytes = 0), Some(Code::EmptyInput));
        assert_eq!(code(|_, v| v.capabilities = None), Some(Code::Busy));
        assert_eq!(code(|_, v| v.capabilities = Some(&[])), Some(Code::NoEncoder));
    }

    #[test]
    fn an_offer_cannot_point_to_another_host() {
        for path in
            ["", "in", "//evil/in", "@evil/in", ".evil/in", "https://evil/in", "/\\evil", "/a b", "/a\r\nb"]
        {
            assert_eq!(
                code(|o, _| o.input.path = path.into()),
                Some(Code::FetchFailed),
                "{path:?} was taken"
            );
            assert_eq!(code(|o, _| o.outputs[0].path = path.into()), Some(Code::FetchFailed));
            assert_eq!(code(|o, _| o.evidence = Some(path.into())), Some(Code::FetchFailed));
        }
    }

    #[test]
    fn a_full_node_is_busy_unless_a_worker_is_idle_or_the_stream_has_its_own() {
        assert_eq!(code(|_, v| v.lanes = 2), Some(Code::Busy));
        assert_eq!(code(|_, v| (v.lanes, v.idle_lane) = (2, true)), None);
        assert_eq!(code(|_, v| (v.lanes, v.lane) = (2, Some(1))), None);
        assert_eq!(code(|_, v| (v.lanes, v.lane) = (2, Some(2))), Some(Code::Busy));
        let two = Limits { in_flight: 2, ..LIMITS };
        assert_eq!(code(|_, v| (v.limits, v.lane) = (two, Some(2))), None);
        assert_eq!(code(|_, v| (v.limits, v.lane) = (two, Some(3))), Some(Code::Busy));
    }
}
