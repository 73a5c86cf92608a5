//! A node with a valid certificate that tries what is not its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use headwater_tests::fleet::Options;
use headwater_tests::{Fleet, media};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use serde_json::Value;

const LADDER: &str = r#"{"profiles":[
    {"name":"1080p","width":1920,"height":1080,"bitrate":5000000,"gop":"1"},
    {"name":"720p","width":1280,"height":720,"bitrate":3000000,"gop":"1"}]}"#;

/// What a node holds: the identity that its enrolment left in its state folder.
struct Identity {
    key: Vec<u8>,
    certificate: Vec<u8>,
    ca: Vec<u8>,
    node: Value,
}

impl Identity {
    fn of(fleet: &Fleet, name: &str) -> Result<Self> {
        let folder = fleet.folder.join(name).join("state/identity");
        let read = |file: &str| std::fs::read(folder.join(file)).with_context(|| format!("{file} of {name}"));
        Ok(Self {
            key: read("node.key")?,
            certificate: read("node.crt")?,
            ca: read("ca.crt")?,
            node: serde_json::from_slice(&read("node.json")?)?,
        })
    }

    fn gateway(&self) -> Result<&str> {
        self.node["gateway_url"].as_str().context("no gateway_url")
    }

    fn https(&self, with_certificate: bool) -> Result<reqwest::Client> {
        let mut builder =
            reqwest::Client::builder().no_proxy().tls_certs_only([reqwest::Certificate::from_pem(&self.ca)?]);
        if with_certificate {
            builder = builder.identity(reqwest::Identity::from_pkcs8_pem(&self.certificate, &self.key)?);
        }
        Ok(builder.build()?)
    }

    fn mqtt(&self, client_id: &str) -> Result<(AsyncClient, EventLoop)> {
        let host = self.node["broker_host"].as_str().context("no broker_host")?;
        let port = self.node["broker_port"].as_u64().context("no broker_port")?;
        let connector = native_tls::TlsConnector::builder()
            .disable_built_in_roots(true)
            .add_root_certificate(native_tls::Certificate::from_pem(&self.ca)?)
            .identity(native_tls::Identity::from_pkcs8(&self.certificate, &self.key)?)
            .build()?;
        let mut options = MqttOptions::new(client_id, host, u16::try_from(port)?);
        options.set_transport(Transport::Tls(TlsConfiguration::NativeConnector(connector)));
        options.set_clean_start(true);
        options.set_outgoing_inflight_upper_limit(16);
        Ok(AsyncClient::new(options, 16))
    }
}

