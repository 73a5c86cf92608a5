//! One decoded picture at all sizes, each made when it is first asked for.

use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use headwater_protocol::{Code, Fault};
use headwater_scaler::{Convolution, Slabs, Source, Target};

use crate::es::Ticks;
use crate::fit::{Origin, Size};
use crate::lend;

fn broken(what: &'static str) -> impl FnOnce(gst::glib::BoolError) -> Fault {
    move |error| Fault::new(Code::PipelineFailed, format!("{what}: {error}"))
}

/// The buffer to write to; a fresh one is nobody else's.
pub(crate) fn own(buffer: &mut gst::Buffer) -> Result<&mut gst::BufferRef, Fault> {
    buffer.get_mut().ok_or_else(|| Fault::new(Code::PipelineFailed, "a fresh picture is already shared"))
}

/// One size's pictures: their shape and the memory they are made in, used again and again.
#[derive(Debug)]
pub struct Canvas {
    info: gst_video::VideoInfo,
    slabs: Arc<Slabs>,
    /// Made at the first picture, and anew where pictures come in another size.
    convolution: Mutex<Option<Convolution>>,
}

impl Canvas {
    pub fn new(info: gst_video::VideoInfo) -> Self {
        // As many as are in use at once; the queues before the encoders bound that.
        let slabs = Arc::new(Slabs::new(info.size()));
        Self { info, slabs, convolution: Mutex::default() }
    }

    /// Where its pictures are.
    pub(crate) fn slabs(&self) -> &Arc<Slabs> {
        &self.slabs
    }

    pub(crate) fn info(&self) -> &gst_video::VideoInfo {
        &self.info
    }

    /// A picture to be filled; what it shows is left from another.
    pub(crate) fn fresh(&self, pts: Option<gst::ClockTime>) -> Result<gst::Buffer, Fault> {
        let mut buffer = lend::fresh(&self.slabs);
        own(&mut buffer)?.set_pts(pts);
        Ok(buffer)
    }

    fn fill(&self, source: &gst::BufferRef, info: &gst_video::VideoInfo) -> Result<gst::Buffer, Fault> {
        let mut buffer = self.fresh(source.pts())?;
        {
            let writable = own(&mut buffer)?;
            let from = gst_video::VideoFrameRef::from_buffer_ref_readable(source, info)
                .map_err(broken("a decoded picture"))?;
            let mut to = gst_video::VideoFrameRef::from_buffer_ref_writable(writable, &self.info)
                .map_err(broken("a scaled picture"))?;
            let strides = [0, 1, 2].map(|plane: usize| from.plane_stride()[plane].unsigned_abs() as usize);
            let [y, u, v, _] = from.planes_data();
            let source = Source {
                // Half a chroma sample cannot be encoded: an odd picture loses its last column or row.
                width: (from.width() & !1).max(1),
                height: (from.height() & !1).max(1),
                planes: [(y, strides[0]), (u, strides[1]), (v, strides[2])],
            };
            let (width, height) = (to.width(), to.height());
            let strides = [0, 1, 2].map(|plane: usize| to.plane_stride()[plane].unsigned_abs() as usize);
            let [y, u, v, _] = to.planes_data_mut();
            let mut target =
                Target { width, height, planes: [(y, strides[0]), (u, strides[1]), (v, strides[2])] };
            self.convolve(&source, &mut target)?;
        }
        Ok(buffer)
    }

    fn convolve(&self, source: &Source<'_>, target: &mut Target<'_>) -> Result<(), Fault> {
        let broken = |error: headwater_scaler::ScaleError| {
            Fault::new(Code::PipelineFailed, format!("a picture could not be scaled: {error}"))
        };
        // A panic elsewhere leaves only scratch memory behind the lock.
        let mut kept = self.convolution.lock().unwrap_or_else(PoisonError::into_inner);
        let from = (source.width, source.height);
        let convolution = match kept.take().filter(|made| made.from() == from) {
            Some(made) => kept.insert(made),
            None => kept.insert(Convolution::new(from, (target.width, target.height)).map_err(broken)?),
        };
        convolution.scale(source, target).map_err(broken)
    }
}

/// A decoded picture and what was made of it.
#[derive(Debug)]
pub struct Picture {
    pub time: Ticks,
    buffer: gst::Buffer,
    info: gst_video::VideoInfo,
    made: Vec<Option<gst::Buffer>>,
}

impl Picture {
    pub fn new(time: Ticks, buffer: gst::Buffer, info: gst_video::VideoInfo, sizes: usize) -> Self {
        Self { time, buffer, info, made: vec![None; sizes] }
    }

    pub fn size(&self) -> Size {
        Size::new(self.info.width(), self.info.height())
    }

    /// The picture as it was decoded.
    pub fn whole(&self) -> gst::Buffer {
        self.buffer.clone()
    }

    /// The picture at one of the cascade's sizes. Its timestamp is the decoded picture's.
    pub fn at(&mut self, at: usize, origins: &[Origin], canvases: &[Canvas]) -> Result<gst::Buffer, Fault> {
        if let Some(done) = &self.made[at] {
            return Ok(done.clone());
        }
        let canvas = &canvases[at];
        let wanted = Size::new(canvas.info.width(), canvas.info.height());
        let made = match origins[at] {
            Origin::Decoded if self.size() == wanted => self.buffer.clone(),
            Origin::Decoded => canvas.fill(&self.buffer, &self.info)?,
            Origin::Size(from) => {
                let source = self.at(from, origins, canvases)?;
                // Where the larger size is the decoded picture itself, its rows are laid out as that one's.
                let own = matches!(origins[from], Origin::Decoded)
                    && self.size() == Size::new(canvases[from].info.width(), canvases[from].info.height());
                canvas.fill(&source, if own { &self.info } else { &canvases[from].info })?
            }
        };
        self.made[at] = Some(made.clone());
        Ok(made)
    }
}
