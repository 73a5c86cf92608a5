//! Picture memory for elements that copy what they are given, and then keep it for nothing.
//!
//! ```text
//! decoder ── its copy, in our memory ──▶ appsink: a buffer of ours; the decoder's stays with it, without a hold
//! appsrc ── a buffer of ours ──▶ encoder: one without a hold; ours is held until the encoder takes the next
//! ```
//!
//! So a handful of slabs does where each codec would keep as many pictures as it looks back or ahead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use headwater_scaler::{Held, Slabs};

/// What a decoder filled, by the address of its buffer, until that buffer arrives or is dropped.
type Filled = Arc<Mutex<HashMap<usize, Held>>>;

fn key(buffer: &gst::BufferRef) -> usize {
    buffer.as_ptr() as usize
}

fn of(memory: gst::Memory) -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    if let Some(fresh) = buffer.get_mut() {
        fresh.append_memory(memory);
    }
    buffer
}

/// `buffer` with the same bytes in `memory`.
fn instead(buffer: &gst::BufferRef, memory: gst::Memory) -> Option<gst::Buffer> {
    let mut other = of(memory);
    let all = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META;
    buffer.copy_into(other.get_mut()?, all, ..).ok()?;
    Some(other)
}

/// A buffer with a slab that it holds, to be filled.
pub fn fresh(slabs: &Slabs) -> gst::Buffer {
    of(gst::Memory::from_mut_slice(slabs.take()))
}

/// Memory for a decoder that copies its pictures into what it is offered.
#[derive(Debug, Clone, Default)]
pub struct Lent(Filled);

impl Lent {
    /// A pool for the allocation query of a decoder, for pictures of `bytes` each.
    pub fn pool(&self) -> gst::BufferPool {
        let pool: Pool = glib::Object::new();
        // A pool is new here, so nothing is set yet.
        let _ = pool.imp().filled.set(Arc::clone(&self.0));
        pool.upcast()
    }

    /// The picture of a decoder's buffer in one that holds it; the decoder's may stay where it is.
    pub fn claim(&self, buffer: &gst::BufferRef) -> Option<gst::Buffer> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(buffer))?;
        instead(buffer, gst::Memory::from_mut_slice(held))
    }
}

glib::wrapper! {
    pub struct Pool(ObjectSubclass<Imp>) @extends gst::BufferPool, gst::Object;
}

#[derive(Debug, Default)]
pub struct Imp {
    filled: OnceLock<Filled>,
    slabs: Mutex<Option<Slabs>>,
}

#[glib::object_subclass]
impl ObjectSubclass for Imp {
    const NAME: &'static str = "HeadwaterLentPictures";
    type Type = Pool;
    type ParentType = gst::BufferPool;
}

impl ObjectImpl for Imp {}
impl GstObjectImpl for Imp {}

impl BufferPoolImpl for Imp {
    fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
        let bytes = config.params().map(|(_, bytes, ..)| bytes as usize);
        *self.slabs.lock().unwrap_or_else(PoisonError::into_inner) = bytes.map(Slabs::new);
        self.parent_set_config(config)
    }

    /// Nothing is made ahead.
    fn start(&self) -> bool {
        true
    }

    fn acquire_buffer(
        &self,
        _params: Option<&gst::BufferPoolAcquireParams>,
    ) -> Result<gst::Buffer, gst::FlowError> {
        let slabs = self.slabs.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(slabs), Some(filled), true) = (&*slabs, self.filled.get(), self.obj().is_active()) else {
            return Err(gst::FlowError::Flushing);
        };
        let held = slabs.take();
        let buffer = of(gst::Memory::from_mut_slice(held.loose()));
        filled.lock().unwrap_or_else(PoisonError::into_inner).insert(key(&buffer), held);
        Ok(buffer)
    }

    fn release_buffer(&self, buffer: gst::Buffer) {
        if let Some(filled) = self.filled.get() {
            filled.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(&buffer));
        }
    }
}

