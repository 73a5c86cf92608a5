//! What breaks while video runs through it, and that nothing is lost by it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headwater_tests::fleet::Options;
use headwater_tests::push::Answer;
use headwater_tests::{Fleet, media};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Large enough that a segment is still in work when it is looked for.
const LADDER: &str = r#"{"profiles":[
    {"name":"1080p","width":1920,"height":1080,"bitrate":5000000,"gop":"1"},
    {"name":"720p","width":1280,"height":720,"bitrate":3000000,"gop":"1"}]}"#;

const SECONDS: f64 = 6.0;
const FRAMES: u64 = 180;

/// Silence of a worker is noticed soon, so that the tests are quick; no worker but those at work.
const AGENT: &str =
    "[deadlines]\nworker_silence_seconds = 3\n[limits]\nsegments_in_flight = 2\nspare_worker = false\n";

struct World {
    folder: tempfile::TempDir,
    fleet: Fleet,
    input: Vec<u8>,
}

impl World {
    async fn new(nodes: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut options = Options::nodes(nodes);
        options.agent_tables = AGENT.to_owned();
        // A busy machine is slow, and these tests are not about that.
        options.gateway_tables = "[retry]\nruntime_min_seconds = 100\n".to_owned();
        let fleet = Fleet::start(folder.path(), options).await?;
        let input = media::segment(folder.path(), 0, "1920x1080", "30", SECONDS)?;
        Ok(Self { folder, fleet, input })
    }

    /// Pushes a segment and calls `harm` with the node that has it while it is in work.
    async fn push_and_harm(
        &mut self,
        file: &str,
        harm: impl FnOnce(&mut Fleet, &str) -> Result<()>,
    ) -> Result<Answer> {
        let pushing = self.fleet.push_apart("show", file, LADDER, self.input.clone());
        let node = self.working_node().await?;
        harm(&mut self.fleet, &node)?;
        pushing.await?
    }

