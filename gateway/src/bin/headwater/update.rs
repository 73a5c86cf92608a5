//! `headwater update`: upload, plan, start, follow.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use headwater_gateway::bundle::{self, BundleError};
use headwater_gateway::depot::Stored;
use headwater_gateway::operate::views::{UpdateRequest, UpdateView};
use headwater_gateway::rollout::{Plan, Progress as NodeProgress, State, Wave};
use headwater_gateway::secret;
use headwater_protocol::update::UpdateState;
use headwater_protocol::{Millis, NodeId, UpdateId};
use sha2::{Digest as _, Sha256};
use tokio_util::io::ReaderStream;

use crate::args::Update;
use crate::client::{ClientError, Gateway};
use crate::fleet::{FleetError, Style, now_ms, print};
use crate::progress::Progress;
use crate::{human, updates};

#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error("{}: {source}", path.display())]
    Bundle { path: PathBuf, source: BundleError },
    #[error("{waves} waves have {} between them, but {soaks} spans to soak were told; tell one, or one for each", human::count(waves - 1, "soak"))]
    Soaks { waves: usize, soaks: usize },
    #[error("the gateway got another file than was sent: {sent} became {got}; try again")]
    Changed { sent: String, got: String },
    #[error(
        "interrupted; the update {0} goes on. See headwater updates {0}, or cancel it with headwater updates cancel {0}"
    )]
    Interrupted(UpdateId),
}

/// Between two looks at an update that is followed.
const LOOK: Duration = Duration::from_secs(1);

/// True where every node that could take it has it, as far as was looked.
pub(crate) async fn run(
    gateway: &Gateway,
    style: Style,
    terminal: bool,
    args: &Update,
) -> Result<bool, UpdateError> {
    let plan = plan(args)?;
    let progress = Progress::new(style.json);
    let bundle = upload(gateway, &args.bundle, &progress).await?;
    progress.clear();
    let request = UpdateRequest {
        selector: args.selector.clone(),
        bundle: bundle.sha256,
        plan,
        name: args.name.clone(),
        dry_run: args.dry_run,
    };
    let view = gateway.start_update(&request).await?;
    let id = view.update.id.clone();
    let follow = args.follow || (terminal && !args.detach && !args.dry_run);
    if !follow || !style.json {
        let text = match style.json {
            true => serde_json::to_string_pretty(&view).map_err(FleetError::Json)?,
            false => updates::plan(&view),
        };
        print(&text)?;
    }
    if args.dry_run {
        return Ok(true);
    }
    if !follow {
        if !style.json {
            print(&format!("The update {id} has begun. See: headwater updates {id}"))?;
        }
        return Ok(true);
    }
    let view = follow_to_end(gateway, id, &Progress::new(style.json)).await?;
    let text = match style.json {
        true => serde_json::to_string_pretty(&view).map_err(FleetError::Json)?,
        false => updates::ending(&view),
    };
    print(&text)?;
    Ok(view.update.head.state == State::Done && !view.nodes.iter().any(|n| n.member.progress.is_failure()))
}

fn plan(args: &Update) -> Result<Plan, UpdateError> {
    let count = args.waves.len();
    // Nothing waits after the last wave.
    let soak = |wave: usize| match args.soak.as_slice() {
        _ if wave + 1 == count => Some(Duration::ZERO),
        [all] => Some(*all),
        each => each.get(wave).copied(),
    };
    let wrong = UpdateError::Soaks { waves: count, soaks: args.soak.len() };
    if args.soak.len() > 1 && args.soak.len() != count - 1 {
        return Err(wrong);
    }
    let waves = args.waves.iter().enumerate().map(|(index, upto)| {
        let soak = soak(index)?;
        Some(Wave { upto: *upto, soak: millis(soak) })
    });
    let waves = waves.collect::<Option<Vec<_>>>().ok_or(wrong)?;
    Ok(Plan {
        waves,
        stop_after: args.stop_after,
        window: args.window,
        allow_downgrade: args.allow_downgrade,
        health: millis(args.health),
    })
}

fn millis(span: Duration) -> Millis {
    // Spans that can be typed are below ten years.
    Millis(span.as_millis() as u64)
}

/// Puts the file where the gateway has not got it.
async fn upload(gateway: &Gateway, path: &Path, progress: &Progress) -> Result<Stored, UpdateError> {
    let unreadable = |source: BundleError| UpdateError::Bundle { path: path.to_owned(), source };
    // What is no bundle is said before anything is sent.
    bundle::read(path).map_err(unreadable)?;
    let read = |error: std::io::Error| unreadable(error.into());
    let (sha256, bytes) = hash(path).map_err(read)?;
    if let Some(stored) = gateway.bundle(&sha256).await? {
        return Ok(stored);
    }
    let file = tokio::fs::File::open(path).await.map_err(read)?;
    let (count, counted) = tokio::sync::watch::channel(0u64);
    let chunks = ReaderStream::with_capacity(file, 256 * 1024).inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            count.send_modify(|sent| *sent += chunk.len() as u64);
        }
    });
    let upload = gateway.upload(reqwest::Body::wrap_stream(chunks));
    tokio::pin!(upload);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let stored = loop {
        tokio::select! {
            stored = &mut upload => break stored?,
            _ = tick.tick() => {
                let sent = *counted.borrow();
                let text = format!("uploading the bundle: {} of {}", human::bytes(sent), human::bytes(bytes));
                progress.at(&text, sent, bytes);
            }
        }
    };
    match stored.sha256 == sha256 {
        true => Ok(stored),
        false => Err(UpdateError::Changed { sent: sha256, got: stored.sha256 }),
    }
}

