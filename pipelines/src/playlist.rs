//! HLS playlists of a folder of renditions.

use std::fmt::Write;
use std::io;
use std::path::Path;

use headwater_protocol::{Container, Ladder, Millis};

use crate::transcode::RenditionTotal;

/// One segment of a rendition.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub number: u64,
    pub duration: Millis,
}

/// `index.m3u8` in each rendition's folder and `master.m3u8` above them, for those in MPEG-TS.
pub fn write(
    folder: &Path,
    ladder: &Ladder,
    totals: &[RenditionTotal],
    pieces: &[Vec<Piece>],
) -> io::Result<()> {
    let mut master = String::from("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let mut any = false;
    for ((wanted, total), pieces) in ladder.renditions().iter().zip(totals).zip(pieces) {
        if wanted.container != Container::Ts {
            continue;
        }
        any = true;
        std::fs::write(folder.join(wanted.name.as_str()).join("index.m3u8"), media(pieces))?;
        // Writing to a string cannot fail.
        let _ = write!(
            master,
            "#EXT-X-STREAM-INF:BANDWIDTH={},RESOLUTION={}x{}\n{}/index.m3u8\n",
            peak(total),
            total.width,
            total.height,
            wanted.name
        );
    }
    if any { std::fs::write(folder.join("master.m3u8"), master) } else { Ok(()) }
}

/// Room for the peaks of a one-second buffer.
fn peak(total: &RenditionTotal) -> u64 {
    (total.bits_per_second + total.bits_per_second / 4).max(1)
}

fn media(pieces: &[Piece]) -> String {
    let longest = pieces.iter().map(|piece| piece.duration.0).max().unwrap_or_default();
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-PLAYLIST-TYPE:VOD\n",
        longest.div_ceil(1000).max(1),
        pieces.first().map_or(0, |piece| piece.number),
    );
    for piece in pieces {
        // Writing to a string cannot fail.
        let _ = write!(text, "#EXTINF:{:.3},\n{}.ts\n", piece.duration.0 as f64 / 1000.0, piece.number);
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}
