//! Bad input is normal input: each case gets its clear answer, and the next segment of the same stream works.
//!
//! All cases share one fleet, so that each also shows that the ones before hurt nothing.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use headwater_tests::fleet::Options;
use headwater_tests::{Fleet, media};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

const LADDER: &str = r#"{"profiles":[
    {"name":"240p","width":426,"height":240,"bitrate":250000,"fps":0,"profile":"H264ConstrainedHigh","gop":"1"},
    {"name":"144p","width":256,"height":144,"bitrate":150000,"fps":0,"profile":"H264Baseline","gop":"1"}]}"#;

const TS: usize = 188;

struct World {
    runtime: Runtime,
    fleet: Fleet,
    folder: tempfile::TempDir,
    good: Vec<u8>,
}

impl World {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let folder = tempfile::tempdir()?;
        let fleet = runtime.block_on(Fleet::start(folder.path(), Options::nodes(&["a", "b"])))?;
        let good = media::segment(folder.path(), 0, "640x360", "30", 1.0)?;
        Ok(Self { runtime, fleet, folder, good })
    }

    /// Pushes `body` as a stream's first segment, then a good one as its second, which must come back whole.
    async fn push_then_good(&self, stream: &str, body: Vec<u8>) -> Result<(u16, String, Vec<u64>)> {
        let answer = self.fleet.push(stream, "0.ts", Some(LADDER), body).await?;
        let (status, text) = (answer.status, answer.text());
        let frames = if status == 200 {
            let count = |part: &headwater_tests::push::Part| {
                media::probe_bytes(self.folder.path(), &format!("{stream}-{}", part.filename), &part.data)
                    .map(|probe| probe.frames)
            };
            answer.parts()?.iter().map(count).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        self.good_works(stream).await?;
        Ok((status, if status == 200 { String::new() } else { text }, frames))
    }

    async fn good_works(&self, stream: &str) -> Result<()> {
        let answer = self.fleet.push(stream, "1.ts", Some(LADDER), self.good.clone()).await?;
        let parts = answer.parts().context("the good segment after the bad one")?;
        ensure!(parts.len() == 2, "{} renditions after the bad segment", parts.len());
        for part in parts {
            let name = format!("{stream}-good-{}", part.filename);
            let probe = media::probe_bytes(self.folder.path(), &name, &part.data)?;
            ensure!(probe.frames == 30, "{}: {} frames after the bad segment", part.rendition, probe.frames);
        }
        Ok(())
    }

    /// A bad first segment that must be answered with `status` and a text that has `says`.
    async fn refused(&self, stream: &str, body: Vec<u8>, status: u16, says: &str) -> Result<()> {
        let (got, text, _) = self.push_then_good(stream, body).await?;
        ensure!(got == status && text.contains(says), "{got} {text:?}, wanted {status} with {says:?}");
        Ok(())
    }

    /// A first segment without a frame: every rendition is the segment itself, and the second one is transcoded.
    fn handed_on(&self, stream: &str, body: Vec<u8>) -> Result<()> {
        self.runtime.block_on(async {
            let answer = self.fleet.push(stream, "0.ts", Some(LADDER), body.clone()).await?;
            let parts = answer.parts()?;
            ensure!(parts.len() == 2 && parts.iter().all(|part| part.data == body), "not the input's bytes");
            // A player that comes now must not be told of pictures of no size.
            let (_, master) = self.fleet.text(&format!("/stream/{stream}.m3u8")).await?;
            ensure!(master.contains("RESOLUTION=426x240"), "{master}");
            self.good_works(stream).await
        })
    }

    async fn refused_ladder(&self, stream: &str, configuration: &str, says: &str) -> Result<()> {
        let answer = self.fleet.push(stream, "0.ts", Some(configuration), self.good.clone()).await?;
        let text = answer.text();
        ensure!(
            answer.status == 400 && text.contains(says),
            "{} {text:?}, wanted 400 with {says:?}",
            answer.status
        );
        self.good_works(stream).await
    }

    /// A made segment.
    fn made(&self, name: &str, size: &str, fps: &str, options: &[&str]) -> Result<Vec<u8>> {
        let file = self.folder.path().join(name);
        let mut all = vec!["-muxdelay", "0"];
        all.extend(options);
        all.extend(["-f", "mpegts"]);
        media::pattern(&file, size, fps, 2.0, &all)?;
        Ok(std::fs::read(file)?)
    }

    fn pid_packets(bytes: &[u8], keep: impl Fn(u16, usize) -> bool) -> Vec<u8> {
        let pid = |packet: &[u8]| u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        bytes
            .chunks_exact(TS)
            .enumerate()
            .filter(|(i, packet)| keep(pid(packet), *i))
            .flat_map(|(_, packet)| packet.to_vec())
            .collect()
    }
}

