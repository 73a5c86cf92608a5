//! HLS playlists of what came back, as text.
//!
//! ```text
//! master.m3u8 ─▶ 720p/index.m3u8 ─▶ 720p/0.ts, 720p/1.ts, …
//!             └▶ 480p/index.m3u8 ─▶ …
//! ```

use std::fmt::Write;

use headwater_protocol::{Container, Millis, RenditionName};

/// One file of a rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) duration: Millis,
    pub(crate) bytes: u64,
    /// Length of a fragmented MP4's own header, in front of its first fragment.
    pub(crate) init_bytes: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Variant {
    pub(crate) name: RenditionName,
    pub(crate) container: Container,
    /// As produced; None where nobody said.
    pub(crate) size: Option<(u32, u32)>,
    pub(crate) fps: Option<f64>,
    /// RFC 6381; None where it is not sure for every stream inside.
    pub(crate) codecs: Option<String>,
    pub(crate) entries: Vec<Entry>,
}

impl Variant {
    /// Is it in the playlists? Pictures are not, and what never came.
    pub(crate) fn plays(&self) -> bool {
        self.container != Container::Jpeg && !self.entries.is_empty()
    }

    /// Peak over the segments, and average, in bit/s.
    pub(crate) fn bandwidth(&self) -> (u64, u64) {
        let rate = |bytes: u64, ms: u64| (bytes * 8 * 1000).div_ceil(ms.max(1));
        let peak = self.entries.iter().map(|e| rate(e.bytes, e.duration.0)).max().unwrap_or(0);
        let bytes = self.entries.iter().map(|e| e.bytes).sum();
        let ms = self.entries.iter().map(|e| e.duration.0).sum();
        (peak, rate(bytes, ms))
    }

    pub(crate) fn media_playlist(&self) -> String {
        let target = self.entries.iter().map(|e| e.duration.0.div_ceil(1000)).max().unwrap_or(0).max(1);
        let version = match self.container {
            Container::Ts | Container::Jpeg => 6,
            Container::Mp4 => 7,
        };
        let first = self.entries.first().map_or(0, |e| e.number);
        let mut text = format!(
            "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:{first}\n\
             #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n"
        );
        let mut expected = first;
        for Entry { number, duration, bytes, init_bytes } in &self.entries {
            let file = format!("{number}.{}", self.container.extension());
            // A lost segment leaves a hole in the timestamps.
            if *number != expected {
                text.push_str("#EXT-X-DISCONTINUITY\n");
            }
            expected = number + 1;
            // Each file is whole by itself, so each is its own map.
            if let Some(init) = init_bytes {
                let _ = writeln!(text, "#EXT-X-MAP:URI=\"{file}\",BYTERANGE=\"{init}@0\"");
            }
            let _ = writeln!(text, "#EXTINF:{}.{:03},", duration.0 / 1000, duration.0 % 1000);
            if let Some(init) = init_bytes {
                let _ = writeln!(text, "#EXT-X-BYTERANGE:{}@{init}", bytes.saturating_sub(*init));
            }
            let _ = writeln!(text, "{file}");
        }
        text.push_str("#EXT-X-ENDLIST\n");
        text
    }
}

/// Highest first, as they came in the ladder.
pub(crate) fn master_playlist(variants: &[Variant]) -> String {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n".to_owned();
    for variant in variants.iter().filter(|variant| variant.plays()) {
        let (peak, average) = variant.bandwidth();
        let _ = write!(text, "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}");
        if let Some((width, height)) = variant.size {
            let _ = write!(text, ",RESOLUTION={width}x{height}");
        }
        if let Some(fps) = variant.fps {
            let _ = write!(text, ",FRAME-RATE={fps:.3}");
        }
        if let Some(codecs) = &variant.codecs {
            let _ = write!(text, ",CODECS=\"{codecs}\"");
        }
        let _ = writeln!(text, "\n{}/index.m3u8", variant.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(container: Container) -> Variant {
        let entry =
            |number, duration, bytes| Entry { number, duration: Millis(duration), bytes, init_bytes: None };
        Variant {
            name: RenditionName::new("720p").unwrap(),
            container,
            size: Some((1280, 720)),
            fps: Some(30_000.0 / 1001.0),
            codecs: Some("avc1.64001f".to_owned()),
            entries: vec![entry(0, 2002, 500_000), entry(1, 2002, 800_000), entry(2, 1001, 100_000)],
        }
    }

    #[test]
    fn a_media_playlist_has_the_exact_durations_and_an_end() {
        assert_eq!(
            variant(Container::Ts).media_playlist(),
            "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n\
             #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXTINF:2.002,\n0.ts\n#EXTINF:2.002,\n1.ts\n#EXTINF:1.001,\n2.ts\n#EXT-X-ENDLIST\n"
        );
    }

    #[test]
    fn a_master_playlist_has_the_measured_peak_and_leaves_out_what_is_not_known() {
        let mut variants = [variant(Container::Ts), variant(Container::Ts)];
        (variants[1].size, variants[1].fps, variants[1].codecs) = (None, None, None);
        let lines = master_playlist(&variants);
        assert!(lines.contains(
            "BANDWIDTH=3196804,AVERAGE-BANDWIDTH=2237763,RESOLUTION=1280x720,FRAME-RATE=29.970,CODECS=\"avc1.64001f\"\n720p/index.m3u8\n"
        ), "{lines}");
        assert!(lines.ends_with("AVERAGE-BANDWIDTH=2237763\n720p/index.m3u8\n"));
    }

    #[test]
    fn a_fragmented_mp4_is_its_own_map_and_a_hole_is_a_discontinuity() {
        let mut variant = variant(Container::Mp4);
        variant.entries.remove(1);
        variant.entries[1].init_bytes = Some(700);
        let text = variant.media_playlist();
        assert!(text.contains(
            "#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"2.mp4\",BYTERANGE=\"700@0\"\n#EXTINF:1.001,\n#EXT-X-BYTERANGE:99300@700\n2.mp4\n"
        ), "{text}");
    }
}
