//! A blocking client of `headwater-worker serve`: what the agent is to it, for benchmarks.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use headwater_protocol::worker::{HEADER, Header, Kind, MAX_PAYLOAD, Open, Progress, SegmentStart};
use headwater_protocol::{Container, Fault, Ladder, Millis, SegmentReport, StreamId};

/// Longest silence of a worker before the benchmark gives up.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Worker {
    child: Child,
    socket: UnixStream,
    segments: u64,
}

impl Worker {
    pub fn start(program: &Path, ladder: &Ladder) -> Result<Self> {
        Self::start_command(Command::new(program), ladder)
    }

    /// The same with a program around it, such as `taskset`.
    pub fn start_command(mut command: Command, ladder: &Ladder) -> Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(SILENCE))?;
        let child = command
            .arg("serve")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let mut worker = Self { child, socket, segments: 0 };
        let open = Open {
            stream: StreamId::new("bench")?,
            ladder: ladder.clone(),
            avoid: Vec::new(),
            sessions: Default::default(),
        };
        frame(&mut worker.socket, Kind::Open, 0, &serde_json::to_vec(&open)?)?;
        let ready = loop {
            match worker.receive()?.0.kind {
                Kind::Hardware => {}
                kind => break kind,
            }
        };
        ensure!(ready == Kind::Ready, "the worker said {ready:?} first");
        Ok(worker)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn receive(&mut self) -> Result<(Header, Vec<u8>)> {
        let mut head = [0; HEADER];
        self.socket.read_exact(&mut head)?;
        let header = Header::decode(head)?;
        let mut payload = vec![0; header.length as usize];
        self.socket.read_exact(&mut payload)?;
        Ok((header, payload))
    }

    /// One segment; gives its report, the renditions' bytes, and the time from first byte in to last word out.
    pub fn segment(
        &mut self,
        input: &[u8],
        renditions: usize,
    ) -> Result<(SegmentReport, Vec<Vec<u8>>, Duration)> {
        let started = Instant::now();
        let writing = self.write(input)?;
        let mut outputs = vec![Vec::new(); renditions];
        loop {
            let (header, payload) = self.receive()?;
            match header.kind {
                Kind::Data => outputs
                    .get_mut(usize::from(header.channel))
                    .context("data on a channel without a rendition")?
                    .extend(payload),
                Kind::Finished => {
                    let took = started.elapsed();
                    joined(writing)?;
                    return Ok((serde_json::from_slice(&payload)?, outputs, took));
                }
                Kind::Output | Kind::Progress | Kind::Hardware | Kind::Evidence => {}
                other => return Err(unexpected(other, &payload)),
            }
        }
    }

    /// One segment; gives its report and the time to the first byte of a rendition.
    pub fn first_byte(&mut self, input: &[u8], renditions: usize) -> Result<(SegmentReport, Duration)> {
        let started = Instant::now();
        let writing = self.write(input)?;
        let mut first = None;
        loop {
            let (header, payload) = self.receive()?;
            match header.kind {
                Kind::Data => {
                    ensure!(
                        usize::from(header.channel) < renditions,
                        "data on a channel without a rendition"
                    );
                    first.get_or_insert_with(|| started.elapsed());
                }
                Kind::Finished => {
                    joined(writing)?;
                    return Ok((serde_json::from_slice(&payload)?, first.context("no byte came")?));
                }
                Kind::Output | Kind::Progress | Kind::Hardware | Kind::Evidence => {}
                other => return Err(unexpected(other, &payload)),
            }
        }
    }

    /// The same segment again and again; gives encoded frames a second between two moments, over all renditions. Both
    /// lie in the middle of a segment, so that what encoders hold back cancels out: segments must last long enough for
    /// the worker to tell of its progress. The worker is not to be used again.
    pub fn frames_between(
        &mut self,
        input: &[u8],
        renditions: usize,
        from: Instant,
        until: Instant,
    ) -> Result<f64> {
        let mut whole = 0;
        let mut begun = None;
        loop {
            let writing = self.write(input)?;
            loop {
                let (header, payload) = self.receive()?;
                let now = Instant::now();
                ensure!(now < until + SILENCE, "no progress is told of");
                let frames = match header.kind {
                    Kind::Progress => whole + serde_json::from_slice::<Progress>(&payload)?.encoded,
                    Kind::Finished => {
                        let report: SegmentReport = serde_json::from_slice(&payload)?;
                        ensure!(report.renditions.len() == renditions, "not all renditions");
                        whole += report.renditions.iter().map(|one| one.frames).sum::<u64>();
                        break;
                    }
                    Kind::Data | Kind::Output | Kind::Hardware | Kind::Evidence => continue,
                    other => return Err(unexpected(other, &payload)),
                };
                match begun {
                    None if now >= from => begun = Some((now, frames)),
                    Some((since, before)) if now >= until => {
                        self.socket.shutdown(std::net::Shutdown::Both)?;
                        // Its socket may have been closed under it.
                        drop(joined(writing));
                        return Ok((frames - before) as f64 / (now - since).as_secs_f64());
                    }
                    None | Some(_) => {}
                }
            }
            joined(writing)?;
        }
    }

    /// Begins to send a segment, in a thread: the worker may fill its side of the socket while we still write.
    fn write(&mut self, input: &[u8]) -> Result<JoinHandle<Result<()>>> {
        let mut writer = self.socket.try_clone()?;
        let number = self.segments;
        self.segments += 1;
        let body = input.to_vec();
        Ok(std::thread::spawn(move || {
            let tag = number as u16;
            let start = SegmentStart { number, container: Container::Ts, duration: Millis(2000) };
            frame(&mut writer, Kind::Segment, tag, &serde_json::to_vec(&start)?)?;
            for chunk in body.chunks(MAX_PAYLOAD) {
                frame(&mut writer, Kind::Data, tag, chunk)?;
            }
            frame(&mut writer, Kind::End, tag, &[])
        }))
    }
}

fn frame(to: &mut UnixStream, kind: Kind, tag: u16, payload: &[u8]) -> Result<()> {
    let length = u32::try_from(payload.len())?;
    to.write_all(&Header { length, kind, channel: 0, tag }.encode())?;
    to.write_all(payload)?;
    Ok(())
}

fn joined(writing: JoinHandle<Result<()>>) -> Result<()> {
    writing.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))?
}

fn unexpected(kind: Kind, payload: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<Fault>(payload) {
        Ok(fault) => fault.into(),
        Err(_) => anyhow::anyhow!("the worker said {kind:?}"),
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of the socket is the worker's sign to exit; the kill is for one that does not.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
