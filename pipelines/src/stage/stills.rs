//! Still pictures where the others stay as the decoder gives them: the few that are due go through the chain that brings
//! pictures into system memory, upright and progressive, and come back here.

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::outputs::wanted;
use super::{Failed, Stage};
use crate::es::Ticks;
use crate::fit::{Size, cascade};
use crate::plan::Way;
use crate::scale::Picture;

/// What one picture is due for: renditions by their place, and the times it stands for.
pub(super) type Dues = Vec<(usize, Ticks)>;

impl Stage {
    /// Whether the latest picture, which the encoders have as the decoder gave it, is due for still ones. Then it is awaited
    /// by [`Stage::still_picture`].
    pub(super) fn stills_are_due(&mut self) -> bool {
        let (Some(outputs), Some(time)) = (&mut self.outputs, self.latest) else { return false };
        if outputs.plan.way != Way::Native {
            return false;
        }
        let mut dues = Dues::new();
        for (at, rung) in outputs.rungs.iter_mut().enumerate() {
            while let Some(due) = rung.sheet.as_mut().and_then(|sheet| sheet.due(time)) {
                dues.push((at, due));
            }
        }
        let any = !dues.is_empty();
        self.stills.extend(any.then_some(dues));
        any
    }

    /// Puts a prepared picture on the sheets that it is due for.
    pub(super) fn still_picture(
        &mut self,
        dues: Dues,
        buffer: gst::Buffer,
        info: gst_video::VideoInfo,
    ) -> Result<(), Failed> {
        let (buffer, info) = self.tone.picture(buffer, info)?;
        let Some(outputs) = &mut self.outputs else { return Err(Failed::Flow(gst::FlowError::Flushing)) };
        let origins = cascade(Size::new(info.width(), info.height()), &outputs.plan.sizes);
        let mut picture = Picture::new(Ticks(0), buffer, info, outputs.plan.sizes.len());
        for (at, due) in dues {
            let rung = &mut outputs.rungs[at];
            let tile = wanted(rung, &mut picture, &origins, &outputs.canvases)?;
            let Some(sheet) = &mut rung.sheet else { continue };
            if let Some(full) = sheet.put(due, &tile)? {
                rung.sheet(&outputs.chains[rung.chain], full, self.segment.origo)?;
            }
        }
        Ok(())
    }
}
