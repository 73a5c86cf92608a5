//! A bundle onto the data partition, by ranges: what has come stays over cut connections and restarts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headwater_protocol::error::in_one_line;
use headwater_protocol::update::Bundle;
use headwater_protocol::{Code, Fault};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, RANGE};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::time::timeout;

use crate::files;
use crate::jitter::jitter;
use crate::media::Media;

/// Written at once; small writes wear flash.
const BUFFER: usize = 256 * 1024;
/// Made to last at least so often: a power cut costs no more.
const SYNC_EVERY: u64 = 16 * 1024 * 1024;
/// Between two reports of progress.
const BEAT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A gateway that is away for long is asked this often; a thousand nodes wait for it.
const MAX_PAUSE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) enum FetchError {
    /// All bytes came, and they are others.
    Wrong,
    /// It makes no sense to go on.
    Fault(Fault),
}

/// Why a connection brought no more.
#[derive(Debug)]
enum Cut {
    /// It may go on.
    Transport(String),
    Final(Fault),
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Cut::Final(Fault::new(Code::Storage, format!("the bundle cannot be written: {error}")))
    }
}

/// The bundle's own file, once it is whole.
pub(crate) fn whole(folder: &Path, bundle: &Bundle) -> PathBuf {
    folder.join(&bundle.sha256)
}

/// Goes on where an earlier fetch was cut, until all is there. `reserve`: bytes that stay free on the file system.
pub(crate) async fn fetch(
    media: &Media,
    folder: &Path,
    bundle: &Bundle,
    reserve: u64,
    progress: impl Fn(u64),
) -> Result<(), FetchError> {
    let target = whole(folder, bundle);
    if target.exists() {
        return Ok(());
    }
    let part = target.with_extension("part");
    let storage = |error| match Cut::from(error) {
        Cut::Final(fault) => FetchError::Fault(fault),
        Cut::Transport(text) => FetchError::Fault(Fault::new(Code::FetchFailed, text)),
    };
    files::private_folder(folder).map_err(storage)?;
    let mut failures = 0;
    loop {
        let before = length(&part);
        if before == bundle.bytes {
            break;
        }
        room(folder, bundle.bytes.saturating_sub(before), reserve)?;
        match go_on(media, &part, bundle, &progress).await {
            Ok(()) => {}
            Err(Cut::Final(fault)) => return Err(FetchError::Fault(fault)),
            Err(Cut::Transport(why)) => {
                failures = if length(&part) > before { 0 } else { failures + 1 };
                let pause = jitter(MAX_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(failures)));
                tracing::warn!(reason = why, at = length(&part), retry_in = ?pause, "the bundle's transfer was cut");
                tokio::time::sleep(pause).await;
            }
        }
    }
    let (path, expected) = (part.clone(), bundle.sha256.clone());
    let digest = tokio::task::spawn_blocking(move || files::sha256(&path)).await;
    let digest = digest.map_err(io::Error::other).and_then(|digest| digest).map_err(storage)?;
    if digest != expected {
        tracing::error!(%digest, expected, "the bundle has come whole and is another");
        return Err(FetchError::Wrong);
    }
    fs::rename(&part, &target).and_then(|()| files::sync_parent(&target)).map_err(storage)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

fn room(folder: &Path, wanted: u64, reserve: u64) -> Result<(), FetchError> {
    let free = nix::sys::statvfs::statvfs(folder).map_or(u64::MAX, |at| {
        // Both are 32 bits wide on some boards.
        #[allow(clippy::useless_conversion, reason = "not on all of them")]
        u64::from(at.blocks_available()).saturating_mul(u64::from(at.fragment_size()))
    });
    if free < wanted.saturating_add(reserve) {
        let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
        let text = format!(
            "{} MiB are free, the bundle needs {} MiB and {} MiB must stay free; make room and order it again",
            mib(free),
            mib(wanted),
            mib(reserve)
        );
        return Err(FetchError::Fault(Fault::new(Code::Storage, text)));
    }
    Ok(())
}

/// One connection's worth.
async fn go_on(media: &Media, part: &Path, bundle: &Bundle, progress: &impl Fn(u64)) -> Result<(), Cut> {
    let mut at = length(part);
    if at > bundle.bytes {
        fs::remove_file(part)?;
        at = 0;
    }
    let silent = |_| Cut::Transport("the gateway said nothing".to_owned());
    let request = media.get(&bundle.path).header(RANGE, format!("bytes={at}-"));
    let response = timeout(media.silence(), request.send()).await.map_err(silent)?;
    let mut response = response.map_err(|error| Cut::Transport(in_one_line(&error)))?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            if !range.is_some_and(|range| range.starts_with(&format!("bytes {at}-"))) {
                return Err(Cut::Transport(format!("the gateway sent range {range:?} for {at}-")));
            }
        }
        // All of it, from its start.
        StatusCode::OK => at = 0,
        StatusCode::RANGE_NOT_SATISFIABLE => {
            fs::remove_file(part)?;
            return Err(Cut::Transport("the gateway's file is shorter than the order says".to_owned()));
        }
        status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            let text = format!("the gateway answered {status} for the bundle");
            return Err(Cut::Final(Fault::new(Code::FetchFailed, text)));
        }
        status => return Err(Cut::Transport(format!("the gateway answered {status}"))),
    }
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(at == 0).mode(0o600).open(part).await?;
    tokio::io::AsyncSeekExt::seek(&mut file, io::SeekFrom::Start(at)).await?;
    let mut file = BufWriter::with_capacity(BUFFER, file);
    let (mut said, mut synced) = (Instant::now(), at);
    let result = loop {
        let chunk = match timeout(media.silence(), response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) if at == bundle.bytes => break Ok(()),
            Ok(Ok(None)) => break Err(Cut::Transport(format!("the answer ended at {at}"))),
            Ok(Err(error)) => break Err(Cut::Transport(in_one_line(&error))),
            Err(late) => break Err(silent(late)),
        };
        at += chunk.len() as u64;
        if at > bundle.bytes {
            let text = format!("the gateway sends more than the {} bytes of the order", bundle.bytes);
            return Err(Cut::Final(Fault::new(Code::BadBundle, text)));
        }
        file.write_all(&chunk).await?;
        if at - synced >= SYNC_EVERY {
            file.flush().await?;
            file.get_ref().sync_data().await?;
            synced = at;
        }
        if said.elapsed() >= BEAT {
            said = Instant::now();
            progress(at);
        }
    };
    file.flush().await?;
    file.get_ref().sync_all().await?;
    result
}
