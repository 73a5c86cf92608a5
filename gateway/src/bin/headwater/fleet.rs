//! `nodes`, `streams` and `enroll`.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use headwater_gateway::views::StreamView;
use headwater_protocol::enroll::Token;
use serde::Serialize;
use url::Url;

use crate::args::{Enroll, Streams, Watch};
use crate::client::{ClientError, Gateway, is_loopback};
use crate::{human, tables};

#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) json: bool,
    pub(crate) colored: bool,
}

pub(crate) async fn nodes(gateway: &Gateway, style: Style, watch: &Watch) -> Result<(), FleetError> {
    show(style, watch, async || {
        let nodes = gateway.nodes().await?;
        if style.json {
            return json(&nodes, watch);
        }
        if nodes.is_empty() {
            return Ok("No node has enrolled yet. Begin with: headwater enroll NAME".to_owned());
        }
        let mut lines = vec![tables::nodes(&nodes, now_ms(), style.colored).to_string()];
        lines.extend(tables::avoided(&nodes));
        Ok(lines.join("\n"))
    })
    .await
}

pub(crate) async fn streams(gateway: &Gateway, style: Style, args: &Streams) -> Result<(), FleetError> {
    show(style, &args.watch, async || {
        if let Some(stream) = &args.stream {
            let view = gateway.stream(stream).await?;
            return if style.json {
                json(&view, &args.watch)
            } else {
                Ok(stream_text(gateway, &view, style))
            };
        }
        let streams = gateway.streams().await?;
        if style.json {
            return json(&streams, &args.watch);
        }
        if streams.is_empty() {
            return Ok("No stream yet. Push one with: headwater push FILE".to_owned());
        }
        Ok(tables::streams(&streams, now_ms(), style.colored).to_string())
    })
    .await
}

fn stream_text(gateway: &Gateway, view: &StreamView, style: Style) -> String {
    let (p50, p95) = tables::delays(&view.segments);
    let ladder: Vec<&str> = view.ladder.iter().map(|name| name.as_str()).collect();
    let mut facts = vec![
        format!("stream {}, {}", view.stream, if view.live { "live" } else { "ended" }),
        format!("ladder {}", ladder.join(" ")),
    ];
    if let Some(node) = &view.node {
        facts.push(format!("node {node}"));
    }
    if let (Some(p50), Some(p95)) = (p50, p95) {
        facts.push(format!("delay {} (p95 {})", human::ms(p50), human::ms(p95)));
    }
    if let Some(factor) = tables::real_time(&view.segments) {
        facts.push(format!("{factor:.2} x real time"));
    }
    format!(
        "{}\nwatch {}\n{}",
        facts.join(" · "),
        gateway.url(&view.playlist),
        tables::segments(view, style.colored)
    )
}

pub(crate) fn json<T: Serialize>(value: &T, watch: &Watch) -> Result<String, FleetError> {
    // One line per look, so that a reader can tell them apart.
    Ok(if watch.watch { serde_json::to_string(value)? } else { serde_json::to_string_pretty(value)? })
}

/// Once, or again and again until Ctrl-C; then a gateway that is away for a moment is waited for.
pub(crate) async fn show<F>(style: Style, watch: &Watch, look: impl Fn() -> F) -> Result<(), FleetError>
where
    F: Future<Output = Result<String, FleetError>>,
{
    if !watch.watch {
        return print(&look().await?);
    }
    // Once for all looks: a gateway that does not answer must not swallow it.
    tokio::select! {
        ended = show_on(style, watch, look) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn show_on<F>(style: Style, watch: &Watch, look: impl Fn() -> F) -> Result<(), FleetError>
where
    F: Future<Output = Result<String, FleetError>>,
{
    let clear = !style.json && std::io::stdout().is_terminal();
    let mut failed = None;
    loop {
        match look().await {
            Ok(text) => {
                failed = None;
                print(&if clear { format!("\x1b[H\x1b[2J{text}") } else { text })?;
            }
            Err(error) => {
                let text = error.to_string();
                if failed.as_ref() != Some(&text) {
                    eprintln!("headwater: {text}; trying again");
                    failed = Some(text);
                }
            }
        }
        tokio::time::sleep(watch.every).await;
    }
}

pub(crate) async fn enroll(gateway: &Gateway, style: Style, args: &Enroll) -> Result<(), FleetError> {
    let reply = gateway.enroll(&args.node, args.valid).await?;
    if style.json {
        return print(&serde_json::to_string_pretty(&reply)?);
    }
    print(&reply.token)?;
    eprintln!(
        "The token works once, for {}. On the board, run:\n  headwater-agent enroll {}",
        human::validity(args.valid),
        if std::io::stdout().is_terminal() { reply.token.as_str() } else { "TOKEN" }
    );
    if let Some(url) = own_address(&reply.token) {
        eprintln!(
            "It leads to {url}, where only this machine's own agent finds the gateway. For other boards, set `listen` of \
             [nodes] and [broker] in gateway.toml, restart the gateway, and make another token."
        );
    }
    Ok(())
}

/// The gateway's address in a token, where it is one that each machine has for itself.
fn own_address(token: &str) -> Option<Url> {
    let url = Url::parse(&token.parse::<Token>().ok()?.url).ok()?;
    is_loopback(&url).then_some(url)
}

/// A closed pipe (`| head`) is the reader's wish and no error.
pub(crate) fn print(text: &str) -> Result<(), FleetError> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_leads_a_board_to_itself_is_told_apart() {
        let to = |url: &str| {
            let (ca, secret) = ("a".repeat(64), "b".repeat(32));
            own_address(&format!("hw1/home/north/{ca}/{secret}/{url}")).is_some()
        };
        assert!(to("https://127.0.0.1:9936") && to("https://[::1]:9936") && to("https://localhost:9936"));
        assert!(!to("https://gateway.lan:9936") && !to("https://10.0.0.2:9936"));
    }
}
