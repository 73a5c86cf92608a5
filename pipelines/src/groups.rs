//! A file's groups of pictures, of which only those frames go on that are needed for a picture each so many seconds.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use headwater_protocol::{Container, Fault};

use crate::coded;
use crate::demux::Demuxer;
use crate::engine::{Input, Next};
use crate::es::{CLOCK, Frame, Item, Tracks, VideoTrack};
use crate::split::{self, SplitSegment};

/// Which frames of a group of pictures are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Keyframe,
    All,
}

/// Decides group by group: pure.
#[derive(Debug)]
struct Keep {
    every: i64,
    /// None before the first group.
    due: Option<i64>,
}

impl Keep {
    fn new(every: i64) -> Self {
        Self { every, due: None }
    }

    /// For a group from `start` to `end`; `last` if no keyframe follows.
    fn need(&mut self, start: i64, end: i64, last: bool) -> Need {
        let mut due = self.due.unwrap_or(start);
        let pass = |due: i64, time: i64| due + ((time - due) / self.every + 1).max(0) * self.every;
        let mut need = Need::Nothing;
        if due <= start {
            need = Need::Keyframe;
            due = pass(due, start);
        }
        // Something is due inside. The next keyframe does for it, if that comes before the next picture is due.
        if due < end && (last || end - start > self.every) {
            need = Need::All;
            due = pass(due, end - 1);
        }
        self.due = Some(due);
        need
    }
}

/// Takes groups of pictures from the splitter and sends on what is needed, as one stream.
pub(crate) struct Reader<'a> {
    sender: SyncSender<Vec<Item>>,
    keep: Keep,
    /// Of the groups sent so far.
    video: Option<VideoTrack>,
    /// Until it is known whether another follows.
    held: Option<SplitSegment>,
    done: &'a AtomicI64,
}

/// Length of a file.
pub(crate) struct Span {
    pub(crate) ticks: i64,
    pub(crate) frames: u64,
}

pub(crate) fn read(input: &Path, mut reader: Reader<'_>) -> Result<Span, Fault> {
    let mut first = None;
    // As fine as it gets: every keyframe begins a segment.
    let summary = split::split(input, Duration::from_millis(1), &mut |segment| {
        let start = segment.start.0;
        reader.done.store(start - *first.get_or_insert(start), Relaxed);
        match reader.held.replace(segment) {
            Some(held) => reader.group(held, Some(start)),
            None => Ok(()),
        }
    })?;
    let mut ticks = summary.duration.0 as i64 * CLOCK / 1000;
    if let Some(last) = reader.held.take() {
        ticks = last.start.0 - first.unwrap_or_default() + last.duration.0 as i64 * CLOCK / 1000;
        // The engine is gone: it says why.
        let _ = reader.group(last, None);
    }
    Ok(Span { ticks, frames: summary.frames })
}

impl<'a> Reader<'a> {
    pub(crate) fn new(sender: SyncSender<Vec<Item>>, every: i64, done: &'a AtomicI64) -> Self {
        Self { sender, keep: Keep::new(every), video: None, held: None, done }
    }

    fn group(&mut self, group: SplitSegment, next: Option<i64>) -> io::Result<()> {
        let end = next.unwrap_or(group.start.0 + group.duration.0 as i64 * CLOCK / 1000);
        let most = match self.keep.need(group.start.0, end, next.is_none()) {
            Need::Nothing => return Ok(()),
            Need::Keyframe => 1,
            Need::All => usize::MAX,
        };
        let mut demuxer = Demuxer::without_limit(Container::Ts);
        let mut items = Vec::new();
        let read = demuxer.push(group.bytes, &mut items).and_then(|()| demuxer.finish(&mut items));
        read.map_err(|fault| io::Error::other(fault.to_string()))?;
        let mut wanted = Vec::new();
        let mut left = most;
        for item in items {
            match item {
                Item::Tracks(Tracks { video, audio: _ }) => {
                    if video != self.video {
                        self.video.clone_from(&video);
                        wanted.push(Item::Tracks(Tracks { video, audio: Vec::new() }));
                    }
                }
                // Behind it is what the next group's first picture leads: that would come before the picture itself.
                Item::Video(frame) if self.is_copy(&frame) => break,
                Item::Video(frame) if left > 0 => {
                    left -= 1;
                    wanted.push(Item::Video(frame));
                }
                Item::Video(_) | Item::Audio(_) => {}
            }
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody wants further pictures");
        self.sender.send(wanted).map_err(gone)
    }

    /// Whether the frame is the next group's first picture, which the splitter copies for frames that are shown before it.
    fn is_copy(&self, frame: &Frame) -> bool {
        let codec = self.video.as_ref().map(|video| video.codec);
        codec.is_some_and(|codec| coded::is_nal(codec) && !coded::shown(codec, &frame.data))
    }
}

/// The other end.
pub(crate) struct Groups(pub(crate) Receiver<Vec<Item>>);

impl Input for Groups {
    fn next(&mut self, wait: Duration) -> Next {
        match self.0.recv_timeout(wait) {
            Ok(items) => Next::Items(items),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(every: i64, starts: &[i64], end: i64) -> Vec<Need> {
        let mut keep = Keep::new(every);
        let ends = starts.iter().skip(1).copied().chain([end]);
        let last = starts.len() - 1;
        starts
            .iter()
            .zip(ends)
            .enumerate()
            .map(|(at, (start, end))| keep.need(*start, end, at == last))
            .collect()
    }

    #[test]
    fn only_what_is_needed_is_decoded() {
        use Need::{All, Keyframe, Nothing};
        assert_eq!(
            needs(10, &[0, 2, 4, 6, 8, 10, 12], 14),
            [Keyframe, Nothing, Nothing, Nothing, Nothing, Keyframe, Nothing]
        );
        // Due at 0, 10 and 20: the keyframes at 16 and 24 do for the last two.
        assert_eq!(needs(10, &[0, 8, 16, 24], 28), [Keyframe, Nothing, Keyframe, Keyframe]);
        assert_eq!(needs(10, &[0, 8], 16), [Keyframe, All], "no keyframe follows");
        assert_eq!(needs(5, &[0, 12, 24], 25), [All, All, Nothing], "keyframes are too rare");
        assert_eq!(needs(10, &[7], 9), [Keyframe]);
    }
}
