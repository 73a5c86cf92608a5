//! One segment's run through a worker: input into it, renditions out of it, until its last word.

use std::time::Duration;

use headwater_protocol::message::Offer;
use headwater_protocol::worker::{Kind, Progress, SegmentStart};
use headwater_protocol::{Code, Fault, RenditionReport, SegmentReport};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Report, Shop, told};
use crate::media::{Chunk, Fetch, Upload};
use crate::node::{AttemptId, Stop};
use crate::worker::{Frame, Notes, Reader, Worker, WorkerError, Writer};

/// From `Cancel` to the worker's answer; after it the worker is killed.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

pub(super) fn stopped() -> Fault {
    // The owner has given the attempt its end already and drops this one.
    Fault::new(Code::Revoked, "the attempt was stopped")
}

pub(super) enum End {
    Done(Box<SegmentReport>),
    /// `keep`: the worker has said its last word on the segment and is as good as before.
    Failed {
        fault: Fault,
        keep: bool,
    },
}

/// One segment in one worker.
pub(super) struct Run<'a> {
    pub(super) tag: u16,
    pub(super) offer: &'a Offer,
    pub(super) shop: &'a Shop,
    pub(super) reports: &'a mpsc::Sender<Report>,
    /// One per rendition; None until its first byte.
    pub(super) uploads: Vec<Option<Upload>>,
}

