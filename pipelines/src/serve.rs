//! `serve`: the agent's end of the work, over the socket that is standard input.
//!
//! ```text
//! socket ─▶ reader thread ─▶ Inbox (bounded) ─▶ this thread: engine ─▶ socket
//!              └─ Cancel, end of the socket: at once, past the queue
//! ```

mod inbox;

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use headwater_protocol::worker::{
    BadFrame, HEADER, Hardware, Header, Kind, MAX_PAYLOAD, Open, Progress, Ready, SegmentStart,
};
use headwater_protocol::{Evidence, Fault, RenditionReport};

use self::inbox::{Inbox, Letter, Taken};
use crate::board::Board;
use crate::engine::{Engine, Gone, Input, Next, Output, Stopped};
use crate::exit::Exit;
use crate::machine::Machine;
use crate::probe::Known;
use crate::{hardware, survey};

/// The agent reads; if it does not for so long, it is gone or stuck, and nobody waits for the output.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// Why the service ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("standard input is not a socket: {0}; `serve` is started by the agent")]
    NoSocket(io::Error),
    #[error("the socket broke: {0}")]
    Socket(#[from] io::Error),
    #[error("garbage on the socket: {0}")]
    Frame(#[from] BadFrame),
    #[error("bad {kind:?} frame: {text}")]
    Message { kind: Kind, text: String },
    #[error("{0:?} came where it makes no sense")]
    Order(Kind),
    #[error("the worker could not start: {0}")]
    Start(String),
}

impl ServeError {
    pub fn exit(&self) -> Exit {
        match self {
            ServeError::NoSocket(_) | ServeError::Start(_) => Exit::Start,
            ServeError::Socket(_) => Exit::Failed,
            ServeError::Frame(_) | ServeError::Message { .. } | ServeError::Order(_) => Exit::Protocol,
        }
    }
}

/// Reads frames until the socket ends or breaks.
struct Reader {
    socket: UnixStream,
    inbox: Arc<Inbox>,
    /// The last segment that was read, and how to cancel it.
    last: Option<(u16, Arc<AtomicBool>)>,
}

impl Reader {
    fn run(mut self) {
        let end = self.frames();
        // Nobody waits for what runs any more.
        if let Some((_, cancel)) = &self.last
            && !matches!(end, Ok(End::Close))
        {
            cancel.store(true, Relaxed);
        }
        self.inbox.put(match end {
            Ok(End::Close | End::Socket) => Letter::Close,
            Err(error) => Letter::Broken(error),
        });
    }

    fn frames(&mut self) -> Result<End, ServeError> {
        loop {
            let Some((header, payload)) = read_frame(&mut self.socket)? else { return Ok(End::Socket) };
            let tag = header.tag;
            let letter = match header.kind {
                Kind::Open => Letter::Open(Box::new(message(header.kind, &payload)?)),
                Kind::Segment => {
                    let start = message(header.kind, &payload)?;
                    let cancel = Arc::new(AtomicBool::new(false));
                    self.last = Some((tag, Arc::clone(&cancel)));
                    Letter::Segment { start, tag, cancel }
                }
                Kind::Data => Letter::Data { tag, bytes: payload },
                Kind::End => Letter::End { tag },
                Kind::Cancel => {
                    // One that comes after its segment's answer sets a flag that nobody looks at.
                    if let Some((last, cancel)) = &self.last
                        && *last == tag
                    {
                        cancel.store(true, Relaxed);
                    }
                    continue;
                }
                Kind::Close => return Ok(End::Close),
                Kind::Ready
                | Kind::Output
                | Kind::Progress
                | Kind::Finished
                | Kind::Failed
                | Kind::Hardware
                | Kind::Evidence => return Err(ServeError::Order(header.kind)),
            };
            self.inbox.put(letter);
        }
    }
}

enum End {
    Close,
    Socket,
}

fn message<T: DeserializeOwned>(kind: Kind, payload: &[u8]) -> Result<T, ServeError> {
    serde_json::from_slice(payload).map_err(|error| ServeError::Message { kind, text: error.to_string() })
}

/// None at the end of the stream, if that is between two frames.
fn read_frame(from: &mut impl Read) -> Result<Option<(Header, Bytes)>, ServeError> {
    let mut header = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        match from.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && have == 0 => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let header = Header::decode(header)?;
    let mut payload = vec![0; header.length as usize];
    from.read_exact(&mut payload)?;
    Ok(Some((header, payload.into())))
}

/// Writes one frame.
pub fn write_frame(to: &mut impl Write, kind: Kind, channel: u8, tag: u16, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let header = Header { length, kind, channel, tag }.encode();
    // Mostly one call; the rest is for a socket that took only a part.
    let mut written = to.write_vectored(&[IoSlice::new(&header), IoSlice::new(payload)])?;
    if written < HEADER {
        to.write_all(&header[written..])?;
        written = HEADER;
    }
    to.write_all(&payload[written - HEADER..])
}

/// Writes one frame with a JSON payload.
pub fn write_message(
    to: &mut impl Write,
    kind: Kind,
    channel: u8,
    tag: u16,
    message: &impl Serialize,
) -> io::Result<()> {
    write_frame(to, kind, channel, tag, &serde_json::to_vec(message)?)
}

struct SegmentInput<'a> {
    inbox: &'a Inbox,
    tag: u16,
    over: bool,
}

