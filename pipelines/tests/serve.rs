//! The worker as the agent sees it: a process behind a socket.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headwater_pipelines::serve::{write_frame, write_message};
use headwater_protocol::worker::{Avoid, HEADER, Header, Kind, Open, SegmentStart};
use headwater_protocol::{Code, Container, Evidence, Fault, Ladder, Millis, SegmentReport, StreamId};

mod rig;
use rig::{Rig, rendition};

struct Worker {
    child: Child,
    socket: UnixStream,
    evidence: Option<Evidence>,
}

enum Answer {
    Finished(Box<SegmentReport>, Vec<Vec<u8>>),
    Failed(Fault),
}

impl Worker {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // A worker that hangs fails the test instead of holding it up.
        ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_headwater-worker"))
            .arg("serve")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, socket: ours, evidence: None }
    }

    fn open() -> Self {
        Self::open_without(&[])
    }

    fn open_without(elements: &[&str]) -> Self {
        let mut worker = Self::start();
        let avoid = |element: &&str| Avoid { element: (*element).to_owned(), reason: "a test".into() };
        let avoid = elements.iter().map(avoid).collect();
        let ladder = Ladder::new(vec![rendition("a", 320, 180), rendition("b", 160, 90)]).unwrap();
        let open = Open { stream: StreamId::new("s").unwrap(), ladder, avoid, sessions: Default::default() };
        write_message(&mut worker.socket, Kind::Open, 0, 0, &open).unwrap();
        assert_eq!(worker.frame().0.kind, Kind::Ready);
        worker
    }

    fn frame(&mut self) -> (Header, Vec<u8>) {
        let mut header = [0; HEADER];
        self.socket.read_exact(&mut header).unwrap();
        let header = Header::decode(header).unwrap();
        let mut payload = vec![0; header.length as usize];
        self.socket.read_exact(&mut payload).unwrap();
        (header, payload)
    }

    fn begin(&mut self, tag: u16) {
        let start = SegmentStart { number: tag.into(), container: Container::Ts, duration: Millis(2000) };
        write_message(&mut self.socket, Kind::Segment, 0, tag, &start).unwrap();
    }

    fn data(&mut self, tag: u16, bytes: &[u8]) {
        for piece in bytes.chunks(64 * 1024) {
            write_frame(&mut self.socket, Kind::Data, 0, tag, piece).unwrap();
        }
    }

    fn say(&mut self, kind: Kind, tag: u16) {
        write_frame(&mut self.socket, kind, 0, tag, &[]).unwrap();
    }

    fn segment(&mut self, tag: u16, bytes: &[u8]) -> Answer {
        self.begin(tag);
        self.data(tag, bytes);
        self.say(Kind::End, tag);
        self.answer(tag)
    }

    fn answer(&mut self, tag: u16) -> Answer {
        let mut outputs = vec![Vec::new(); 2];
        loop {
            let (header, payload) = self.frame();
            assert_eq!(header.tag, tag);
            match header.kind {
                Kind::Data => outputs[usize::from(header.channel)].extend(payload),
                Kind::Output | Kind::Progress => {}
                Kind::Evidence => self.evidence = Some(serde_json::from_slice(&payload).unwrap()),
                Kind::Finished => {
                    return Answer::Finished(Box::new(serde_json::from_slice(&payload).unwrap()), outputs);
                }
                Kind::Failed => return Answer::Failed(serde_json::from_slice(&payload).unwrap()),
                Kind::Open
                | Kind::Segment
                | Kind::End
                | Kind::Cancel
                | Kind::Close
                | Kind::Ready
                | Kind::Hardware => {
                    panic!("{:?} from a worker", header.kind)
                }
            }
        }
    }

    fn finished(&mut self, tag: u16, bytes: &[u8]) -> (Box<SegmentReport>, Vec<Vec<u8>>) {
        match self.segment(tag, bytes) {
            Answer::Finished(report, outputs) => (report, outputs),
            Answer::Failed(fault) => panic!("segment {tag}: {fault} {}", fault.detail),
        }
    }

    /// Exit status after the socket is gone.
    fn end(self) -> Option<i32> {
        let Self { mut child, socket, evidence: _ } = self;
        drop(socket);
        child.wait().unwrap().code()
    }
}

fn clip(rig: &Rig) -> Vec<u8> {
    rig.clip("640x360", 1.0, "-c:v libx264 -preset ultrafast -bf 0 -g 30", "in.ts")
}

#[test]
fn ten_segments_go_through_one_warm_worker() {
    let rig = Rig::new();
    let input = clip(&rig);
    let mut worker = Worker::open();
    for tag in 0..10 {
        let (report, outputs) = worker.finished(tag, &input);
        assert_eq!(report.warm, tag > 0, "segment {tag}");
        for (bytes, report) in outputs.iter().zip(&report.renditions) {
            assert_eq!(bytes.len() as u64, report.bytes);
            assert_eq!(report.frames, 30);
        }
        if tag == 9 {
            assert_eq!(rig.times(&outputs[0]), rig.times(&input));
        }
    }
    assert_eq!(worker.end(), Some(0));
}

