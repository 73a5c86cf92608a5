//! A blocking client of `headwater-worker serve`: what the agent is to it, for benchmarks.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use headwater_protocol::worker::{HEADER, Header, Kind, MAX_PAYLOAD, Open, SegmentStart};
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
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(SILENCE))?;
        let child = Command::new(program)
            .arg("serve")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut worker = Self { child, socket, segments: 0 };
        let open = Open { stream: StreamId::new("bench")?, ladder: ladder.clone(), avoid: Vec::new() };
        worker.send(Kind::Open, &serde_json::to_vec(&open)?)?;
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

    fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len())?;
        self.socket.write_all(&Header { length, kind, channel: 0, tag: self.segments as u16 }.encode())?;
        self.socket.write_all(payload)?;
        Ok(())
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
        let start = SegmentStart { number: self.segments, container: Container::Ts, duration: Millis(2000) };
        self.segments += 1;
        self.send(Kind::Segment, &serde_json::to_vec(&start)?)?;
        // The worker may fill its side of the socket while we still write, so reading has its own thread.
        let mut writer = self.socket.try_clone()?;
        let tag = self.segments as u16;
        let body = input.to_vec();
        let writing = std::thread::spawn(move || -> Result<()> {
            for chunk in body.chunks(MAX_PAYLOAD) {
                let length = u32::try_from(chunk.len())?;
                writer.write_all(&Header { length, kind: Kind::Data, channel: 0, tag }.encode())?;
                writer.write_all(chunk)?;
            }
            writer.write_all(&Header { length: 0, kind: Kind::End, channel: 0, tag }.encode())?;
            Ok(())
        });
        let mut outputs = vec![Vec::new(); renditions];
        let report = loop {
            let (header, payload) = self.receive()?;
            match header.kind {
                Kind::Data => outputs
                    .get_mut(usize::from(header.channel))
                    .context("data on a channel without a rendition")?
                    .extend(payload),
                Kind::Finished => break serde_json::from_slice(&payload)?,
                Kind::Failed => bail!("{}", serde_json::from_slice::<Fault>(&payload)?),
                Kind::Output | Kind::Progress | Kind::Hardware | Kind::Evidence => {}
                Kind::Open | Kind::Segment | Kind::End | Kind::Cancel | Kind::Close | Kind::Ready => {
                    bail!("the worker said {:?}", header.kind)
                }
            }
        };
        let took = started.elapsed();
        writing.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))??;
        Ok((report, outputs, took))
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
