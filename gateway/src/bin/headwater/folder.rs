//! The folder of `--out`: files appear in it whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use headwater_protocol::{Container, Ladder, RenditionName};

use crate::playlist::{self, Variant};

#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}: {source}", path.display())]
pub(crate) struct FolderError {
    verb: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

fn error<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> FolderError + 'a {
    move |source| FolderError { verb, path: path.to_owned(), source }
}

#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folders and takes away what an earlier push left under the same names: a playlist never
    /// mixes two pushes.
    pub(crate) fn prepare(path: &Path, ladder: &Ladder) -> Result<Self, FolderError> {
        let folder = Self { path: path.to_owned() };
        for rendition in ladder.renditions() {
            let dir = folder.path.join(rendition.name.as_str());
            std::fs::create_dir_all(&dir).map_err(error("make the folder", &dir))?;
            for entry in std::fs::read_dir(&dir).map_err(error("read", &dir))?.flatten() {
                if entry.file_name().to_str().is_some_and(is_ours) {
                    let path = entry.path();
                    std::fs::remove_file(&path).map_err(error("remove the old", &path))?;
                }
            }
        }
        match std::fs::remove_file(folder.master()) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(error("remove the old", &folder.master())(source))
            }
            Ok(()) | Err(_) => Ok(folder),
        }
    }

    pub(crate) fn master(&self) -> PathBuf {
        self.path.join("master.m3u8")
    }

    pub(crate) fn segment(
        &self,
        rendition: &RenditionName,
        number: u64,
        container: Container,
    ) -> Result<NewFile, FolderError> {
        NewFile::create(
            self.path.join(rendition.as_str()).join(format!("{number}.{}", container.extension())),
        )
    }

    /// Media playlists first: the master never names one that is not there.
    pub(crate) fn write_playlists(&self, variants: &[Variant]) -> Result<(), FolderError> {
        for variant in variants.iter().filter(|variant| variant.plays()) {
            let path = self.path.join(variant.name.as_str()).join("index.m3u8");
            write(path, &variant.media_playlist())?;
        }
        write(self.master(), &playlist::master_playlist(variants))
    }
}

/// `12.ts`, `12.mp4`, `12.ts.part`, `index.m3u8`: what a push writes, and nothing else in the folder.
fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".part").unwrap_or(name);
    name == "index.m3u8"
        || name.split_once('.').is_some_and(|(number, extension)| {
            !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
                && matches!(extension, "ts" | "mp4" | "jpg")
        })
}

fn write(path: PathBuf, text: &str) -> Result<(), FolderError> {
    let mut file = NewFile::create(path)?;
    file.write(text.as_bytes())?;
    file.finish()
}

/// A file under a name of its own until it is whole; dropped before, it is gone.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    whole: bool,
}

impl NewFile {
    fn create(path: PathBuf) -> Result<Self, FolderError> {
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(error("write", &part))?;
        Ok(Self { path, part, file: BufWriter::with_capacity(128 * 1024, file), whole: false })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FolderError> {
        self.file.write_all(bytes).map_err(error("write", &self.part))
    }

    pub(crate) fn finish(mut self) -> Result<(), FolderError> {
        self.file.flush().map_err(error("write", &self.part))?;
        std::fs::rename(&self.part, &self.path).map_err(error("write", &self.path))?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.whole {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder;

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_half_written_file_is_gone_and_a_finished_one_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::prepare(root.path(), &ladder::parse(&["240p".to_owned()]).unwrap()).unwrap();
        let name = RenditionName::new("240p").unwrap();
        let mut half = folder.segment(&name, 0, Container::Ts).unwrap();
        half.write(b"abc").unwrap();
        let mut whole = folder.segment(&name, 1, Container::Ts).unwrap();
        whole.write(b"abc").unwrap();
        whole.finish().unwrap();
        drop(half);
        assert_eq!(files(&root.path().join("240p")), ["1.ts"]);
    }

    #[test]
    fn an_earlier_push_is_cleared_away_and_foreign_files_stay() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("240p");
        std::fs::create_dir(&dir).unwrap();
        for name in ["7.ts", "8.mp4", "9.ts.part", "index.m3u8", "notes.txt", "my.ts"] {
            std::fs::write(dir.join(name), "x").unwrap();
        }
        std::fs::write(root.path().join("master.m3u8"), "x").unwrap();
        Folder::prepare(root.path(), &ladder::parse(&["240p".to_owned()]).unwrap()).unwrap();
        assert_eq!(files(&dir), ["my.ts", "notes.txt"]);
        assert_eq!(files(root.path()), ["240p"]);
    }
}
