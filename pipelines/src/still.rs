//! Still pictures of a stream: its first picture, or sheets of small ones.
//!
//! ```text
//! pictures  0 . . . . 1 . . . . 2 . . . . 3      one each `every`
//! sheets    ┌───┬───┐ ┌───┬───┐
//!           │ 0 │ 1 │ │ 2 │ 3 │                  columns = 2, rows = 1
//!           └───┴───┘ └───┴───┘
//! ```

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use headwater_protocol::{Code, Fault, Tiles};

use crate::es::{CLOCK, Ticks};
use crate::fit::Size;
use crate::jpeg::ToJfif;
use crate::scale::{Canvas, own};

/// Which pictures, and how many to a sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Grid {
    pub columns: u32,
    pub rows: u32,
    /// None for a single picture.
    pub every: Option<i64>,
}

impl Grid {
    pub fn of(tiles: Option<Tiles>) -> Self {
        match tiles {
            None => Self { columns: 1, rows: 1, every: None },
            Some(Tiles { columns, rows, every }) => Self {
                columns: columns.into(),
                rows: rows.into(),
                // A ladder's is an hour at most.
                every: Some(i64::try_from(every.0).unwrap_or(i64::MAX / CLOCK) * CLOCK / 1000),
            },
        }
    }

    pub fn size(self, tile: Size) -> Size {
        Size::new(tile.width * self.columns, tile.height * self.rows)
    }

    fn tiles(self) -> u32 {
        self.columns * self.rows
    }
}

/// When the next picture is due: pure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Due {
    /// The first picture, whenever it comes.
    #[default]
    First,
    At(Ticks),
    Never,
}

impl Due {
    /// The time that a picture at `time` stands for, if it is due; asked again, the next such time. After a gap the first
    /// picture behind it stands for all that was due in between.
    fn take(&mut self, every: Option<i64>, time: Ticks) -> Option<Ticks> {
        let due = match *self {
            Due::First => time,
            Due::At(due) if due <= time => due,
            Due::At(_) | Due::Never => return None,
        };
        *self = every.map_or(Due::Never, |every| Due::At(Ticks(due.0 + every)));
        Some(due)
    }
}

/// Collects the pictures of one rendition.
#[derive(Debug)]
pub(crate) struct Sheet {
    grid: Grid,
    tile: Size,
    canvas: Canvas,
    /// What the encoder gets: the same in JFIF's colours.
    coded: gst_video::VideoInfo,
    due: Due,
    /// The sheet that is being filled, the time of its first picture, and how many it has.
    open: Option<(gst::Buffer, Ticks, u32)>,
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::PipelineFailed, format!("a sheet of pictures: {error}"))
}

impl Sheet {
    /// `info` is the whole sheet's, in the colours of the pictures.
    pub(crate) fn new(grid: Grid, tile: Size, info: gst_video::VideoInfo) -> Result<Self, Fault> {
        let jfif = gst_video::VideoColorimetry::new(
            gst_video::VideoColorRange::Range0_255,
            gst_video::VideoColorMatrix::Bt601,
            info.colorimetry().transfer(),
            info.colorimetry().primaries(),
        );
        let coded = gst_video::VideoInfo::builder(info.format(), info.width(), info.height())
            .fps(info.fps())
            .par(info.par())
            .colorimetry(&jfif)
            .build()
            .map_err(broken)?;
        Ok(Self { grid, tile, canvas: Canvas::new(info), coded, due: Due::First, open: None })
    }

    /// The shape of the sheets.
    pub(crate) fn coded(&self) -> &gst_video::VideoInfo {
        &self.coded
    }

    /// Before the first picture of a segment.
    pub(crate) fn begin(&mut self) {
        (self.due, self.open) = (Due::First, None);
    }

    /// Is the picture at `time` wanted? Ask until it is not.
    pub(crate) fn due(&mut self, time: Ticks) -> Option<Ticks> {
        self.due.take(self.grid.every, time)
    }

    /// Takes the picture that was due; gives the sheet that it fills and that one's time.
    pub(crate) fn put(
        &mut self,
        due: Ticks,
        picture: &gst::BufferRef,
    ) -> Result<Option<(Ticks, gst::Buffer)>, Fault> {
        let (mut sheet, first, filled) = match self.open.take() {
            Some(open) => open,
            None => (self.blank()?, due, 0),
        };
        self.copy(picture, &mut sheet, filled)?;
        if filled + 1 == self.grid.tiles() {
            return Ok(Some((first, self.finished(sheet)?)));
        }
        self.open = Some((sheet, first, filled + 1));
        Ok(None)
    }

