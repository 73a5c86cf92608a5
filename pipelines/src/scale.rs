//! One decoded picture at all sizes, each made when it is first asked for.
//!
//! Large sizes are made by libyuv, small ones by convolution. Measured on 16 s of 1080p30 and the standard
//! ladder, convolution from 480p down costs 7 % more CPU and gives 0.001 (480p) to 0.005 (240p) more SSIM.

use std::f64::consts::PI;
use std::sync::{LazyLock, Mutex, PoisonError};

use fast_image_resize as resize;
use fast_image_resize::images::{TypedCroppedImageMut, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use headwater_libyuv::{Filter, Source, Target, scale};
use headwater_protocol::{Code, Fault};

use crate::es::Ticks;
use crate::fit::{Origin, Size};

/// Chosen by SSIM: libyuv's box is its bilinear filter below a factor of two, and its best above.
const FILTER: Filter = Filter::Box;

/// Chosen by SSIM among CatmullRom, Hamming and this. The weights are computed anew for each plane, so the
/// window comes from a table: its sines were 4 % of the CPU time of the standard ladder.
static FILTER_SMALL: LazyLock<resize::FilterType> = LazyLock::new(|| {
    resize::Filter::new("Lanczos3", lanczos, LOBES as f64)
        .map_or(resize::FilterType::Lanczos3, resize::FilterType::Custom)
});

/// Lobes of the window on each side.
const LOBES: usize = 3;
/// Steps of the table in a lobe; between them a straight line is off by less than 1e-6, below the weights' own 14 bits.
const STEPS: usize = 1024;

static WINDOW: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    // One step more than is read, so that each has a next.
    (0..=LOBES * STEPS + 1)
        .map(|step| step as f64 / STEPS as f64)
        .map(|x| if x < LOBES as f64 { sinc(x) * sinc(x / LOBES as f64) } else { 0.0 })
        .collect()
});

fn lanczos(x: f64) -> f64 {
    let at = x.abs() * STEPS as f64;
    let step = at as usize;
    match WINDOW.get(step..step + 2) {
        Some(&[from, to]) => from + (to - from) * at.fract(),
        Some(_) | None => 0.0,
    }
}

/// Pictures of at most so many pixels are made by convolution.
const SMALL: u64 = 854 * 480;

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
    pool: gst::BufferPool,
    /// Its scratch memory is kept from picture to picture.
    resizer: Mutex<resize::Resizer>,
}

impl Canvas {
    pub fn new(info: gst_video::VideoInfo) -> Result<Self, Fault> {
        let pool = gst_video::VideoBufferPool::new();
        let caps = info.to_caps().map_err(broken("caps of a scaled picture"))?;
        let mut config = pool.config();
        // No upper limit here: the queues before the encoders bound what is in use.
        config.set_params(Some(&caps), u32::try_from(info.size()).unwrap_or(u32::MAX), 0, 0);
        pool.set_config(config).map_err(broken("memory for scaled pictures"))?;
        pool.set_active(true).map_err(broken("memory for scaled pictures"))?;
        Ok(Self { info, pool: pool.upcast(), resizer: Mutex::default() })
    }

    pub(crate) fn info(&self) -> &gst_video::VideoInfo {
        &self.info
    }

    /// A picture to be filled; what it shows is left from another.
    pub(crate) fn fresh(&self, pts: Option<gst::ClockTime>) -> Result<gst::Buffer, Fault> {
        let mut buffer = self.pool.acquire_buffer(None).map_err(|error| {
            Fault::new(Code::PipelineFailed, format!("memory for a scaled picture: {error}"))
        })?;
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
            let small = Size::new(width, height).pixels() <= SMALL;
            if !(small && width < source.width && self.convolve(&source, &mut target)) {
                scale(&source, &mut target, FILTER)
                    .map_err(|error| Fault::new(Code::PipelineFailed, error.to_string()))?;
            }
        }
        Ok(buffer)
    }

    /// False where the planes' memory is not laid out in whole rows; then libyuv does it.
    fn convolve(&self, source: &Source<'_>, target: &mut Target<'_>) -> bool {
        // A panic elsewhere leaves only scratch memory behind the lock.
        let mut resizer = self.resizer.lock().unwrap_or_else(PoisonError::into_inner);
        let sides = [(source.width, source.height), (source.width / 2, source.height / 2)];
        let wanted = [(target.width, target.height), (target.width / 2, target.height / 2)];
        source.planes.iter().zip(&mut target.planes).enumerate().all(|(plane, (from, to))| {
            let class = plane.min(1);
            convolve(&mut resizer, *from, sides[class], (to.0, to.1), wanted[class]).is_some()
        })
    }
}

/// One plane; None where it cannot be seen as an image of whole rows.
fn convolve(
    resizer: &mut resize::Resizer,
    (from, from_stride): (&[u8], usize),
    (width, height): (u32, u32),
    (to, to_stride): (&mut [u8], usize),
    (to_width, to_height): (u32, u32),
) -> Option<()> {
    let rows = |bytes: usize, stride: usize, rows: u32| {
        let whole = stride.checked_mul(rows as usize)?;
        Some((u32::try_from(stride).ok()?, whole)).filter(|_| whole <= bytes)
    };
    let (stride, whole) = rows(from.len(), from_stride, height)?;
    let source = TypedImageRef::<U8>::from_buffer(stride, height, &from[..whole]).ok()?;
    let (stride, whole) = rows(to.len(), to_stride, to_height)?;
    let target = TypedImage::<U8>::from_buffer(stride, to_height, &mut to[..whole]).ok()?;
    let mut target = TypedCroppedImageMut::new(target, 0, 0, to_width, to_height).ok()?;
    let options = resize::ResizeOptions::new()
        .resize_alg(resize::ResizeAlg::Convolution(*FILTER_SMALL))
        .crop(0.0, 0.0, f64::from(width), f64::from(height));
    resizer.resize_typed(&source, &mut target, &options).ok()
}

impl Drop for Canvas {
    fn drop(&mut self) {
        // Buffers that are still in use go back later and are freed then.
        let _ = self.pool.set_active(false);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_the_window_it_stands_for() {
        for step in -4000..4000 {
            let x = f64::from(step) / 1237.0;
            let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
            let exact = if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 };
            assert!((lanczos(x) - exact).abs() < 1e-6, "{x}: {} instead of {exact}", lanczos(x));
        }
    }
}
