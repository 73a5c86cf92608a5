//! High dynamic range and wide gamut to BT.709: what no player of eight-bit H.264 can be trusted to show.
//!
//! ```text
//! PQ, HLG ─ light ─ BT.2390 curve ─┐
//! BT.2020, P3 in SDR ─ light ──────┴─ BT.709 primaries, clipped ─ BT.709 signal
//! ```
//!
//! It is done at the decoded size: once per picture, and all scaling after it works on eight bits.

mod light;
mod map;

use gstreamer as gst;
use gstreamer::glib::translate::IntoGlib;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use headwater_protocol::media::Hdr;
use headwater_protocol::{Code, Fault};

use self::map::{CHUNK, Coding, Line, Map, Wide};
use crate::scale::{Canvas, own};

/// Luma's shares where the stream does not say: BT.2020.
const RED_BLUE: (f64, f64) = (0.2627, 0.0593);

/// Is this a colour space that has to become BT.709?
fn wide(info: &gst_video::VideoInfo) -> Option<Wide> {
    use gst_video::{
        VideoColorMatrix as Matrix, VideoColorPrimaries as Primaries, VideoTransferFunction as Transfer,
    };
    let space = info.colorimetry();
    let coding = match hdr(info) {
        Some(Hdr::Pq) => Coding::Pq,
        Some(Hdr::Hlg) => Coding::Hlg,
        None => Coding::Sdr,
    };
    let gamut = match space.primaries() {
        Primaries::Bt2020 => light::BT2020,
        Primaries::Smpteeg432 => light::P3,
        Primaries::Unknown if coding != Coding::Sdr || space.matrix() == Matrix::Bt2020 => light::BT2020,
        _ if coding != Coding::Sdr => light::SAME,
        _ => return None,
    };
    // These are light itself and rare logarithms: left as they are.
    if coding == Coding::Sdr
        && matches!(space.transfer(), Transfer::Gamma10 | Transfer::Log100 | Transfer::Log316)
    {
        return None;
    }
    Some(Wide {
        coding,
        gamut,
        red_blue: space.matrix().kr_kb().unwrap_or(RED_BLUE),
        full_range: space.range() == gst_video::VideoColorRange::Range0_255,
    })
}

/// Whether its colours have to become those of BT.709.
pub(crate) fn is_mapped(info: &gst_video::VideoInfo) -> bool {
    wide(info).is_some()
}

/// High dynamic range, by the stream's own words.
pub(crate) fn hdr(info: &gst_video::VideoInfo) -> Option<Hdr> {
    // By number, because the names are of GStreamer 1.18 and the worker runs on older ones, which know neither.
    match info.colorimetry().transfer().into_glib() {
        gst_video::ffi::GST_VIDEO_TRANSFER_SMPTE2084 => Some(Hdr::Pq),
        gst_video::ffi::GST_VIDEO_TRANSFER_ARIB_STD_B67 => Some(Hdr::Hlg),
        _ => None,
    }
}

/// The format in which such a picture comes to the stage: eight bits, or ten where more are of use.
pub(crate) fn format(info: &gst_video::VideoInfo) -> gst_video::VideoFormat {
    let progressive = info.interlace_mode() == gst_video::VideoInterlaceMode::Progressive;
    let deep = info.format_info().depth().first().is_some_and(|bits| *bits > 8);
    // GStreamer deinterlaces only eight bits.
    if deep && progressive && wide(info).is_some() {
        gst_video::VideoFormat::I42010le
    } else {
        gst_video::VideoFormat::I420
    }
}

/// Turns pictures to BT.709, and keeps the tables of the last colour space.
#[derive(Debug, Default)]
pub(crate) struct Tone {
    map: Option<(Wide, Map)>,
    canvas: Option<Canvas>,
    rows: Scratch,
}

/// Two lines of the picture, padded to whole chunks, and what is made of them.
#[derive(Debug, Default)]
struct Scratch {
    luma: Vec<[u16; CHUNK]>,
    chroma: [Vec<[u16; CHUNK / 2]>; 2],
    lines: [Line; 2],
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::PipelineFailed, format!("tone mapping: {error}"))
}

impl Tone {
    /// `buffer` in BT.709; itself where it is no wide picture.
    pub(crate) fn picture(
        &mut self,
        buffer: gst::Buffer,
        info: gst_video::VideoInfo,
    ) -> Result<(gst::Buffer, gst_video::VideoInfo), Fault> {
        let Some(wide) = wide(&info) else { return Ok((buffer, info)) };
        let map = match self.map.take() {
            Some((of, map)) if of == wide => map,
            Some(_) | None => Map::new(&wide),
        };
        let wanted = shape(&info)?;
        let canvas = match self.canvas.take() {
            Some(canvas) if *canvas.info() == wanted => canvas,
            Some(_) | None => Canvas::new(wanted.clone()),
        };
        let made = self.rows.fill(&map, &buffer, &info, &canvas);
        self.map = Some((wide, map));
        self.canvas = Some(canvas);
        Ok((made?, wanted))
    }
}

