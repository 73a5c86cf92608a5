//! The main job: video in over HTTP, over MQTT to agents, through GStreamer, back as renditions that play.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use headwater_tests::fleet::Options;
use headwater_tests::{Fleet, media};

const LADDER: &str = r#"{"profiles":[
    {"name":"480p","width":854,"height":480,"bitrate":1600000,"fps":0,"profile":"H264ConstrainedHigh","gop":"1"},
    {"name":"240p","width":426,"height":240,"bitrate":250000,"fps":0,"profile":"H264ConstrainedHigh","gop":"1"}]}"#;

/// What a player gets from a media playlist: its segments, one after the other.
async fn played(fleet: &Fleet, playlist: &str) -> Result<Vec<u8>> {
    let (status, text) = fleet.text(playlist).await?;
    ensure!(status == 200 && text.starts_with("#EXTM3U\n"), "{playlist}: {status} {text}");
    let mut whole = Vec::new();
    for path in text.lines().filter(|line| !line.starts_with('#')) {
        let response = fleet.client.get(format!("{}{path}", fleet.http)).send().await?.error_for_status()?;
        whole.extend(response.bytes().await?);
    }
    Ok(whole)
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_segments_come_back_whole_in_step_and_play_as_hls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(folder.path(), Options::nodes(&["north", "south"])).await?;
    for i in 0..4u32 {
        let input = media::segment(folder.path(), i, "1280x720", "30", 2.0)?;
        let source = media::probe(&folder.path().join(format!("in-{i}.ts")))?;
        let answer = fleet.push("show", &format!("{i}.ts"), Some(LADDER), input).await?;
        let parts = answer.parts()?;
        let names: Vec<&str> = parts.iter().map(|part| part.filename.as_str()).collect();
        ensure!(names == [format!("480p_{i}.ts"), format!("240p_{i}.ts")], "{names:?}");
        for (part, (width, height)) in parts.iter().zip([(854, 480), (426, 240)]) {
            ensure!(
                part.content_type == format!("video/mp2t; name=\"{}\"", part.filename),
                "{}",
                part.content_type
            );
            let probe = media::probe_bytes(folder.path(), &part.filename, &part.data)?;
            ensure!((probe.width, probe.height) == (width, height), "{probe:?}");
            ensure!(probe.frames == 60 && probe.starts_with_key, "{} frames", probe.frames);
            ensure!(
                probe.pts == source.pts,
                "timestamps moved: {:?} to {:?}",
                source.pts.first(),
                probe.pts.first()
            );
            let own = media::audio_md5(&folder.path().join(&part.filename))?;
            ensure!(own == media::audio_md5(&folder.path().join(format!("in-{i}.ts")))?, "audio was touched");
        }
    }

    // What was pushed plays from the gateway: the source and both renditions.
    let (status, master) = fleet.text("/stream/show.m3u8").await?;
    ensure!(
        status == 200 && master.contains("show/480p.m3u8") && master.contains("show/source.m3u8"),
        "{master}"
    );
    for (variant, height) in [("source", 720), ("480p", 480), ("240p", 240)] {
        let whole = played(&fleet, &format!("/stream/show/{variant}.m3u8")).await?;
        let probe = media::probe_bytes(folder.path(), &format!("{variant}.ts"), &whole)?;
        ensure!(probe.height == height && probe.frames == 240, "{variant}: {} frames", probe.frames);
        let step: BTreeSet<i64> = probe.pts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        ensure!(step == BTreeSet::from([3000]), "{variant} does not play through: steps {step:?}");
    }

    // One stream stays with one node, on one warm worker.
    let view = fleet.get("/api/v1/streams/show").await?;
    let segments = view["segments"].as_array().context("no segments")?;
    let nodes: BTreeSet<&str> = segments.iter().filter_map(|segment| segment["node"].as_str()).collect();
    ensure!(nodes.len() == 1, "the stream wandered: {nodes:?}");
    let warm: Vec<bool> = segments.iter().filter_map(|segment| segment["report"]["warm"].as_bool()).collect();
    ensure!(warm.len() == 4 && warm.iter().filter(|warm| **warm).count() >= 3, "{warm:?}");

    let (_, metrics) = fleet.text("/metrics").await?;
    ensure!(metrics.contains("headwater_") && metrics.contains("# TYPE"), "{metrics}");
    fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_are_spread_over_the_fleet_and_kept_apart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(folder.path(), Options::nodes(&["north", "south"])).await?;
    let sizes = ["640x360", "480x360", "360x640", "1280x720"];
    let mut inputs = Vec::new();
    for (i, size) in sizes.iter().enumerate() {
        let sub = folder.path().join(format!("s{i}"));
        std::fs::create_dir_all(&sub)?;
        inputs.push([media::segment(&sub, 0, size, "25", 1.0)?, media::segment(&sub, 1, size, "25", 1.0)?]);
    }
    for round in 0..2 {
        let pushes = inputs.iter().enumerate().map(|(i, segments)| {
            let fleet = &fleet;
            let body = segments[round].clone();
            async move { fleet.push(&format!("s{i}"), &format!("{round}.ts"), Some(LADDER), body).await }
        });
        let answers = futures_util::future::join_all(pushes).await;
        // 854x480 by livepeer's rule: the longer side fits, the other follows; portrait turns the box.
        let wanted = [(854, 480), (854, 640), (480, 854), (854, 480)];
        for (i, answer) in answers.into_iter().enumerate() {
            let parts = answer?.parts().with_context(|| format!("stream s{i}\n{}", fleet.logs()))?;
            let probe = media::probe_bytes(folder.path(), &format!("s{i}-{round}.ts"), &parts[0].data)?;
            ensure!((probe.width, probe.height) == wanted[i], "s{i}: {}x{}", probe.width, probe.height);
            ensure!(probe.frames == 25, "s{i}: {} frames", probe.frames);
        }
    }
    let streams = fleet.get("/api/v1/streams").await?;
    let nodes: BTreeSet<&str> =
        streams.as_array().context("no list")?.iter().filter_map(|stream| stream["node"].as_str()).collect();
    ensure!(nodes.len() == 2, "all streams went to {nodes:?}");
    fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn hevc_comes_in_and_mp4_goes_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(folder.path(), Options::nodes(&["north"])).await?;
    let hevc = folder.path().join("hevc.ts");
    media::pattern(
        &hevc,
        "640x360",
        "30",
        1.0,
        &["-c:v", "libx265", "-x265-params", "log-level=none", "-f", "mpegts"],
    )?;
    let parts = fleet.push("hevc", "0.ts", Some(LADDER), std::fs::read(&hevc)?).await?.parts()?;
    let probe = media::probe_bytes(folder.path(), "hevc-out.ts", &parts[1].data)?;
    ensure!(probe.codec == "h264" && probe.frames == 30, "{probe:?}");

    // The extension of the push decides the container of renditions that name none.
    let mp4 = folder.path().join("in.mp4");
    media::pattern(&mp4, "640x360", "30", 1.0, &[])?;
    let parts = fleet.push("mp4", "7.mp4", Some(LADDER), std::fs::read(&mp4)?).await?.parts()?;
    ensure!(
        parts[0].filename == "480p_7.mp4" && parts[0].content_type.starts_with("video/mp4"),
        "{:?}",
        parts[0]
    );
    let probe = media::probe_bytes(folder.path(), "mp4-out.mp4", &parts[0].data)?;
    ensure!(probe.codec == "h264" && probe.frames == 30 && probe.audio_streams == 1, "{probe:?}");
    fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_pushed_by_the_operators_command_and_written_as_hls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(folder.path(), Options::nodes(&["north", "south"])).await?;
    let out = folder.path().join("hls");
    let clip = media::clip();
    let arguments =
        ["--json", "push", clip.to_str().context("path")?, "--stream", "clip", "--ladder", "480p,240p"];
    let output = fleet.headwater(&[&arguments[..], &["--out", out.to_str().context("path")?]].concat())?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{error}\n{}", fleet.logs());
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).context("--json prints JSON")?;
    ensure!(result.is_object(), "{result}");

    let source = media::probe(&clip)?;
    for (name, height) in [("480p", 480), ("240p", 240)] {
        let probe = media::probe(&out.join(name).join("index.m3u8"))?;
        ensure!(probe.frames == source.frames && probe.height == height, "{name}: {} frames", probe.frames);
    }
    media::probe(&out.join("master.m3u8"))?;

    for arguments in [&["nodes"][..], &["streams"], &["streams", "clip"]] {
        let output = fleet.headwater(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success() && (text.contains("north") || text.contains("south")),
            "{arguments:?}: {text}"
        );
    }
    let output = fleet.headwater(&["push", "/no/such/file.mp4", "--ladder", "240p"])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && text.contains("/no/such/file.mp4"), "{text}");
    fleet.stop()
}