/// Lets an encoder that copies each picture before it takes the next keep buffers without a hold. `pad`: where
/// pictures with memory of `slabs` come in; others pass as they are.
pub fn let_go_once_copied(pad: &gst::Pad, slabs: Arc<Slabs>) {
    let present = Mutex::new(None::<gst::Buffer>);
    let kinds =
        gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
    pad.add_probe(kinds, move |_, info| {
        let mut present = present.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let start = buffer.map_readable().map(|map| map.as_ptr()).ok();
                let other = start
                    .and_then(|start| slabs.at(start))
                    .and_then(|loose| instead(buffer, gst::Memory::from_slice(loose)));
                *present = other.map(|other| std::mem::replace(buffer, other));
            }
            Some(gst::PadProbeData::Event(event)) => {
                if matches!(event.type_(), gst::EventType::Eos | gst::EventType::FlushStop) {
                    *present = None;
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use gstreamer_video as gst_video;
    use headwater_protocol::{Codec, FrameRate, Ladder};

    use super::*;
    use crate::alone::drive;
    use crate::fit::Size;
    use crate::graph::{self, Faults};
    use crate::plan::{self, DecodePlan, RungPlan, Trust};
    use crate::stage::lock;
    use crate::survey;

    const SIZE: Size = Size { width: 320, height: 240 };
    const PICTURES: u64 = 60;

    fn rung() -> RungPlan {
        let (board, machine) = survey::board().unwrap();
        let ladder: Ladder = serde_json::from_value(serde_json::json!([{
            "name": "small", "codec": "h264", "width": SIZE.width, "height": SIZE.height,
            "rate": {"bitrate": 200_000}, "gop": {"every": 2000}, "container": "ts"
        }]))
        .unwrap();
        let picture = plan::Picture::plain(Size::new(640, 480), FrameRate::new(30, 1).ok());
        let mut plan = plan::outputs(&board, &machine, &ladder, &DecodePlan::nothing(), &picture).unwrap();
        let mut rung = plan.rungs.remove(0);
        // With several, what they make of a bit rate depends on who is first.
        rung.element.properties.insert("threads".to_owned(), "1".to_owned());
        rung
    }

    /// What an encoder makes of pictures that are all different, and in how many places of memory they were.
    fn encode(slabs: &Arc<Slabs>, lends: bool) -> (Vec<gst::Buffer>, usize) {
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, SIZE.width, SIZE.height)
            .build()
            .unwrap();
        let (faults, coded) = (Arc::new(Faults::default()), Arc::new(Mutex::new(Vec::<gst::Buffer>::new())));
        let take = Arc::clone(&coded);
        let mut places = BTreeSet::new();
        drive(
            &faults,
            move |sample: gst::Sample| {
                lock(&take).extend(sample.buffer_owned());
                Ok(())
            },
            |taker| graph::encode_chain(&rung(), Some(&info), lends.then_some(slabs), &faults, taker),
            |chain| {
                (0..PICTURES).try_for_each(|number| {
                    let mut picture = fresh(slabs);
                    let fresh = picture.get_mut().unwrap();
                    fresh.set_pts(gst::ClockTime::from_mseconds(number * 40));
                    let mut bytes = fresh.map_writable().unwrap();
                    places.insert(bytes.as_ptr() as usize);
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        *byte = (at as u64 / 7 + number * 13) as u8;
                    }
                    drop(bytes);
                    chain.push(picture)
                })
            },
        )
        .unwrap();
        (std::mem::take(&mut *lock(&coded)), places.len())
    }

    fn bytes(buffers: &[gst::Buffer]) -> Vec<Vec<u8>> {
        buffers.iter().map(|buffer| buffer.map_readable().unwrap().to_vec()).collect()
    }

    fn slabs() -> Arc<Slabs> {
        gst::init().unwrap();
        Arc::new(Slabs::new((SIZE.width * SIZE.height * 3 / 2) as usize))
    }

    #[test]
    fn an_encoder_that_looks_ahead_makes_the_same_of_a_few_slabs_as_of_many() {
        let (lent, few) = encode(&slabs(), true);
        let (plain, many) = encode(&slabs(), false);
        assert!(bytes(&lent) == bytes(&plain), "other frames than of pictures that nobody takes back");
        // One filled, two in the queue, one in the encoder, one on its way there.
        assert!(few <= 5, "{few} places");
        assert!(many > 10, "{many} places: x264 looks ten pictures ahead");
    }

    #[test]
    fn a_decoders_pictures_stay_as_they_are_for_whoever_keeps_them_and_share_memory_otherwise() {
        let (coded, _) = encode(&slabs(), true);
        let (board, machine) = survey::board().unwrap();
        let decode = |copies: bool, keep: bool| {
            let plan = plan::decoder(&board, &machine, plan::Input::any(Codec::H264, Trust::Whole)).unwrap();
            let plan = DecodePlan { copies, ..plan };
            let (faults, pictures) =
                (Arc::new(Faults::default()), Arc::new(Mutex::new(Vec::<gst::Buffer>::new())));
            let places = Arc::new(Mutex::new(BTreeSet::new()));
            let (take, seen) = (Arc::clone(&pictures), Arc::clone(&places));
            drive(
                &faults,
                move |sample: gst::Sample| {
                    let picture = sample.buffer_owned().unwrap();
                    lock(&seen).insert(picture.map_readable().unwrap().as_ptr() as usize);
                    if keep {
                        lock(&take).push(picture);
                    }
                    Ok(())
                },
                |taker| graph::decode_chain(&plan, &faults, taker),
                |chain| coded.iter().try_for_each(|frame| chain.push(frame.clone())),
            )
            .unwrap();
            let pictures = std::mem::take(&mut *lock(&pictures));
            (bytes(&pictures), lock(&places).len())
        };
        let (kept, _) = decode(true, true);
        assert_eq!(kept.len() as u64, PICTURES);
        assert!(kept == decode(false, true).0, "other pictures than in memory of the decoder's own");
        let (_, places) = decode(true, false);
        assert!(places <= 2, "{places} places for pictures that nobody kept");
    }
}
