//! Sends one segment and takes its renditions back.

use std::time::Duration;

use headwater_protocol::error::in_one_line;
use headwater_protocol::{Container, Ladder, Millis, RenditionName, StreamId};
use reqwest::{Response, StatusCode};
use tokio::time::Instant;

use crate::client::{self, ClientError, Gateway};
use crate::container::{self, HEAD};
use crate::folder::{Folder, FolderError, NewFile};
use crate::human;
use crate::multipart::{Event, MultipartError, Parser, PartHead};
use crate::split::Segment;

/// First wait before a segment is sent again; each next is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why the push cannot go on at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the gateway refuses the push ({status}): {text}")]
    Refused { status: StatusCode, text: String },
    #[error("{0}")]
    Client(ClientError),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) number: u64,
    pub(crate) duration: Millis,
    /// How often it had to be sent.
    pub(crate) sent: u32,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Every rendition with bytes, in the order of the ladder.
    Whole {
        parts: Vec<Part>,
    },
    Failed {
        text: String,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) bytes: u64,
    pub(crate) init_bytes: Option<u64>,
    pub(crate) codecs: Option<String>,
}

/// What one try came to.
enum Try {
    Whole(Vec<Part>),
    /// This segment cannot be done.
    Failed(String),
    /// It may work in a moment.
    Again {
        text: String,
        gone: Option<ClientError>,
    },
}

#[derive(Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) stream: &'a StreamId,
    pub(crate) ladder: &'a Ladder,
    pub(crate) header: String,
    pub(crate) folder: Option<&'a Folder>,
    pub(crate) deadline: Duration,
}

impl Sender<'_> {
    pub(crate) async fn send(&self, segment: Segment) -> Result<Received, SendError> {
        let deadline = Instant::now() + self.deadline;
        let mut wait = FIRST_WAIT;
        let mut sent = 0;
        let outcome = loop {
            sent += 1;
            let answer = tokio::time::timeout_at(deadline, self.once(&segment)).await;
            let (text, gone) = match answer {
                Ok(Ok(Try::Whole(parts))) => break Outcome::Whole { parts },
                Ok(Ok(Try::Failed(text))) => break Outcome::Failed { text },
                Ok(Ok(Try::Again { text, gone })) => (text, gone),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    break Outcome::Failed {
                        text: format!("no answer within {}", human::span(self.deadline)),
                    };
                }
            };
            if Instant::now() + wait >= deadline {
                // A gateway that is gone will not come back for the next segment either.
                if let Some(error) = gone {
                    return Err(SendError::Client(error));
                }
                break Outcome::Failed {
                    text: format!("{text}; gave up after {}", human::count(sent as usize, "try")),
                };
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        };
        Ok(Received { number: segment.number, duration: segment.duration, sent, outcome })
    }

    async fn once(&self, segment: &Segment) -> Result<Try, SendError> {
        let path = format!("live/{}/{}.{}", self.stream, segment.number, segment.container.extension());
        let request = self
            .gateway
            .push(&path)
            .header("Accept", "multipart/mixed")
            .header("Content-Type", segment.container.content_type())
            .header("Content-Duration", segment.duration.0)
            .header("Livepeer-Transcode-Configuration", &self.header)
            .body(segment.data.clone());
        let response = match self.gateway.send(request).await {
            Ok(response) => response,
            Err(error) => return Ok(Try::Again { text: error.to_string(), gone: Some(error) }),
        };
        let status = response.status();
        if status == StatusCode::OK {
            return self.collect(response, segment.number).await;
        }
        let text = client::error_text(response).await;
        match status.as_u16() {
            // This segment is at fault, or all its attempts failed.
            422 | 413 => Ok(Try::Failed(text)),
            500.. => Ok(Try::Again { text: format!("{text} ({status})"), gone: None }),
            // The push as such is at fault: the next segment would fare no better.
            _ => Err(SendError::Refused { status, text }),
        }
    }

    async fn collect(&self, mut response: Response, number: u64) -> Result<Try, SendError> {
        let content_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let again = |error: MultipartError| Ok(Try::Again { text: error.to_string(), gone: None });
        let mut parser = match Parser::new(&content_type) {
            Ok(parser) => parser,
            Err(error) => return again(error),
        };
        let mut basket = Basket::new(self.ladder, self.folder, number);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => parser.feed(&chunk),
                Ok(None) => break,
                Err(error) => {
                    let text = format!("the answer broke off: {}", in_one_line(&error));
                    return Ok(Try::Again { text, gone: None });
                }
            }
            loop {
                match parser.next() {
                    Ok(Some(event)) => {
                        if let Err(text) = basket.take(event)? {
                            return Ok(Try::Failed(text));
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return again(error),
                }
            }
        }
        if let Err(error) = parser.finish() {
            return again(error);
        }
        Ok(match basket.finish()? {
            Ok(parts) => Try::Whole(parts),
            Err(text) => Try::Failed(text),
        })
    }
}