/// BT.709 in limited range.
pub(crate) fn bt709() -> gst_video::VideoColorimetry {
    gst_video::VideoColorimetry::new(
        gst_video::VideoColorRange::Range16_235,
        gst_video::VideoColorMatrix::Bt709,
        gst_video::VideoTransferFunction::Bt709,
        gst_video::VideoColorPrimaries::Bt709,
    )
}

fn shape(info: &gst_video::VideoInfo) -> Result<gst_video::VideoInfo, Fault> {
    gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, info.width(), info.height())
        .fps(info.fps())
        .par(info.par())
        .interlace_mode(info.interlace_mode())
        .colorimetry(&bt709())
        .build()
        .map_err(broken)
}

impl Scratch {
    fn fill(
        &mut self,
        map: &Map,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
        canvas: &Canvas,
    ) -> Result<gst::Buffer, Fault> {
        let mut made = canvas.fresh(buffer.pts())?;
        {
            let fresh = own(&mut made)?;
            let from = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).map_err(broken)?;
            let mut to =
                gst_video::VideoFrameRef::from_buffer_ref_writable(fresh, canvas.info()).map_err(broken)?;
            let source = Source::new(&from)?;
            let strides = [0, 1, 2].map(|plane: usize| to.plane_stride()[plane].unsigned_abs() as usize);
            let width = info.width() as usize;
            let [y, b, r, _] = to.planes_data_mut();
            let pairs =
                y.chunks_mut(2 * strides[0]).zip(b.chunks_mut(strides[1]).zip(r.chunks_mut(strides[2])));
            for (pair, (y, (b, r))) in pairs.take(info.height().div_ceil(2) as usize).enumerate() {
                for (plane, row) in self.chroma.iter_mut().enumerate() {
                    source.read(plane + 1, pair, row)?;
                }
                let chroma = self.chroma.each_ref().map(Vec::as_slice);
                for (at, line) in self.lines.iter_mut().enumerate() {
                    // An odd height's last line is its own partner.
                    source.read(0, (2 * pair + at).min(info.height() as usize - 1), &mut self.luma)?;
                    map.line(&self.luma, chroma, line);
                }
                for (line, out) in self.lines.iter().zip(y.chunks_mut(strides[0])) {
                    map::luma(line, &mut out[..width]);
                }
                let half = width.div_ceil(2);
                map::chroma(&self.lines, [&mut b[..half], &mut r[..half]]);
            }
        }
        Ok(made)
    }
}

/// Planes of eight or ten bits.
struct Source<'a> {
    planes: [(&'a [u8], usize); 3],
    widths: [usize; 3],
    deep: bool,
}

impl<'a> Source<'a> {
    fn new(frame: &'a gst_video::VideoFrameRef<&gst::BufferRef>) -> Result<Self, Fault> {
        let deep = match frame.format() {
            gst_video::VideoFormat::I420 => false,
            gst_video::VideoFormat::I42010le => true,
            other => return Err(broken(format_args!("pictures are {other}"))),
        };
        let [y, u, v, _] = frame.planes_data();
        let stride = |plane: usize| frame.plane_stride()[plane].unsigned_abs() as usize;
        let (width, half) = (frame.width() as usize, frame.width().div_ceil(2) as usize);
        Ok(Self {
            planes: [(y, stride(0)), (u, stride(1)), (v, stride(2))],
            widths: [width, half, half],
            deep,
        })
    }

    /// A row's samples as ten bits.
    fn read<const N: usize>(&self, plane: usize, row: usize, into: &mut Vec<[u16; N]>) -> Result<(), Fault> {
        let ((data, stride), width) = (self.planes[plane], self.widths[plane]);
        let bytes = if self.deep { 2 * width } else { width };
        let data =
            data.get(row * stride..row * stride + bytes).ok_or_else(|| broken("a plane is too short"))?;
        into.resize(width.div_ceil(N), [0; N]);
        let into = into.as_flattened_mut().iter_mut();
        if self.deep {
            let samples = data.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
            into.zip(samples).for_each(|(into, sample)| *into = sample);
        } else {
            into.zip(data).for_each(|(into, sample)| *into = u16::from(*sample) << 2);
        }
        Ok(())
    }
}