impl Input for SegmentInput<'_> {
    fn next(&mut self, wait: Duration) -> Next {
        if self.over {
            return Next::End;
        }
        let mine = |letter: &Letter| match letter {
            Letter::Data { tag, .. } | Letter::End { tag } => *tag == self.tag,
            Letter::Open(_) | Letter::Segment { .. } | Letter::Close | Letter::Broken(_) => false,
        };
        match self.inbox.take_if(wait, mine) {
            Taken::Letter(Letter::Data { bytes, .. }) => Next::Bytes(bytes),
            Taken::Nothing => Next::Nothing,
            // Something else in the middle is as good as the end; whoever takes it next judges it.
            Taken::Letter(_) | Taken::NotMine => {
                self.over = true;
                Next::End
            }
        }
    }
}

/// The socket's other direction. A segment's answers and the warning that hardware comes into use are written by
/// different threads, each frame as a whole.
#[derive(Clone)]
struct Mouth(Arc<Mutex<UnixStream>>);

impl Mouth {
    fn lock(&self) -> MutexGuard<'_, UnixStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SocketOutput<'a> {
    socket: &'a Mouth,
    tag: u16,
}

impl SocketOutput<'_> {
    fn say(&mut self, kind: Kind, channel: usize, message: &impl Serialize) -> Result<(), Gone> {
        write_message(&mut *self.socket.lock(), kind, channel as u8, self.tag, message).map_err(|_| Gone)
    }
}

impl Output for SocketOutput<'_> {
    fn data(&mut self, rendition: usize, bytes: Bytes) -> Result<(), Gone> {
        for piece in bytes.chunks(MAX_PAYLOAD) {
            let mut socket = self.socket.lock();
            write_frame(&mut *socket, Kind::Data, rendition as u8, self.tag, piece).map_err(|_| Gone)?;
        }
        Ok(())
    }

    fn whole(&mut self, rendition: usize, report: &RenditionReport) -> Result<(), Gone> {
        self.say(Kind::Output, rendition, report)
    }

    fn progress(&mut self, progress: Progress) -> Result<(), Gone> {
        self.say(Kind::Progress, 0, &progress)
    }

    fn evidence(&mut self, evidence: Evidence) -> Result<(), Gone> {
        self.say(Kind::Evidence, 0, &evidence)
    }

    fn hung(&mut self, fault: Fault) -> ! {
        tracing::error!(code = %fault.code, "{}", fault.text);
        // The agent may be gone; the process ends either way.
        let _ = self.say(Kind::Failed, 0, &fault);
        Exit::Hung.now()
    }
}