/// Parts on their way from the answer to the folder. Files get their names only when all are there.
struct Basket<'a> {
    ladder: &'a Ladder,
    folder: Option<&'a Folder>,
    number: u64,
    parts: Vec<Option<Landed>>,
    current: Option<(usize, Landed)>,
}

struct Landed {
    bytes: u64,
    head: Vec<u8>,
    file: Option<NewFile>,
}

impl<'a> Basket<'a> {
    fn new(ladder: &'a Ladder, folder: Option<&'a Folder>, number: u64) -> Self {
        let parts = ladder.renditions().iter().map(|_| None).collect();
        Self { ladder, folder, number, parts, current: None }
    }

    fn take(&mut self, event: Event) -> Result<Result<(), String>, FolderError> {
        match event {
            Event::Part(head) => return self.begin(&head),
            Event::Data(data) => {
                if let Some((_, part)) = &mut self.current {
                    part.bytes += data.len() as u64;
                    let room = HEAD - part.head.len();
                    part.head.extend_from_slice(&data[..data.len().min(room)]);
                    if let Some(file) = &mut part.file {
                        file.write(&data)?;
                    }
                }
            }
            Event::PartEnd => {
                if let Some((index, part)) = self.current.take() {
                    self.parts[index] = Some(part);
                }
            }
            Event::End => {}
        }
        Ok(Ok(()))
    }

    fn begin(&mut self, head: &PartHead) -> Result<Result<(), String>, FolderError> {
        let name = &head.rendition;
        // Livepeer's gateway with an object store of its own answers with addresses.
        if head.content_type == "application/vnd+livepeer.uri" {
            return Ok(Err(format!("rendition {name} came as an address; push wants the bytes")));
        }
        let Some(index) = self.ladder.renditions().iter().position(|wanted| wanted.name == *name) else {
            return Ok(Err(format!(
                "a rendition {name} came back that was not asked for; is the stream's name in use?"
            )));
        };
        if self.parts[index].is_some() {
            return Ok(Err(format!("rendition {name} came back twice")));
        }
        let container = self.ladder.renditions()[index].container;
        // A gateway that knows no container of a profile gives all renditions that of the segment.
        if head.content_type != container.content_type() {
            let (came, wanted) = (&head.content_type, container.content_type());
            return Ok(Err(format!("rendition {name} came back as {came:?}, {wanted} was asked for")));
        }
        let file = match self.folder {
            Some(folder) => Some(folder.segment(name, self.number, container)?),
            None => None,
        };
        self.current = Some((index, Landed { bytes: 0, head: Vec::new(), file }));
        Ok(Ok(()))
    }

    fn finish(self) -> Result<Result<Vec<Part>, String>, FolderError> {
        let bad = |what: &str, names: Vec<&RenditionName>| {
            let names: Vec<&str> = names.into_iter().map(RenditionName::as_str).collect();
            Ok(Err(format!("{what}: {}", names.join(", "))))
        };
        let rungs = || self.ladder.renditions().iter().map(|r| &r.name).zip(&self.parts);
        let missing: Vec<_> = rungs().filter(|(_, part)| part.is_none()).map(|(name, _)| name).collect();
        if !missing.is_empty() {
            return bad("renditions that did not come back", missing);
        }
        let empty = |part: &Option<Landed>| part.as_ref().is_some_and(|part| part.bytes == 0);
        // A segment without a picture has an empty JPEG.
        let video = self.ladder.renditions().iter().filter(|r| r.container != Container::Jpeg);
        let video: Vec<&RenditionName> = video.map(|r| &r.name).collect();
        let empty: Vec<_> = rungs()
            .filter(|(name, part)| video.contains(name) && empty(part))
            .map(|(name, _)| name)
            .collect();
        if !empty.is_empty() {
            return bad("renditions that came back empty", empty);
        }
        let mut parts = Vec::new();
        for (rendition, landed) in self.ladder.renditions().iter().zip(self.parts) {
            let Some(Landed { bytes, head, file }) = landed else { continue };
            if let Some(file) = file {
                file.finish()?;
            }
            let (init_bytes, codecs) = match rendition.container {
                Container::Mp4 => (container::mp4_init_length(&head), None),
                Container::Ts => (None, container::ts_codecs(&head)),
                Container::Jpeg => (None, None),
            };
            parts.push(Part { bytes, init_bytes, codecs });
        }
        Ok(Ok(parts))
    }
}
