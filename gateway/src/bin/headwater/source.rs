//! Makes a file of what the user named: a path as it is, a URL or standard input by way of a temporary file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_protocol::error::in_one_line;
use tokio::io::AsyncReadExt;
use url::Url;

use crate::human;
use crate::progress::Progress;

/// Longest silence of a server; the whole download has no deadline, its size has a limit.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot read {}: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{} is not a file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    #[error("cannot download {url}: {text}")]
    Download { url: String, text: String },
    #[error("the input is larger than {}; --max-size allows more", human::bytes(*.limit))]
    TooLarge { limit: u64 },
    #[error("standard input has no bytes")]
    EmptyInput,
    #[error("cannot write a temporary file: {0}")]
    Temporary(std::io::Error),
    #[error("cannot read standard input: {0}")]
    Stdin(std::io::Error),
}

/// A readable file, and a name to call the stream by. A temporary one goes away with this value.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    /// For people, without secrets.
    pub(crate) shown: String,
    pub(crate) name: String,
    temporary: Option<Temporary>,
}

impl Source {
    pub(crate) fn path(&self) -> &Path {
        self.temporary.as_ref().map_or(&self.path, |file| &file.path)
    }
}

/// Removed when dropped, so also when a download is interrupted.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: std::fs::File,
}

impl Temporary {
    fn create() -> std::io::Result<Self> {
        let folder = std::env::temp_dir();
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let path = folder.join(format!("headwater-{:016x}", u64::from_ne_bytes(random)));
        // `create_new` never follows a link that somebody put there first.
        let file = std::fs::File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(crate) async fn open(input: &str, limit: u64, progress: &Progress) -> Result<Source, SourceError> {
    if input == "-" {
        return from_stdin(limit, progress).await;
    }
    match Url::parse(input) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => download(url, limit, progress).await,
        Ok(_) | Err(_) => {
            let path = PathBuf::from(input);
            let error = |source| SourceError::Open { path: path.clone(), source };
            let facts = std::fs::metadata(&path).map_err(error)?;
            if !facts.is_file() {
                return Err(SourceError::NotAFile { path });
            }
            if facts.len() == 0 {
                return Err(SourceError::Empty { path });
            }
            std::fs::File::open(&path).map_err(error)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Source { shown: input.to_owned(), path, name, temporary: None })
        }
    }
}

async fn from_stdin(limit: u64, progress: &Progress) -> Result<Source, SourceError> {
    let mut sink = Sink::new(limit, None, progress)?;
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match stdin.read(&mut chunk).await.map_err(SourceError::Stdin)? {
            0 => break,
            length => sink.write(&chunk[..length])?,
        }
    }
    if sink.written == 0 {
        return Err(SourceError::EmptyInput);
    }
    Ok(sink.source("standard input".to_owned(), "stdin".to_owned()))
}

async fn download(url: Url, limit: u64, progress: &Progress) -> Result<Source, SourceError> {
    // A URL may hold a password or a signature: errors show it without both.
    let shown = shown(&url);
    let error = |text: String| SourceError::Download { url: shown.clone(), text };
    let http = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(SILENCE)
        .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| error(in_one_line(&e)))?;
    let name = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let name = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut response = http.get(url).send().await.map_err(|e| error(in_one_line(&e.without_url())))?;
    if !response.status().is_success() {
        return Err(error(format!("the server answers {}", response.status())));
    }
    let length = response.content_length();
    if length.is_some_and(|length| length > limit) {
        return Err(SourceError::TooLarge { limit });
    }
    let mut sink = Sink::new(limit, length, progress)?;
    while let Some(chunk) = response.chunk().await.map_err(|e| error(in_one_line(&e.without_url())))? {
        sink.write(&chunk)?;
    }
    if sink.written == 0 {
        return Err(error("it is empty".to_owned()));
    }
    Ok(sink.source(shown, name))
}

fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// A temporary file that does not grow past a limit.
struct Sink<'a> {
    file: Temporary,
    written: u64,
    limit: u64,
    expected: Option<u64>,
    progress: &'a Progress,
}

impl<'a> Sink<'a> {
    fn new(limit: u64, expected: Option<u64>, progress: &'a Progress) -> Result<Self, SourceError> {
        let file = Temporary::create().map_err(SourceError::Temporary)?;
        Ok(Self { file, written: 0, limit, expected, progress })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.written += bytes.len() as u64;
        if self.written > self.limit {
            return Err(SourceError::TooLarge { limit: self.limit });
        }
        self.file.file.write_all(bytes).map_err(SourceError::Temporary)?;
        self.progress.reading(self.written, self.expected);
        Ok(())
    }

    fn source(self, shown: String, name: String) -> Source {
        Source { path: self.file.path.clone(), shown, name, temporary: Some(self.file) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_file_with_bytes_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.mp4");
        std::fs::write(&empty, "").unwrap();
        let quiet = Progress::none();
        let text =
            async |input: &Path| open(input.to_str().unwrap(), 10, &quiet).await.unwrap_err().to_string();
        assert!(text(Path::new("/nowhere/a.mp4")).await.contains("cannot read /nowhere/a.mp4"));
        assert!(text(folder.path()).await.contains("is not a file"));
        assert!(text(&empty).await.contains("is empty"));
    }

    #[test]
    fn a_temporary_file_is_bounded_and_goes_away() {
        let quiet = Progress::none();
        let mut sink = Sink::new(5, None, &quiet).unwrap();
        let path = sink.file.path.clone();
        sink.write(b"1234").unwrap();
        assert!(matches!(sink.write(b"56"), Err(SourceError::TooLarge { limit: 5 })));
        assert!(path.exists());
        drop(sink);
        assert!(!path.exists());
    }

    #[test]
    fn a_shown_url_has_no_password_and_no_signature() {
        let url = Url::parse("https://me:secret@example.org/a/b.mp4?sig=secret").unwrap();
        assert_eq!(shown(&url), "https://example.org/a/b.mp4");
    }
}
