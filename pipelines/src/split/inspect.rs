//! A look at a file: enough for a progress bar.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use headwater_protocol::{Container, Fault, Millis};

use super::{SplitError, open, read_error, to_millis};
use crate::demux::Demuxer;
use crate::demux::mp4::{FileSource, Movie};
use crate::es::{Item, Tracks};

/// What can be told of a file without reading all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    pub container: Container,
    pub bytes: u64,
    /// None where the end of a transport stream has no timestamps.
    pub duration: Option<Millis>,
    pub tracks: Tracks,
}

/// Looks at the ends of a file, or at its index.
pub fn inspect(path: &Path) -> Result<Inspection, Fault> {
    Ok(inspect_file(path)?)
}

fn inspect_file(path: &Path) -> Result<Inspection, SplitError> {
    const ENDS: u64 = 4 << 20;
    let (mut file, container) = open(path)?;
    let failed = |error| read_error(path, error);
    let bytes = file.metadata().map_err(failed)?.len();
    let times = |items: &[Item]| {
        let times: Vec<i64> = items
            .iter()
            .filter_map(|item| match item {
                Item::Video(frame) => Some(frame.pts.0),
                Item::Tracks(_) | Item::Audio(_) => None,
            })
            .collect();
        Some((times.iter().copied().min()?, times.iter().copied().max()?))
    };
    let (tracks, span) = match container {
        Container::Mp4 => {
            let movie = Movie::open(&FileSource::new(file).map_err(failed)?).map_err(Fault::from)?;
            (movie.tracks().clone(), movie.span())
        }
        Container::Jpeg => return Err(SplitError::NoVideo { path: path.to_owned() }),
        Container::Ts => {
            let mut ends = Vec::new();
            for from in [0, bytes.saturating_sub(ENDS)] {
                file.seek(SeekFrom::Start(from)).map_err(failed)?;
                let mut data = Vec::new();
                file.by_ref().take(ENDS).read_to_end(&mut data).map_err(failed)?;
                let mut demuxer = Demuxer::without_limit(container);
                let mut items = Vec::new();
                let result = demuxer.push(data.into(), &mut items).and_then(|()| demuxer.finish(&mut items));
                // The last bytes may lack a table; the first must be right.
                if from == 0 {
                    result?;
                }
                ends.push(items);
            }
            let tracks = ends[0].iter().find_map(|item| match item {
                Item::Tracks(tracks) => Some(tracks.clone()),
                Item::Video(_) | Item::Audio(_) => None,
            });
            let span = times(&ends[0])
                .zip(times(&ends[1]))
                .map(|((first, _), (_, last))| (last - first).rem_euclid(1 << 33));
            (tracks.unwrap_or_default(), span)
        }
    };
    Ok(Inspection { container, bytes, duration: span.map(|ticks| Millis(to_millis(ticks))), tracks })
}