#[test]
fn a_failed_segment_is_followed_by_a_good_one() {
    let rig = Rig::new();
    let input = clip(&rig);
    let mut worker = Worker::open();
    match worker.segment(1, b"this is no video\n") {
        Answer::Failed(fault) => assert_eq!(fault.code, Code::NotMedia),
        Answer::Finished(..) => panic!("text was transcoded"),
    }
    worker.finished(2, &input);
    worker.say(Kind::Close, 0);
    assert_eq!(worker.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_cancelled_segment_is_answered_as_revoked_and_the_worker_goes_on() {
    let rig = Rig::new();
    let input = clip(&rig);
    let mut worker = Worker::open();
    worker.begin(1);
    worker.data(1, &input);
    worker.say(Kind::Cancel, 1);
    match worker.answer(1) {
        Answer::Failed(fault) => assert_eq!(fault.code, Code::Revoked),
        Answer::Finished(..) => panic!("a segment without an end was finished"),
    }
    let (report, _) = worker.finished(2, &input);
    assert_eq!(report.renditions[0].frames, 30);
    // One that comes too late changes nothing.
    worker.say(Kind::Cancel, 2);
    worker.finished(3, &input);
    assert_eq!(worker.end(), Some(0));
}

#[test]
fn an_element_to_avoid_is_planned_without() {
    let rig = Rig::new();
    let input = clip(&rig);
    let mut worker = Worker::open_without(&["x264enc", "openh264enc"]);
    match worker.segment(1, &input) {
        Answer::Failed(fault) => assert_eq!(fault.code, Code::NoEncoder, "{fault} {}", fault.detail),
        Answer::Finished(..) => panic!("it was encoded all the same"),
    }
    assert_eq!(worker.evidence, None, "the fault says it all");
    let mut worker = Worker::open_without(&["avdec_h264"]);
    let (report, _) = worker.finished(1, &input);
    assert_eq!(report.renditions[0].frames, 30, "openh264dec decoded it");
}

#[test]
fn a_decoder_is_not_given_more_bits_than_it_decodes() {
    let rig = Rig::new();
    let input =
        rig.ffmpeg("-f lavfi -i testsrc2=s=320x180:r=30 -t 1 -pix_fmt yuv420p10le -c:v libx264 deep.ts");
    let mut worker = Worker::open_without(&["avdec_h264"]);
    match worker.segment(1, &input) {
        Answer::Failed(fault) => {
            assert_eq!(fault.code, Code::NoDecoder);
            let said = "no decoder for H264 of 320x180 with 10 bits a sample works here \
                        (avdec_h264: a test; openh264dec: it decodes 8 bits a sample, and this has 10)";
            assert!(fault.text.starts_with(said), "{fault}");
        }
        Answer::Finished(..) => panic!("ten bits were decoded"),
    }
    worker.finished(2, &clip(&rig));
    let mut worker = Worker::open();
    let (report, _) = worker.finished(1, &input);
    assert_eq!(report.renditions[0].frames, 30, "avdec_h264 decoded it");
}

#[test]
fn a_failure_inside_the_pipeline_comes_with_its_graphs_and_its_log() {
    let rig = Rig::new();
    // Colour in every other column of every row, which openh264dec does not decode.
    let input = rig.ffmpeg("-f lavfi -i testsrc2=s=320x180:r=30 -t 1 -pix_fmt yuv422p -c:v libx264 rich.ts");
    let mut worker = Worker::open_without(&["avdec_h264"]);
    match worker.segment(1, &input) {
        Answer::Failed(fault) => assert_eq!(fault.code, Code::Undecodable, "{fault} {}", fault.detail),
        Answer::Finished(..) => panic!("it was decoded"),
    }
    let evidence = worker.evidence.take().unwrap();
    let decode = evidence.graphs.iter().find(|graph| graph.chain == "decode").unwrap();
    assert!(
        decode.dot.starts_with("digraph pipeline") && decode.dot.contains("openh264dec"),
        "{}",
        decode.dot
    );
    assert_eq!(evidence.graphs.len(), 3, "the decoder and two encoders");
    worker.finished(2, &clip(&rig));
}

#[test]
fn the_end_of_the_socket_in_the_middle_ends_the_worker() {
    let rig = Rig::new();
    let input = clip(&rig);
    let mut worker = Worker::open();
    worker.begin(1);
    worker.data(1, &input);
    assert_eq!(worker.end(), Some(0));
}

#[test]
fn garbage_ends_the_worker_with_the_documented_code() {
    let mut worker = Worker::start();
    worker.socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(worker.child.wait().unwrap().code(), Some(3));
}

#[test]
fn what_is_no_socket_is_said_to_be_none() {
    let output = Command::new(env!("CARGO_BIN_EXE_headwater-worker"))
        .arg("serve")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("started by the agent"));
}
