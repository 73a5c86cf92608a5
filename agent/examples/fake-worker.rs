//! A worker without GStreamer, for this crate's tests only; it is not installed. It speaks the framing of
//! `headwater_protocol::worker` and has a fault on demand, named in the first bytes of its input:
//! `hang`, `crash`, `flood` (standard error), `fail`, `wait` (works until it is cancelled), `stubborn` (works on, cancelled
//! or not), `orphan` (hangs with a child), `deaf` (hangs and ignores SIGTERM), `noise` (garbage on both outputs),
//! `until NAME` (goes on once there is a file of that name in its folder), `grow` (keeps 200 MiB from now on; may stand
//! before `until`). Anything else is copied to each rendition.
//! A stream `sleepy` never gets ready, a stream `hard…` uses an element with a device unless it must avoid it, a stream
//! `clingy` ends neither when it is asked nor by SIGTERM. A file `probe-fails` in its folder makes the probe fail,
//! `probe-empty` lets it prove nothing, a file `probed` gets a line for each probe, and with a file `few` the element with a device runs twice at once.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::time::Duration;

use headwater_protocol::worker::{HEADER, Hardware, Header, Kind, Open, Progress, Ready, SegmentStart};
use headwater_protocol::{
    Capability, CapabilityKind, Code, Codec, Evidence, Fault, Graph, InputFacts, Ladder, Millis, Pixels,
    ProbeReport, RenditionReport, SegmentReport,
};

/// Name of an element with a device behind it.
const DEVICE: &str = "fakedeviceenc";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("probe") => {
            note_probe();
            probe()
        }
        Some("serve") => match serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(1),
        },
        _ => ExitCode::from(2),
    }
}

/// How it was called.
fn note_probe() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let file = std::fs::OpenOptions::new().create(true).append(true).open("probed");
    let written = file.and_then(|mut file| writeln!(file, "{}", words.join(" ")));
    if let Err(error) = written {
        // A test that reads the file misses the line.
        eprintln!("probed: {error}");
    }
}

fn probe() -> ExitCode {
    if std::path::Path::new("probe-fails").exists() {
        eprintln!("as asked");
        return ExitCode::from(1);
    }
    let proved = |kind, codec, element: &str| Capability {
        kind,
        codec: Some(codec),
        element: element.into(),
        block: String::new(),
        memory: "system".into(),
        speed_fps: 1000.0,
        width: Pixels(1280),
        height: Pixels(720),
        instances: None,
        limit: None,
    };
    let limit = std::path::Path::new("few").exists().then_some(2);
    let capabilities = if std::path::Path::new("probe-empty").exists() {
        vec![]
    } else {
        vec![
            proved(CapabilityKind::Decode, Codec::H264, "copy"),
            proved(CapabilityKind::Encode, Codec::H264, "copy"),
            Capability { limit, ..proved(CapabilityKind::Encode, Codec::Hevc, DEVICE) },
        ]
    };
    let report = ProbeReport {
        worker_version: "fake".into(),
        gstreamer_version: "none".into(),
        profile: "fake".into(),
        capabilities,
        unproved: vec![],
    };
    println!("{}", serde_json::to_string(&report).unwrap());
    ExitCode::SUCCESS
}

struct Socket(UnixStream);

impl Socket {
    fn read(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let mut head = [0; HEADER];
        self.0.read_exact(&mut head)?;
        let header = Header::decode(head).map_err(io::Error::other)?;
        let mut payload = vec![0; header.length as usize];
        self.0.read_exact(&mut payload)?;
        Ok((header, payload))
    }

    fn write(&mut self, kind: Kind, channel: u8, tag: u16, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap();
        self.0.write_all(&Header { length, kind, channel, tag }.encode())?;
        self.0.write_all(payload)
    }

    fn say(&mut self, kind: Kind, channel: u8, tag: u16, message: &impl serde::Serialize) -> io::Result<()> {
        self.write(kind, channel, tag, &serde_json::to_vec(message)?)
    }
}

fn serve() -> io::Result<()> {
    let mut socket = Socket(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?));
    let (_, open) = socket.read()?;
    let open: Open = serde_json::from_slice(&open)?;
    if open.stream.as_str() == "sleepy" {
        std::thread::sleep(Duration::from_secs(1000));
    }
    if let Some(avoid) = open.avoid.iter().find(|avoid| avoid.element == DEVICE) {
        println!("planned without {DEVICE}: {}", avoid.reason);
    } else if open.stream.as_str().starts_with("hard") {
        socket.say(Kind::Hardware, 0, 0, &Hardware { elements: vec![DEVICE.into()] })?;
    }
    for (element, sessions) in &open.sessions {
        println!("{element}: {} of {} sessions", sessions.ours, sessions.most);
    }
    let clingy = open.stream.as_str() == "clingy";
    if clingy {
        deaf()?;
    }
    socket.say(Kind::Ready, 0, 0, &Ready { worker_version: "fake".into() })?;
    let mut warm = false;
    loop {
        let (header, payload) = socket.read()?;
        match header.kind {
            Kind::Close if clingy => {
                println!("it was asked to end");
                std::thread::sleep(Duration::from_secs(1000));
            }
            Kind::Close => return Ok(()),
            Kind::Segment => {
                let start: SegmentStart = serde_json::from_slice(&payload)?;
                segment(&mut socket, &open.ladder, header.tag, &start, warm)?;
                warm = true;
            }
            _ => return Err(io::Error::other("out of turn")),
        }
    }
}

