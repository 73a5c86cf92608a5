//! What a worker has ready before its first segment.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::support::{PATIENCE, Rig};
use headwater_pipelines::serve::{write_frame, write_message};
use headwater_pipelines::standard;
use headwater_protocol::worker::{HEADER, Header, Kind, Open, SegmentStart};
use headwater_protocol::{Container, Millis, SegmentReport, StreamId};

fn frame(socket: &mut UnixStream) -> (Kind, Vec<u8>) {
    let mut header = [0; HEADER];
    socket.read_exact(&mut header).unwrap();
    let header = Header::decode(header).unwrap();
    let mut payload = vec![0; header.length as usize];
    socket.read_exact(&mut payload).unwrap();
    (header.kind, payload)
}

/// What follows, up to a frame of the kind.
fn wait(socket: &mut UnixStream, wanted: Kind) -> Vec<u8> {
    loop {
        let (kind, payload) = frame(socket);
        assert_ne!(kind, Kind::Failed, "{}", String::from_utf8_lossy(&payload));
        if kind == wanted {
            return payload;
        }
    }
}

#[test]
fn the_first_segment_of_the_usual_size_on_the_usual_ladder_finds_a_device_warm() {
    let rig = Rig::new("orin-nx-jp6");
    let input = fs::read(rig.clip_of("in.ts", "1920x1080", "0", "0.5")).unwrap();
    let (mut socket, theirs) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let log = fs::File::create(rig.path("stderr")).unwrap();
    let mut worker = rig.worker("");
    worker.arg("serve").stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(log);
    let mut worker = worker.spawn().unwrap();

    let stream = StreamId::new("s").unwrap();
    let open = Open { stream, ladder: standard::ladder(), avoid: Vec::new(), sessions: Default::default() };
    write_message(&mut socket, Kind::Open, 0, 0, &open).unwrap();
    wait(&mut socket, Kind::Ready);
    let start = SegmentStart { number: 0, container: Container::Ts, duration: Millis(500) };
    write_message(&mut socket, Kind::Segment, 0, 0, &start).unwrap();
    for piece in input.chunks(64 * 1024) {
        write_frame(&mut socket, Kind::Data, 0, 0, piece).unwrap();
    }
    write_frame(&mut socket, Kind::End, 0, 0, &[]).unwrap();
    let report: SegmentReport = serde_json::from_slice(&wait(&mut socket, Kind::Finished)).unwrap();
    drop(socket);
    worker.wait().unwrap();

    assert!(report.warm, "{}", rig.whole_trace());
    assert!(report.renditions.iter().all(|rendition| rendition.frames == 15), "{report:?}");
    let starts = |element: &str| rig.trace(element).iter().filter(|line| line.starts_with("starts")).count();
    assert_eq!((starts("nvv4l2decoder"), starts("nvv4l2h264enc")), (1, 4), "{}", rig.whole_trace());
}