    /// The last sheet, where it is not full.
    pub(crate) fn rest(&mut self) -> Result<Option<(Ticks, gst::Buffer)>, Fault> {
        match self.open.take() {
            Some((sheet, first, _)) => Ok(Some((first, self.finished(sheet)?))),
            None => Ok(None),
        }
    }

    fn finished(&self, mut sheet: gst::Buffer) -> Result<gst::Buffer, Fault> {
        let info = self.canvas.info();
        let map = ToJfif::new(&info.colorimetry());
        {
            let buffer = own(&mut sheet)?;
            let mut frame =
                gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info).map_err(broken)?;
            let strides = [0, 1, 2].map(|plane: usize| frame.plane_stride()[plane].unsigned_abs() as usize);
            let [y, b, r, _] = frame.planes_data_mut();
            let pairs =
                y.chunks_mut(2 * strides[0]).zip(b.chunks_mut(strides[1]).zip(r.chunks_mut(strides[2])));
            for (y, (b, r)) in pairs {
                let (top, bottom) = y.split_at_mut(strides[0]);
                map.rows([top, bottom], b, r);
            }
        }
        Ok(sheet)
    }

    fn blank(&self) -> Result<gst::Buffer, Fault> {
        let mut sheet = self.canvas.fresh(None)?;
        if self.grid.tiles() > 1 {
            let info = self.canvas.info();
            let full = info.colorimetry().range() == gst_video::VideoColorRange::Range0_255;
            let buffer = own(&mut sheet)?;
            let mut frame =
                gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info).map_err(broken)?;
            let [y, u, v, _] = frame.planes_data_mut();
            y.fill(if full { 0 } else { 16 });
            u.fill(128);
            v.fill(128);
        }
        Ok(sheet)
    }

    fn copy(&self, picture: &gst::BufferRef, sheet: &mut gst::Buffer, place: u32) -> Result<(), Fault> {
        let (width, height) = (self.tile.width, self.tile.height);
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height).build();
        let info = info.map_err(broken)?;
        let from = gst_video::VideoFrameRef::from_buffer_ref_readable(picture, &info).map_err(broken)?;
        let buffer = own(sheet)?;
        let mut to =
            gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, self.canvas.info()).map_err(broken)?;
        let strides = |frame: &[i32], plane: usize| frame[plane].unsigned_abs() as usize;
        let from_strides = [0, 1, 2].map(|plane| strides(from.plane_stride(), plane));
        let to_strides = [0, 1, 2].map(|plane| strides(to.plane_stride(), plane));
        let (left, top) = (place % self.grid.columns * width, place / self.grid.columns * height);
        for (plane, (from, to)) in
            from.planes_data().into_iter().zip(to.planes_data_mut()).take(3).enumerate()
        {
            // All sizes are even.
            let half = if plane == 0 { 1 } else { 2 };
            let (left, top) = ((left / half) as usize, (top / half) as usize);
            let (width, height) = ((width / half) as usize, (height / half) as usize);
            let from = from.chunks(from_strides[plane]);
            let to = to.chunks_mut(to_strides[plane]).skip(top);
            for (from, to) in from.zip(to).take(height) {
                to[left..left + width].copy_from_slice(&from[..width]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(every: Option<i64>, times: &[i64]) -> Vec<i64> {
        let mut due = Due::First;
        let mut taken = Vec::new();
        for time in times {
            while let Some(Ticks(at)) = due.take(every, Ticks(*time)) {
                taken.push(at);
            }
        }
        taken
    }

    #[test]
    fn pictures_are_due_from_the_first_on() {
        assert_eq!(taken(None, &[7, 8, 9]), [7]);
        assert_eq!(taken(Some(10), &[7, 12, 17, 22, 28]), [7, 17, 27]);
        assert_eq!(taken(Some(10), &[7, 40]), [7, 17, 27, 37], "one picture stands for a gap");
        assert_eq!(taken(Some(10), &[]), [0; 0]);
    }
}