    /// Waits until a node runs an attempt in a worker.
    async fn working_node(&self) -> Result<String> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let nodes = self.fleet.get("/api/v1/nodes").await?;
            let busy = nodes
                .as_array()
                .context("no list")?
                .iter()
                .find(|node| node["running"].as_array().is_some_and(|running| !running.is_empty()));
            if let Some(node) = busy
                && !self.fleet.workers().is_empty()
            {
                return Ok(node["node"].as_str().context("a node without a name")?.to_owned());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "no node took the segment\n{}",
                self.fleet.logs()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn whole(&self, answer: &Answer) -> Result<()> {
        let parts = answer.parts().with_context(|| self.fleet.logs())?;
        ensure!(parts.len() == 2, "{} renditions", parts.len());
        for part in parts {
            let probe = media::probe_bytes(self.folder.path(), &part.filename, &part.data)?;
            ensure!(probe.frames == FRAMES, "{}: {} frames", part.rendition, probe.frames);
        }
        Ok(())
    }

    /// The next segment of the same stream works.
    async fn next_works(&self, file: &str) -> Result<()> {
        let answer = self.fleet.push("show", file, Some(LADDER), self.input.clone()).await?;
        self.whole(&answer)
    }

    async fn attempts(&self, segment: u64) -> Result<u64> {
        let view = self.fleet.get("/api/v1/streams/show").await?;
        let segments = view["segments"].as_array().context("no segments")?;
        let found = segments.iter().find(|view| view["segment"] == segment).context("segment not listed")?;
        found["attempts"].as_u64().context("attempts is not a number")
    }
}

fn signal(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {pid}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_in_the_middle_of_a_segment_costs_one_attempt() -> Result<()> {
    let mut world = World::new(&["a", "b"]).await?;
    let mut killed = String::new();
    let answer = world
        .push_and_harm("0.ts", |fleet, node| {
            killed = node.to_owned();
            fleet.agent(node)?.kill();
            Ok(())
        })
        .await?;
    world.whole(&answer)?;
    ensure!(world.attempts(0).await? == 2, "the segment took {} attempts", world.attempts(0).await?);
    world.next_works("1.ts").await?;

    // The same node comes back, closes what it left open and is of use again.
    world.fleet.agents.retain(|(name, _)| *name != killed);
    world.fleet.start_agent(&killed)?;
    world.fleet.wait_online().await?;
    world.next_works("2.ts").await?;
    world.fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_is_killed_and_its_segment_done_elsewhere() -> Result<()> {
    let mut world = World::new(&["a", "b"]).await?;
    let mut stopped = 0;
    let answer = world
        .push_and_harm("0.ts", |fleet, _| {
            stopped = *fleet.workers().first().context("no worker")?;
            signal(stopped, Signal::SIGSTOP)
        })
        .await?;
    world.whole(&answer)?;
    ensure!(!world.fleet.workers().contains(&stopped), "the stopped worker is still there");
    world.next_works("1.ts").await?;
    world.fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_on_the_only_node_is_replaced_there() -> Result<()> {
    let mut world = World::new(&["only"]).await?;
    let answer = world
        .push_and_harm("0.ts", |fleet, _| {
            signal(*fleet.workers().first().context("no worker")?, Signal::SIGSTOP)
        })
        .await?;
    // One node: it gets a second chance, or the caller a clear answer; the stream goes on in any case.
    match answer.status {
        200 => world.whole(&answer)?,
        422 | 503 => ensure!(!answer.text().trim().is_empty(), "an answer without a word"),
        other => anyhow::bail!("{other}: {}", answer.text()),
    }
    world.next_works("1.ts").await?;
    world.fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_crashes_costs_one_attempt() -> Result<()> {
    let mut world = World::new(&["a", "b"]).await?;
    let answer = world
        .push_and_harm("0.ts", |fleet, _| {
            signal(*fleet.workers().first().context("no worker")?, Signal::SIGKILL)
        })
        .await?;
    world.whole(&answer)?;
    world.next_works("1.ts").await?;
    world.fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_in_the_middle_of_a_segment_loses_no_result() -> Result<()> {
    let mut world = World::new(&["a", "b"]).await?;
    let answer = world
        .push_and_harm("0.ts", |fleet, _| {
            let processes = fleet.processes();
            let broker =
                processes.iter().find(|(_, command)| command.contains("mosquitto")).context("no broker")?;
            signal(broker.0, Signal::SIGKILL)
        })
        .await?;
    world.whole(&answer)?;
    world.fleet.wait_online().await?;
    world.next_works("1.ts").await?;
    world.fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_comes_back_with_its_fleet_and_its_streams() -> Result<()> {
    let mut world = World::new(&["a"]).await?;
    world.next_works("0.ts").await?;
    world.fleet.restart_gateway(false).await?;
    world.fleet.wait_online().await?;
    let view = world.fleet.get("/api/v1/streams/show").await?;
    ensure!(
        view["segments_total"] == 1 && view["segments"][0]["state"] == "done",
        "the store forgot: {view:#}"
    );
    let (status, _) = world.fleet.text("/stream/show.m3u8").await?;
    ensure!(status == 200, "the playlist is gone: {status}");
    world.next_works("1.ts").await?;
    world.fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_told_to_stop_finishes_its_segment_first() -> Result<()> {
    let mut world = World::new(&["a", "b"]).await?;
    let answer = world
        .push_and_harm("0.ts", |fleet, node| signal(fleet.agent(node)?.pid().as_raw(), Signal::SIGTERM))
        .await?;
    world.whole(&answer)?;
    ensure!(world.attempts(0).await? == 1, "the segment was done twice");
    world.next_works("1.ts").await?;
    world.fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_a_push_is_told_so_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(folder.path(), Options::nodes(&[])).await?;
    let input = media::segment(folder.path(), 0, "640x360", "30", 1.0)?;
    let answer = fleet.push("lonely", "0.ts", Some(LADDER), input).await?;
    ensure!(
        answer.status == 503 && answer.text().contains("No sessions available"),
        "{} {}",
        answer.status,
        answer.text()
    );
    fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_crashes_beside_another_of_its_stream_costs_its_own_segment_alone() -> Result<()> {
    let mut world = World::new(&["only"]).await?;
    let beside = world.fleet.push_apart("show", "0.ts", LADDER, world.input.clone());
    world.working_node().await?;
    let first = world.fleet.workers();
    let answer = world
        .push_and_harm("1.ts", |fleet, _| {
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            let second = loop {
                if let Some(pid) = fleet.workers().into_iter().find(|pid| !first.contains(pid)) {
                    break pid;
                }
                ensure!(std::time::Instant::now() < deadline, "no second worker\n{}", fleet.logs());
                std::thread::sleep(Duration::from_millis(1));
            };
            signal(second, Signal::SIGKILL)
        })
        .await?;
    // The only node gets a second try at it.
    world.whole(&answer)?;
    world.whole(&beside.await??)?;
    ensure!(world.attempts(0).await? == 1, "the segment beside it was hurt");
    ensure!(world.attempts(1).await? == 2, "{} attempts", world.attempts(1).await?);
    world.fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_attempt_left_behind_can_be_fetched_from_the_gateway() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut fleet = Fleet::start(folder.path(), Options::nodes(&[])).await?;
    fleet.enroll("a")?;
    // As if the usual decoder had hung earlier in this boot: the other one is used, which fails on colour in every row.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let held = serde_json::json!({
        "boot_id": boot.trim(), "elements": [{ "element": "avdec_h264", "reason": "it hung" }],
    });
    std::fs::write(fleet.folder.join("a/state/quarantine.json"), held.to_string())?;
    fleet.start_agent("a")?;
    fleet.wait_online().await?;
    let nodes = fleet.get("/api/v1/nodes").await?;
    let birth = &nodes[0]["birth"];
    ensure!(birth["avoids"][0]["element"] == "avdec_h264", "{birth:#}");
    ensure!(!birth["capabilities"].to_string().contains("avdec_h264"), "{birth:#}");
    let listed = fleet.headwater(&["nodes"])?;
    let listed = String::from_utf8(listed.stdout)?;
    ensure!(listed.contains("a does without avdec_h264 until it boots again: it hung"), "{listed}");
    let rich = folder.path().join("rich.ts");
    media::pattern(&rich, "640x360", "30", 1.0, &["-pix_fmt", "yuv422p"])?;
    let rich = std::fs::read(&rich)?;
    let answer = fleet.push("show", "3.ts", Some(LADDER), rich).await?;
    ensure!(answer.status == 422, "{}: {}", answer.status, answer.text());
    let graphs = folder.path().join("graphs");
    let graphs = graphs.to_str().context("a folder's name")?;
    // It comes after the answer, which does not wait for it.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let text = loop {
        let output = fleet.headwater(&["evidence", "show", "3", "--graphs", graphs])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        if text.contains("attempt 1 on a") {
            break text;
        }
        ensure!(tokio::time::Instant::now() < deadline, "{text}\n{}", fleet.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    ensure!(
        text.contains("undecodable")
            && text.contains("openh264dec")
            && text.contains("graphs: decode, encode, encode"),
        "{text}"
    );
    let drawn: Vec<_> = std::fs::read_dir(graphs)?.collect::<Result<_, _>>()?;
    let decode = drawn.iter().find(|file| file.file_name().to_string_lossy().ends_with("-decode.dot"));
    let dot = std::fs::read_to_string(decode.context("no graph of the decoder")?.path())?;
    ensure!(dot.starts_with("digraph pipeline") && dot.contains("openh264dec"), "{dot}");
    fleet.stop()
}