/// Serves one stream until the agent closes.
pub fn serve() -> Result<(), ServeError> {
    let socket = take_socket()?;
    socket.set_write_timeout(Some(WRITE_PATIENCE))?;
    let inbox = Arc::new(Inbox::default());
    let reader = Reader { socket: socket.try_clone()?, inbox: Arc::clone(&inbox), last: None };
    // Not joined: it ends with the socket, which the other side or the end of the process closes.
    std::thread::Builder::new().name("reader".into()).spawn(move || reader.run())?;
    // Before it is known what for: a spare worker has its libraries loaded when its stream comes.
    let (board, mut machine) = survey::choose(None).map_err(|error| ServeError::Start(error.to_string()))?;
    let hardware = board.hardware();
    survey::look_at(&mut machine, board.factories().filter(|name| !hardware.contains(*name)));
    Server { socket: Mouth(Arc::new(Mutex::new(socket))), inbox, board: Some((board, machine)), engine: None }
        .run()
}

/// The socket that was inherited as standard input, which then reads nothing any more.
fn take_socket() -> Result<UnixStream, ServeError> {
    let inherited = io::stdin().as_fd().try_clone_to_owned().map_err(ServeError::NoSocket)?;
    let socket = UnixStream::from(inherited);
    socket.peer_addr().map_err(ServeError::NoSocket)?;
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null).map_err(io::Error::from)?;
    Ok(socket)
}

struct Server {
    socket: Mouth,
    inbox: Arc<Inbox>,
    /// None once it is the engine's.
    board: Option<(Board, Machine)>,
    engine: Option<Engine>,
}

impl Server {
    fn run(&mut self) -> Result<(), ServeError> {
        loop {
            match self.inbox.take() {
                Letter::Open(open) => self.open(*open)?,
                Letter::Segment { start, tag, cancel } => {
                    if !self.segment(&start, tag, &cancel)? {
                        return Ok(());
                    }
                }
                // What is left of a segment that ended before its input did.
                Letter::Data { .. } | Letter::End { .. } => {}
                Letter::Close => return Ok(()),
                Letter::Broken(error) => return Err(error),
            }
        }
    }

    fn open(&mut self, open: Open) -> Result<(), ServeError> {
        let Some((board, machine)) = self.board.take() else { return Err(ServeError::Order(Kind::Open)) };
        tracing::info!(stream = %open.stream, renditions = open.ladder.renditions().len(), "open");
        let socket = self.socket.clone();
        hardware::tell(board.hardware(), move |element| {
            let hardware = Hardware { elements: vec![element.to_owned()] };
            // A broken socket is noticed by the next answer.
            let _ = write_message(&mut *socket.lock(), Kind::Hardware, 0, 0, &hardware);
        });
        let Known { board, mut machine } = survey::proved(board, machine);
        for avoid in open.avoid {
            tracing::info!(element = avoid.element, reason = avoid.reason, "planned without");
            machine.refused.insert(avoid.element, avoid.reason);
        }
        machine.sessions.extend(open.sessions);
        survey::look_at_usable(&mut machine, &board);
        let mut engine = Engine::new(board, machine, open.ladder);
        if let Err(fault) = engine.prewarm() {
            // Each segment will be answered with the reason.
            tracing::warn!(code = %fault.code, "prewarm: {}", fault.text);
        }
        self.engine = Some(engine);
        let ready = Ready { worker_version: env!("CARGO_PKG_VERSION").to_owned() };
        write_message(&mut *self.socket.lock(), Kind::Ready, 0, 0, &ready)?;
        Ok(())
    }

    /// False if the agent is gone.
    fn segment(&mut self, start: &SegmentStart, tag: u16, cancel: &AtomicBool) -> Result<bool, ServeError> {
        let Some(engine) = &mut self.engine else { return Err(ServeError::Order(Kind::Segment)) };
        let mut input = SegmentInput { inbox: &self.inbox, tag, over: false };
        let mut output = SocketOutput { socket: &self.socket, tag };
        let end = engine.run(start.container, &mut input, &mut output, cancel);
        let said = match end {
            Ok(report) => {
                tracing::debug!(
                    segment = start.number,
                    wall_us = report.wall_us,
                    warm = report.warm,
                    "finished"
                );
                output.say(Kind::Finished, 0, &report)
            }
            Err(Stopped::Failed(fault)) => {
                tracing::warn!(segment = start.number, code = %fault.code, "{}", fault.text);
                output.say(Kind::Failed, 0, &fault)
            }
            Err(Stopped::Gone) => Err(Gone),
        };
        Ok(said.is_ok())
    }
}