/// Polls until `wanted` finds what it looks for.
async fn until<T>(events: &mut EventLoop, mut wanted: impl FnMut(&Packet) -> Option<T>) -> Result<T> {
    let polling = async {
        loop {
            if let Event::Incoming(packet) = events.poll().await?
                && let Some(found) = wanted(&packet)
            {
                return Ok(found);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), polling).await.context("no answer of the broker")?
}

fn mode(path: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o777)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reads_and_writes_its_own_topics_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut fleet = Fleet::start(folder.path(), Options::nodes(&["good", "evil"])).await?;
    fleet.agent("evil")?.terminate()?;
    let evil = Identity::of(&fleet, "evil")?;
    let (client, mut events) = evil.mqtt("evil")?;

    for topic in ["event", "birth", "status", "telemetry", "reply", "offer", "ack"] {
        client.publish(format!("headwater/v1/test/good/{topic}"), QoS::AtLeastOnce, false, "{}").await?;
        let reason = until(&mut events, |packet| match packet {
            Packet::PubAck(ack) => Some(ack.reason),
            _ => None,
        })
        .await?;
        ensure!(reason == PubAckReason::NotAuthorized, "publishing {topic} for another node: {reason:?}");
    }
    client.publish("headwater/v1/test/evil/offer", QoS::AtLeastOnce, false, "{}").await?;
    let reason = until(&mut events, |packet| match packet {
        Packet::PubAck(ack) => Some(ack.reason),
        _ => None,
    })
    .await?;
    ensure!(reason == PubAckReason::NotAuthorized, "making itself an offer: {reason:?}");

    // mosquitto grants a wide filter and delivers nothing on it, so what counts is what arrives.
    for filter in ["headwater/v1/test/good/#", "#", "headwater/v1/+/+/offer"] {
        client.subscribe(filter, QoS::AtLeastOnce).await?;
        until(&mut events, |packet| match packet {
            Packet::SubAck(ack) => Some(matches!(ack.return_codes[0], SubscribeReasonCode::Success(_))),
            _ => None,
        })
        .await?;
    }
    let input = media::segment(folder.path(), 0, "640x360", "30", 1.0)?;
    let listening = tokio::spawn(async move {
        let heard = until(&mut events, |packet| match packet {
            Packet::Publish(publish) => Some(String::from_utf8_lossy(&publish.topic).into_owned()),
            _ => None,
        });
        tokio::time::timeout(Duration::from_secs(3), heard).await
    });
    fleet.push("show", "0.ts", Some(LADDER), input).await?.parts()?;
    match listening.await? {
        Err(_silence) => {}
        Ok(Ok(topic)) => ensure!(topic.contains("/test/evil/"), "overheard {topic}"),
        Ok(Err(error)) => bail!("the listener broke: {error:#}"),
    }

    // Another node's client id would take over its session.
    let (_client, mut events) = evil.mqtt("good")?;
    let _ = tokio::time::timeout(Duration::from_secs(3), events.poll()).await;
    let nodes = fleet.get("/api/v1/nodes").await?;
    let good =
        nodes.as_array().context("no list")?.iter().find(|node| node["node"] == "good").context("no good")?;
    ensure!(good["state"] == "online", "a foreign client id threw the node out: {good:#}");

    let state = fleet.folder.join("good/state/identity");
    ensure!(mode(&state.join("node.key"))? == 0o600, "the key is {:o}", mode(&state.join("node.key"))?);
    fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_media_is_its_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut fleet = Fleet::start(folder.path(), Options::nodes(&["good", "evil"])).await?;
    fleet.agent("evil")?.terminate()?;
    let evil = Identity::of(&fleet, "evil")?;
    let input = media::segment(folder.path(), 0, "1920x1080", "30", 6.0)?;

    let pushing = fleet.push_apart("show", "0.ts", LADDER, input);
    let running = loop {
        let nodes = fleet.get("/api/v1/nodes").await?;
        let found =
            nodes.as_array().context("no list")?.iter().find_map(|node| node["running"].get(0).cloned());
        if let Some(running) = found {
            break running;
        }
        ensure!(!pushing.is_finished(), "the push ended before it was seen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let task = running["task"].as_str().context("no task")?;
    let epoch = running["epoch"].as_u64().context("no epoch")?;
    let base = format!("{}/v1/attempts/{task}/{epoch}", evil.gateway()?);

    let https = evil.https(true)?;
    let status = https.get(format!("{base}/input")).send().await?.status();
    ensure!(status == 403, "reading another node's input: {status}");
    let status = https.put(format!("{base}/720p")).body("poison").send().await?.status();
    ensure!(status == 403, "writing another node's rendition: {status}");
    for path in
        ["/v1/attempts/../../../etc/passwd", "/v1/attempts/x/1/input", "/v1/attempts/x/1/..%2f..%2fca.key"]
    {
        let status = https.get(format!("{}{path}", evil.gateway()?)).send().await?.status();
        ensure!(status.is_client_error(), "{path}: {status}");
    }
    let status = evil.https(false)?.get(format!("{base}/input")).send().await?.status();
    ensure!(status == 401 || status == 403, "without a certificate: {status}");

    let answer = pushing.await??;
    for part in answer.parts()? {
        ensure!(part.data != b"poison", "the hostile bytes were published");
        let probe = media::probe_bytes(folder.path(), &part.filename, &part.data)?;
        ensure!(probe.frames == 180, "{}: {} frames", part.rendition, probe.frames);
    }
    fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once_and_for_its_node_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fleet = Fleet::start(folder.path(), Options::nodes(&[])).await?;
    let token = fleet.token("first")?;
    let enroll = |state: &str, token: &str| -> Result<(bool, String)> {
        let output = std::process::Command::new(headwater_tests::process::binary("headwater-agent")?)
            .args(["enroll", token, "--state-dir"])
            .arg(folder.path().join(state))
            .output()?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), text))
    };
    let secret = token.split('/').nth(4).context("a token has a secret")?.to_owned();
    let wrong =
        token.replace(token.split('/').nth(3).context("a token has a fingerprint")?, &"ab".repeat(32));
    let (ok, text) = enroll("wrong-ca", &wrong)?;
    ensure!(
        !ok && text.contains("not the one of the token"),
        "a server that is not the token's was trusted: {text}"
    );
    ensure!(!folder.path().join("wrong-ca/identity/node.crt").exists(), "something was left of it");

    let (ok, text) = enroll("first", &token)?;
    ensure!(ok, "{text}");
    ensure!(!text.contains(&secret), "the secret was shown");
    let (ok, text) = enroll("again", &token)?;
    ensure!(!ok && !text.is_empty(), "the token worked twice: {text}");
    ensure!(!fleet.gateway.log().contains(&secret), "the gateway logged the secret");

    let output = fleet.headwater(&["enroll", "gateway"])?;
    ensure!(!output.status.success(), "a node may not be called as the gateway is");
    let output = fleet.headwater(&["enroll", "../x"])?;
    ensure!(!output.status.success(), "a node id that is none");
    fleet.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_gateway_has_a_token_only_playback_and_health_are_open() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("http.token");
    std::fs::write(&file, "open-sesame-open-sesame\n")?;
    let mut options = Options::nodes(&[]);
    options.http = format!("token_file = \"{}\"", file.display());
    let fleet = Fleet::start(folder.path(), options).await?;
    let status = async |path: &str, show: &str| -> Result<u16> {
        let request = fleet.client.get(format!("{}{path}", fleet.http));
        let request = match show {
            "bearer" => request.bearer_auth("open-sesame-open-sesame"),
            "browser" => request.basic_auth("me", Some("open-sesame-open-sesame")),
            "wrong" => request.bearer_auth("open-sesame"),
            _ => request,
        };
        Ok(request.send().await?.status().as_u16())
    };
    for path in
        ["/", "/assets/app.js", "/api/v1/nodes", "/api/v1/streams", "/metrics", "/live/x/0.ts", "/nothing"]
    {
        for show in ["none", "wrong"] {
            let got = status(path, show).await?;
            ensure!(got == 401, "{path} with {show}: {got}");
        }
    }
    for show in ["bearer", "browser"] {
        for path in ["/", "/api/v1/nodes", "/metrics"] {
            let got = status(path, show).await?;
            ensure!(got == 200, "{path} with {show}: {got}");
        }
    }
    ensure!(status("/healthz", "none").await? == 200, "health is not open");
    ensure!(status("/stream/x.m3u8", "none").await? == 404, "playback is not open");
    let answer = fleet.push("x", "0.ts", Some(LADDER), "body").await?;
    ensure!(answer.status == 401, "pushing without a token: {}", answer.status);
    let output = fleet.headwater(&["nodes"])?;
    ensure!(output.status.success(), "the operator is shut out: {}", String::from_utf8_lossy(&output.stderr));
    fleet.stop()
}