/// SIGTERM does nothing from now on.
fn deaf() -> io::Result<()> {
    let mut term = nix::sys::signal::SigSet::empty();
    term.add(nix::sys::signal::Signal::SIGTERM);
    Ok(term.thread_block()?)
}

fn segment(
    socket: &mut Socket,
    ladder: &Ladder,
    tag: u16,
    start: &SegmentStart,
    warm: bool,
) -> io::Result<()> {
    let mut input = vec![];
    loop {
        let (header, payload) = socket.read()?;
        match header.kind {
            Kind::Data => input.extend(payload),
            Kind::End => break,
            Kind::Cancel => return socket.say(Kind::Failed, 0, tag, &Fault::new(Code::Revoked, "cancelled")),
            _ => return Err(io::Error::other("out of turn")),
        }
    }
    if input.starts_with(b"grow ") {
        std::mem::forget(std::hint::black_box(vec![1_u8; 200 << 20]));
        input.drain(.."grow ".len());
    }
    let asks = |word: &str| input.starts_with(word.as_bytes());
    if asks("orphan") {
        Command::new("sleep").arg("1000").spawn()?;
    }
    if asks("deaf") {
        deaf()?;
    }
    if asks("hang") || asks("orphan") || asks("deaf") {
        std::thread::sleep(Duration::from_secs(1000));
    }
    if asks("crash") {
        eprintln!("the last words of a worker");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGABRT)?;
    }
    if asks("flood") {
        for line in 0..20_000 {
            eprintln!("line {line} of a very talkative driver, which says this for each frame");
        }
    }
    if asks("noise") {
        let garbage: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        for _ in 0..50 {
            io::stdout().write_all(&garbage)?;
            io::stderr().write_all(&garbage)?;
        }
    }
    if let Some(name) = input.strip_prefix(b"until ") {
        socket.say(Kind::Progress, 0, tag, &Progress { decoded: 1, encoded: 2 })?;
        let name = String::from_utf8_lossy(name).into_owned();
        for turn in 1.. {
            if std::path::Path::new(&name).exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
            if turn % 100 == 0 {
                socket.say(Kind::Progress, 0, tag, &Progress { decoded: 1, encoded: 2 })?;
            }
        }
    }
    if asks("fail") {
        let graph = Graph { chain: "encode".into(), dot: "digraph pipeline {}".into() };
        let evidence = Evidence { graphs: vec![graph], log: "a last line".into(), ..Evidence::default() };
        socket.say(Kind::Evidence, 0, tag, &evidence)?;
        // Half a rendition first, more than the agent buffers, so that its upload has begun: it must not be published.
        for _ in 0..40 {
            socket.write(Kind::Data, 0, tag, &[b'x'; 100_000])?;
        }
        return socket.say(Kind::Failed, 0, tag, &Fault::new(Code::PipelineFailed, "as asked"));
    }
    while asks("stubborn") {
        socket.say(Kind::Progress, 0, tag, &Progress { decoded: 1, encoded: 2 })?;
        std::thread::sleep(Duration::from_millis(100));
    }
    if asks("wait") {
        socket.say(Kind::Progress, 0, tag, &Progress { decoded: 1, encoded: 2 })?;
        loop {
            if socket.read()?.0.kind == Kind::Cancel {
                return socket.say(Kind::Failed, 0, tag, &Fault::new(Code::Revoked, "cancelled"));
            }
        }
    }
    let mut renditions = vec![];
    for (channel, rendition) in (0u8..).zip(ladder.renditions()) {
        for part in input.chunks(100_000) {
            socket.write(Kind::Data, channel, tag, part)?;
        }
        let report = RenditionReport {
            name: rendition.name.clone(),
            container: rendition.container,
            bytes: input.len() as u64,
            width: rendition.width,
            height: rendition.height,
            frames: 1,
            keyframes: 1,
            pixels: 1,
            first_pts: 0,
            duration: start.duration,
            copied: true,
        };
        socket.say(Kind::Output, channel, tag, &report)?;
        renditions.push(report);
    }
    let input = InputFacts {
        container: start.container,
        bytes: input.len() as u64,
        video: None,
        audio_streams: 0,
        duration: Millis(1),
        errors: 0,
    };
    socket.say(Kind::Finished, 0, tag, &SegmentReport { input, renditions, wall_us: 1, cpu_us: 1, warm })
}