fn hash(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = std::fs::File::open(path)?;
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0u8; 256 * 1024]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((secret::hex(&digest.finalize()), bytes));
        }
        digest.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// Shows how it goes until it ends or stops. Only the showing ends with Ctrl-C.
async fn follow_to_end(
    gateway: &Gateway,
    id: UpdateId,
    progress: &Progress,
) -> Result<UpdateView, UpdateError> {
    // Once for all looks: a gateway that does not answer must not swallow it.
    let shown = tokio::select! {
        view = shown_to_end(gateway, &id, progress) => Some(view),
        _ = tokio::signal::ctrl_c() => None,
    };
    progress.clear();
    shown.ok_or(UpdateError::Interrupted(id))
}

async fn shown_to_end(gateway: &Gateway, id: &UpdateId, progress: &Progress) -> UpdateView {
    let mut told = HashSet::new();
    let mut away: Option<String> = None;
    loop {
        match gateway.update(id).await {
            Ok(view) => {
                away = None;
                tell(&view, &mut told, progress);
                match view.update.head.state {
                    State::Done | State::Cancelled | State::Stopped { .. } => return view,
                    State::Running | State::Paused => {}
                }
            }
            // The gateway may start anew in the middle of an update; that is no reason to stop looking.
            Err(error) => {
                let text = error.to_string();
                if away.as_ref() != Some(&text) {
                    progress.note(&format!("headwater: {text}; trying again"));
                    away = Some(text);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A line for each node that is through, and the bar.
fn tell(view: &UpdateView, told: &mut HashSet<NodeId>, progress: &Progress) {
    for entry in &view.nodes {
        let over =
            entry.member.progress.is_over() && !matches!(entry.member.progress, NodeProgress::Skipped { .. });
        if over && told.insert(entry.node.clone()) {
            progress.note(&updates::sentence(&entry.node, &entry.member.progress));
        }
    }
    // Each node counts a hundred: what is under way moves the bar too.
    let parts = view.nodes.iter().map(|entry| share(&entry.member.progress, view.update.bundle.bytes));
    let of = view.nodes.iter().filter(|n| !matches!(n.member.progress, NodeProgress::Skipped { .. })).count();
    progress.at(&updates::line(view, now_ms()), parts.sum(), of as u64 * 100);
}

/// How far one node is, of a hundred: fetching is a third of the way, installing another one.
fn share(progress: &NodeProgress, bytes: u64) -> u64 {
    match progress {
        NodeProgress::Skipped { .. }
        | NodeProgress::Pending
        | NodeProgress::Ordered
        | NodeProgress::Recalled => 0,
        NodeProgress::Silent => 100,
        NodeProgress::Node { state } => match state {
            UpdateState::Fetching { bytes: got } => 33 * (*got).min(bytes) / bytes.max(1),
            UpdateState::Waiting => 33,
            UpdateState::Installing { percent } => 33 + 33 * u64::from((*percent).min(100)) / 100,
            UpdateState::Restarting => 66,
            UpdateState::Verifying => 80,
            UpdateState::Done | UpdateState::RolledBack { .. } | UpdateState::Failed { .. } => 100,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    use crate::args::{Cli, Command};

    fn parsed(arguments: &[&str]) -> Result<Plan, UpdateError> {
        let all = [&["headwater", "update", "all", "x.raucb"], arguments].concat();
        let Command::Update(args) = Cli::try_parse_from(all).unwrap().command else {
            panic!("not an update")
        };
        plan(&args)
    }

    #[test]
    fn each_wave_but_the_last_soaks() {
        let soaks = |arguments: &[&str]| {
            let waves = parsed(arguments).unwrap().waves;
            waves.iter().map(|wave| (wave.upto.to_string(), wave.soak.0 / 60_000)).collect::<Vec<_>>()
        };
        let of = |upto: &str, soak| (upto.to_owned(), soak);
        assert_eq!(soaks(&[]), [of("5%", 30), of("25%", 30), of("100%", 0)]);
        assert_eq!(soaks(&["--waves", "2,100%", "--soak", "1h"]), [of("2", 60), of("100%", 0)]);
        assert_eq!(soaks(&["--soak", "1m,2h"]), [of("5%", 1), of("25%", 120), of("100%", 0)]);
        assert_eq!(soaks(&["--waves", "100%"]), [of("100%", 0)]);
        let wrong = parsed(&["--soak", "1m,2m,3m"]).unwrap_err().to_string();
        assert!(wrong.contains("2 soaks between them, but 3 spans"), "{wrong}");
    }
}