type Case = (&'static str, fn(&World) -> Result<()>);

/// ffmpeg's video PID in MPEG-TS.
const VIDEO_PID: u16 = 0x100;

fn cases() -> Vec<Case> {
    vec![
        ("an_empty_body_is_refused", |w| w.runtime.block_on(w.refused("empty", Vec::new(), 422, "empty"))),
        ("a_text_file_called_ts_is_refused", |w| {
            let text = "This is not a video.\n".repeat(400).into_bytes();
            w.runtime.block_on(w.refused("text", text, 422, "plain text, not video"))
        }),
        ("a_cut_off_segment_gives_the_frames_it_has", |w| {
            let whole = w.made("cut.ts", "640x360", "30", &["-g", "30"])?;
            let (status, text, frames) =
                w.runtime.block_on(w.push_then_good("cut", whole[..whole.len() / 2].to_vec()))?;
            ensure!(status == 200, "{status} {text}");
            ensure!(frames.iter().all(|n| (10..60).contains(n) && *n == frames[0]), "{frames:?}");
            Ok(())
        }),
        ("a_segment_of_sound_alone_is_handed_on_as_it_is", |w| {
            w.handed_on("audio", w.made("audio.ts", "640x360", "30", &["-vn"])?)
        }),
        ("a_segment_with_zero_frames_is_handed_on_as_it_is", |w| {
            w.handed_on("zero", World::pid_packets(&w.good, |pid, _| pid != VIDEO_PID))
        }),
        ("a_segment_without_a_keyframe_is_refused", |w| {
            let whole = w.made("nokey.ts", "640x360", "30", &["-g", "600", "-sc_threshold", "0"])?;
            let packets = whole.len() / TS;
            let tail = whole[packets / 2 * TS..].to_vec();
            w.runtime.block_on(w.refused("nokey", tail, 422, "keyframe"))
        }),
        ("a_size_that_changes_in_the_middle_keeps_every_frame", |w| {
            let mut both = w.made("s1.ts", "640x360", "30", &[])?;
            both.extend(w.made("s2.ts", "1280x720", "30", &["-output_ts_offset", "2"])?);
            let (status, text, frames) = w.runtime.block_on(w.push_then_good("size", both))?;
            ensure!(status == 200 && frames == [120, 120], "{status} {text} {frames:?}");
            Ok(())
        }),
        ("a_frame_rate_that_changes_in_the_middle_keeps_every_frame", |w| {
            let mut both = w.made("f1.ts", "640x360", "30", &[])?;
            both.extend(w.made("f2.ts", "640x360", "15", &["-output_ts_offset", "2"])?);
            let (status, text, frames) = w.runtime.block_on(w.push_then_good("fps", both))?;
            ensure!(status == 200 && frames == [90, 90], "{status} {text} {frames:?}");
            Ok(())
        }),
        ("three_hundred_megabytes_and_one_byte_are_refused", |w| {
            let chunk = bytes_of(1 << 20);
            let chunks = (0..300).map(move |_| chunk.clone()).chain(std::iter::once(vec![0]));
            let body =
                reqwest::Body::wrap_stream(futures_util::stream::iter(chunks.map(Ok::<_, std::io::Error>)));
            w.runtime.block_on(async {
                // The gateway may answer and close before the last byte is sent; both are its answer.
                match w.fleet.push("huge", "0.ts", Some(LADDER), body).await {
                    Ok(answer) => {
                        let (status, text) = (answer.status, answer.text());
                        let wanted = "Error reading http request body: input bigger than max buffer size\n";
                        ensure!(status == 500 && text == wanted, "{status} {text:?}");
                    }
                    Err(error) => {
                        let text = format!("{error:#}");
                        anyhow::bail!("the connection broke before the answer could be read: {text}");
                    }
                }
                w.good_works("huge").await
            })
        }),
        ("a_ladder_of_zero_size_is_refused", |w| {
            let bad = LADDER.replace("\"width\":426,\"height\":240", "\"width\":0,\"height\":0");
            w.runtime.block_on(w.refused_ladder("zerosize", &bad, "width is 0"))
        }),
        ("a_ladder_of_odd_size_is_refused", |w| {
            let bad = LADDER.replace("\"width\":426", "\"width\":427");
            w.runtime.block_on(w.refused_ladder("oddsize", &bad, "even"))
        }),
        ("a_ladder_with_an_unknown_codec_is_refused", |w| {
            let bad = LADDER.replacen("\"fps\":0", "\"fps\":0,\"encoder\":\"Theora\"", 1);
            w.runtime.block_on(w.refused_ladder("codec", &bad, "Theora"))
        }),
        ("a_ladder_with_a_negative_bitrate_is_refused", |w| {
            let bad = LADDER.replace("250000", "-250000");
            w.runtime.block_on(w.refused_ladder("negative", &bad, "failed to parse transcode config header"))
        }),
        ("a_ladder_of_forty_renditions_is_refused", |w| {
            let profile = |i| format!(r#"{{"name":"r{i}","width":426,"height":240,"bitrate":250000}}"#);
            let all: Vec<String> = (0..40).map(profile).collect();
            let bad = format!(r#"{{"profiles":[{}]}}"#, all.join(","));
            w.runtime.block_on(w.refused_ladder("forty", &bad, "40 renditions"))
        }),
        ("a_configuration_that_is_not_json_is_refused", |w| {
            w.runtime.block_on(w.refused_ladder("json", "{oops", "failed to parse transcode config header"))
        }),
        ("an_unknown_path_and_an_unknown_method_are_refused", |w| {
            w.runtime.block_on(async {
                let (status, _) = w.fleet.text("/no/such/thing").await?;
                ensure!(status == 404, "{status}");
                let url = format!("{}/live/x/0.ts", w.fleet.http);
                let status = w.fleet.client.delete(&url).send().await?.status().as_u16();
                ensure!(status == 405, "DELETE: {status}");
                let answer = w.fleet.push("x", "index.m3u8", Some(LADDER), "#EXTM3U").await?;
                ensure!(answer.status == 400, "{}", answer.status);
                ensure!(answer.text().trim_end() == "ignoring file extension: .m3u8", "{:?}", answer.text());
                Ok(())
            })
        }),
        ("a_manifest_that_climbs_out_of_its_folder_is_refused", |w| {
            let before = listing(&w.fleet.gateway_state());
            w.runtime.block_on(async {
                for path in ["/live/../../etc/0.ts", "/live/..%2f..%2fetc/0.ts", "/live/%2e%2e/0.ts"] {
                    let status = raw_push(&w.fleet.http, path, &w.good).await?;
                    ensure!(status.contains(" 400 ") || status.contains(" 404 "), "{path}: {status}");
                }
                Ok(())
            })?;
            ensure!(listing(&w.fleet.gateway_state()) == before, "files appeared");
            Ok(())
        }),
        ("a_client_that_hangs_up_in_the_middle_leaves_nothing_behind", |w| {
            w.runtime.block_on(async {
                let address = w.fleet.http.strip_prefix("http://").context("not http")?;
                let mut socket = TcpStream::connect(address).await?;
                let head = format!(
                    "POST /live/hangup/0.ts HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                    w.good.len()
                );
                socket.write_all(head.as_bytes()).await?;
                socket.write_all(&w.good[..w.good.len() / 2]).await?;
                socket.shutdown().await?;
                drop(socket);
                w.good_works("hangup").await
            })
        }),
    ]
}

fn bytes_of(n: usize) -> Vec<u8> {
    vec![0x47; n]
}

/// Sends a path as it is, which well-behaved clients do not; gives the status line.
async fn raw_push(http: &str, path: &str, body: &[u8]) -> Result<String> {
    use tokio::io::AsyncReadExt as _;
    let address = http.strip_prefix("http://").context("not http")?;
    let mut socket = TcpStream::connect(address).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    // An early refusal may close the connection under the body.
    let _ = socket.write_all(body).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), socket.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

/// Names of the media a gateway keeps, without what live streams add.
fn listing(state: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(state)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Listing must not start a fleet.
    if arguments.list {
        let trials = cases().into_iter().map(|(name, _)| Trial::test(name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let world = match World::new() {
        Ok(world) => Arc::new(world),
        Err(error) => {
            eprintln!("the fleet did not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases()
        .into_iter()
        .map(|(name, case)| {
            let world = Arc::clone(&world);
            Trial::test(name, move || case(&world).map_err(|error| Failed::from(format!("{error:#}"))))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let failed = conclusion.has_failed();
    let Some(world) = Arc::into_inner(world) else {
        eprintln!("a test still holds the fleet");
        return ExitCode::FAILURE;
    };
    let logs = world.fleet.logs();
    let panicked = logs.contains("panicked at");
    if failed || panicked {
        eprintln!("{logs}");
    }
    if let Err(error) = world.fleet.stop() {
        eprintln!("stopping: {error:#}");
        return ExitCode::FAILURE;
    }
    if panicked { ExitCode::FAILURE } else { conclusion.exit_code() }
}