impl Run<'_> {
    pub(super) async fn run(
        mut self,
        worker: &mut Worker,
        fetch: Fetch,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> End {
        let end = self.pump(worker.parts(), fetch, stop).await;
        match end {
            Ok(Said::Finished(report)) => {
                let settled = tokio::select! {
                    settled = self.settle(&report) => settled,
                    _ = told(stop) => Err(stopped()),
                };
                match settled {
                    Ok(()) => End::Done(report),
                    Err(fault) => End::Failed { fault, keep: true },
                }
            }
            Ok(Said::Failed { fault, asked }) => End::Failed { fault, keep: asked },
            Err(Broken::Other(fault)) => End::Failed { fault, keep: false },
            Err(Broken::Silent(after)) => {
                let text =
                    format!("the worker gave no sign of life for {} s and was killed", after.as_secs());
                End::Failed {
                    fault: Fault::new(Code::WorkerHung, text).with_detail(worker.printed()),
                    keep: false,
                }
            }
            Err(Broken::Ended) => {
                let text = format!("the worker ended in the middle of a segment: {}", worker.epitaph().await);
                End::Failed {
                    fault: Fault::new(Code::WorkerCrashed, text).with_detail(worker.printed()),
                    keep: false,
                }
            }
            Err(Broken::Worker(error)) => {
                let fault = Fault::new(Code::WorkerCrashed, error.to_string()).with_detail(worker.printed());
                End::Failed { fault, keep: false }
            }
        }
    }

    /// Feeds the worker and takes what it gives, until its last word.
    async fn pump(
        &mut self,
        (reader, writer, notes): (&mut Reader, &mut Writer, &mut Notes),
        fetch: Fetch,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<Said, Broken> {
        let (cancel, cancelled) = watch::channel(false);
        let start = SegmentStart {
            number: self.offer.segment,
            container: self.offer.input.container,
            duration: self.offer.input.duration,
        };
        let feeding = feed(writer, self.tag, start, fetch, cancelled);
        tokio::pin!(feeding);
        let mut fed = false;
        // Why we asked the worker to stop; its own word then is only a receipt.
        let mut ours: Option<Fault> = None;
        let mut deadline = Instant::now() + self.shop.silence;
        loop {
            tokio::select! {
                frame = reader.next() => {
                    let frame = match frame {
                        Ok(Some(frame)) => frame,
                        // A worker that dies with unread input resets its socket.
                        Ok(None) | Err(WorkerError::Socket(_)) => {
                            return Err(ours.map_or(Broken::Ended, Broken::Other));
                        }
                        Err(error) => return Err(Broken::Worker(error)),
                    };
                    let Some(frame) = notes.take(frame).map_err(Broken::Worker)? else { continue };
                    if frame.header.tag != self.tag {
                        return Err(Broken::Worker(WorkerError::OutOfTurn(frame.header.kind)));
                    }
                    match self.frame(frame, ours.is_some()).await {
                        Ok(None) => {}
                        Ok(Some(Said::Finished(_))) if ours.is_some() => {
                            // Our `Cancel` comes too late and may be read as the next segment's.
                            return Ok(Said::Failed { fault: ours.unwrap_or_else(stopped), asked: false });
                        }
                        Ok(Some(Said::Failed { fault, .. })) => {
                            let asked = ours.is_some() && fed && fault.code == Code::Revoked;
                            return Ok(Said::Failed { fault: ours.unwrap_or(fault), asked });
                        }
                        Ok(Some(said @ Said::Finished(_))) => return Ok(said),
                        Err(Broken::Other(fault)) => {
                            // An upload failed: the worker's further work is in vain.
                            cancel.send_replace(true);
                            deadline = Instant::now() + CANCEL_GRACE;
                            ours = Some(fault);
                        }
                        Err(broken) => return Err(broken),
                    }
                    // Counted after handling: while an upload is slow, the silence is not the worker's. A worker that was
                    // asked to stop has its grace and no more, however much it says.
                    if ours.is_none() {
                        deadline = Instant::now() + self.shop.silence;
                    }
                }
                result = &mut feeding, if !fed => {
                    fed = true;
                    match result {
                        Ok(()) => {}
                        Err(Fed::Input(fault)) => {
                            if ours.is_none() {
                                deadline = Instant::now() + CANCEL_GRACE;
                                ours = Some(fault);
                            }
                        }
                        // The reader sees the same end, and before it what the worker had to say.
                        Err(Fed::Socket(error)) => tracing::debug!(%error, "the worker takes no more input"),
                    }
                }
                // A kill ends this future from outside.
                _ = told(stop), if ours.is_none() => {
                    cancel.send_replace(true);
                    deadline = Instant::now() + CANCEL_GRACE;
                    ours = Some(stopped());
                }
                () = sleep_until(deadline) => {
                    return Err(match ours {
                        Some(fault) => Broken::Other(fault),
                        None => Broken::Silent(self.shop.silence),
                    });
                }
            }
        }
    }

    /// `void`: the attempt is lost, media is read and dropped.
    async fn frame(&mut self, frame: Frame, void: bool) -> Result<Option<Said>, Broken> {
        let channel = usize::from(frame.header.channel);
        match frame.header.kind {
            Kind::Data | Kind::Output if void => Ok(None),
            Kind::Data => {
                self.upload(channel)?.write(frame.payload).await.map_err(Broken::Other)?;
                Ok(None)
            }
            Kind::Output => {
                let _: RenditionReport = frame.parse("rendition report").map_err(Broken::Worker)?;
                // Its answer may come while the others are still being made.
                self.upload(channel)?.finish().await.map_err(Broken::Other)?;
                Ok(None)
            }
            Kind::Progress => {
                let Progress { decoded, encoded } = frame.parse("progress").map_err(Broken::Worker)?;
                let attempt = AttemptId::of(self.offer);
                // Full: the owner is busy, and the next one tells the same.
                let _ = self.reports.try_send(Report::Progress { attempt, decoded, encoded });
                Ok(None)
            }
            Kind::Finished => {
                let report: SegmentReport = frame.parse("segment report").map_err(Broken::Worker)?;
                Ok(Some(Said::Finished(Box::new(report))))
            }
            Kind::Failed => {
                let fault: Fault = frame.parse("fault").map_err(Broken::Worker)?;
                Ok(Some(Said::Failed { fault, asked: false }))
            }
            kind @ (Kind::Open
            | Kind::Segment
            | Kind::End
            | Kind::Cancel
            | Kind::Close
            | Kind::Ready
            | Kind::Hardware
            | Kind::Evidence) => Err(Broken::Worker(WorkerError::OutOfTurn(kind))),
        }
    }

    fn upload(&mut self, channel: usize) -> Result<&mut Upload, Broken> {
        let (Some(slot), Some(output), Some(rendition)) = (
            self.uploads.get_mut(channel),
            self.offer.outputs.get(channel),
            self.offer.ladder.renditions().get(channel),
        ) else {
            let text = format!("the worker wrote to rendition {channel}, which the ladder does not have");
            return Err(Broken::Other(Fault::new(Code::BadOutput, text)));
        };
        Ok(slot.get_or_insert_with(|| self.shop.media.upload(&output.path, rendition.container)))
    }

    /// Every rendition whole and taken by the gateway.
    async fn settle(&mut self, report: &SegmentReport) -> Result<(), Fault> {
        let whole = self.uploads.iter().all(|slot| slot.as_ref().is_some_and(Upload::is_finished));
        if !whole || report.renditions.len() != self.uploads.len() {
            return Err(Fault::new(Code::BadOutput, "the worker finished without finishing every rendition"));
        }
        for upload in self.uploads.iter_mut().flatten() {
            upload.result().await?;
        }
        Ok(())
    }
}

enum Said {
    Finished(Box<SegmentReport>),
    /// `asked`: it is the answer to our `Cancel`, so nothing is left on the way in either direction.
    Failed {
        fault: Fault,
        asked: bool,
    },
}

enum Broken {
    Silent(Duration),
    Ended,
    Worker(WorkerError),
    Other(Fault),
}

enum Fed {
    Input(Fault),
    Socket(std::io::Error),
}

/// Writes the segment into the worker, and `Cancel` where it must stop; never leaves half a frame when it returns.
async fn feed(
    writer: &mut Writer,
    tag: u16,
    start: SegmentStart,
    mut fetch: Fetch,
    mut cancelled: watch::Receiver<bool>,
) -> Result<(), Fed> {
    writer.message(Kind::Segment, tag, &start).await.map_err(Fed::Socket)?;
    loop {
        let chunk = tokio::select! {
            biased;
            _ = cancelled.wait_for(|cancelled| *cancelled) => break,
            chunk = fetch.next() => chunk,
        };
        match chunk {
            Chunk::Data(bytes) => writer.data(tag, bytes).await.map_err(Fed::Socket)?,
            Chunk::End => {
                writer.empty(Kind::End, tag).await.map_err(Fed::Socket)?;
                // Cannot fail before the segment is over: its sender lives as long as this does.
                let _ = cancelled.wait_for(|cancelled| *cancelled).await;
                break;
            }
            Chunk::Failed(fault) => {
                writer.empty(Kind::Cancel, tag).await.map_err(Fed::Socket)?;
                return Err(Fed::Input(fault));
            }
        }
    }
    writer.empty(Kind::Cancel, tag).await.map_err(Fed::Socket)
}
