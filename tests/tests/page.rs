//! The status page in a real browser: real numbers of a real fleet, live, and a player that plays.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fantoccini::{Client, ClientBuilder, Locator};
use headwater_tests::fleet::Options;
use headwater_tests::{Fleet, Process, media};
use serde_json::json;

const LADDER: &str = r#"{"profiles":[{"name":"360p","width":640,"height":360,"bitrate":800000,"gop":"1"}]}"#;

/// How long the page may take to show what the gateway knows.
const SHOWN: Duration = Duration::from_secs(30);

async fn browser(folder: &std::path::Path) -> Result<(Process, Client)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("chromedriver");
    command.arg(format!("--port={port}")).env("HOME", folder);
    let mut driver = Process::start("chromedriver", command, &folder.join("chromedriver.log"))?;
    driver.wait_for("open port", SHOWN, || std::net::TcpStream::connect(("127.0.0.1", port)).ok())?;
    let profile = folder.join("profile");
    let options = json!({"goog:chromeOptions": {"args": [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required", "--window-size=1400,1000",
        format!("--user-data-dir={}", profile.display()),
    ]}});
    let capabilities = options.as_object().context("an object")?.clone();
    let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
        .capabilities(capabilities)
        .connect(&format!("http://127.0.0.1:{port}"))
        .await?;
    Ok((driver, client))
}

/// Waits until the element's text is what `wanted` accepts; shows the last text otherwise.
async fn shows(page: &Client, css: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let deadline = tokio::time::Instant::now() + SHOWN;
    let mut last = String::from("no such element");
    while tokio::time::Instant::now() < deadline {
        if let Ok(element) = page.find(Locator::Css(css)).await {
            last = element.text().await.unwrap_or_default();
            if wanted(last.trim()) {
                return Ok(last);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("{css} shows {last:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_shows_the_fleets_numbers_live_and_plays_a_stream() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut fleet = Fleet::start(folder.path(), Options::nodes(&["north", "south"])).await?;
    let (driver, page) = browser(folder.path()).await?;
    page.goto(&format!("{}/", fleet.http)).await?;

    shows(&page, "#nodes-online", |text| text.starts_with('2')).await?;
    shows(&page, "#segments-done", |text| text == "0").await?;
    shows(&page, "[data-node=\"north\"] [data-field=\"state\"]", |text| text.eq_ignore_ascii_case("online"))
        .await?;
    shows(&page, "[data-node=\"north\"]", |text| text.contains("x264enc")).await?;

    // Pushed while the page is open: it must follow by itself.
    for i in 0..3u32 {
        let input = media::segment(folder.path(), i, "640x360", "30", 2.0)?;
        fleet.push("live-show", &format!("{i}.ts"), Some(LADDER), input).await?.parts()?;
    }
    shows(&page, "#segments-done", |text| text == "3").await?;
    shows(&page, "[data-stream=\"live-show\"] [data-field=\"segments\"]", |text| text.contains('3')).await?;
    let delay = shows(&page, "[data-stream=\"live-show\"] [data-field=\"delay\"]", |text| {
        text.chars().any(|c| c.is_ascii_digit())
    })
    .await?;
    ensure!(!delay.contains("NaN") && !delay.contains("undefined"), "{delay}");

    page.find(Locator::Css("[data-stream=\"live-show\"] [data-action=\"play\"]")).await?.click().await?;
    let script = "const v = document.querySelector('video#player'); \
                  return v ? [v.currentTime, v.videoWidth, v.readyState, v.error ? v.error.message : ''] : null;";
    let deadline = tokio::time::Instant::now() + SHOWN;
    loop {
        let state = page.execute(script, vec![]).await?;
        if state[0].as_f64().is_some_and(|time| time > 0.2)
            && state[1].as_u64().is_some_and(|width| width >= 640)
        {
            break;
        }
        ensure!(tokio::time::Instant::now() < deadline, "the player does not play: {state}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // A node that goes away is shown as gone.
    fleet.agent("south")?.terminate()?;
    shows(&page, "#nodes-online", |text| text.starts_with('1')).await?;

    page.close().await?;
    drop(driver);
    fleet.stop()
}
