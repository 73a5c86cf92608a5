//! What a file is, by its first bytes.

use headwater_protocol::Container;

use super::error::DemuxError;

/// Bytes that are enough to tell.
pub(crate) const ENOUGH: usize = 4096;

/// Bytes in a packet, without what some carriers put around it.
pub(crate) const PACKET: usize = 188;
pub(crate) const SYNC: u8 = 0x47;

/// Where transport packets lie: the first one's sync byte, and how far apart they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) offset: usize,
    pub(crate) stride: usize,
}

/// Looks for a row of sync bytes; a single packet at the very start is a row too.
pub(crate) fn find_grid(data: &[u8]) -> Option<Grid> {
    // In the Blu-ray form four bytes of time stand before each packet, in the DVB form 16 bytes of
    // Reed-Solomon code after.
    for at in memchr::memchr_iter(SYNC, data).take_while(|at| *at < ENOUGH) {
        for stride in [PACKET, 192, 204] {
            let row = (1..5).map_while(|k| data.get(at + k * stride));
            let (mut seen, mut good) = (0, 0);
            for byte in row {
                seen += 1;
                good += u32::from(*byte == SYNC);
            }
            let whole = data.len() >= at + PACKET;
            if good == seen && (seen >= 2 || (at == 0 && whole)) {
                return Some(Grid { offset: at, stride });
            }
        }
    }
    None
}

/// `all`: nothing follows `head`.
pub(crate) fn sniff(head: &[u8], all: bool) -> Result<Option<Container>, DemuxError> {
    if head.is_empty() {
        return if all { Err(DemuxError::Empty) } else { Ok(None) };
    }
    if head.len() >= 8 && is_mp4(&head[4..8]) {
        return Ok(Some(Container::Mp4));
    }
    // Read by an index of samples, as MP4 is.
    if head.starts_with(super::mkv::MAGIC) {
        return Ok(Some(Container::Mp4));
    }
    if head.len() < ENOUGH && !all {
        return Ok(None);
    }
    if find_grid(head).is_some() {
        return Ok(Some(Container::Ts));
    }
    Err(other(head))
}

fn is_mp4(kind: &[u8]) -> bool {
    [b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"pnot"]
        .iter()
        .any(|k| k.as_slice() == kind)
}

fn other(head: &[u8]) -> DemuxError {
    let known: [(&[u8], &'static str); 6] = [
        (b"FLV", "Flash video"),
        (b"OggS", "Ogg"),
        (b"RIFF", "AVI or WAV"),
        (b"#EXTM3U", "an HLS playlist"),
        (&[0, 0, 1, 0xba], "an MPEG program stream"),
        (&[0, 0, 0, 1], "a raw video stream without container"),
    ];
    if let Some((_, name)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return DemuxError::OtherContainer { name };
    }
    let text = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    let start = &head[..head.len().min(512)];
    // A character cut in two by the end of the look is still text.
    let valid = match std::str::from_utf8(start) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    if valid && start.iter().all(text) { DemuxError::Text } else { DemuxError::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_decides_and_not_what_it_is_called() {
        let ts: Vec<u8> = std::iter::repeat_n([&[SYNC][..], &[0xff; 187]].concat(), 30).flatten().collect();
        assert_eq!(sniff(&ts, false), Ok(Some(Container::Ts)));
        assert_eq!(sniff(&ts[..188], true), Ok(Some(Container::Ts)));
        assert_eq!(sniff(b"\0\0\0\x20ftypisom", false), Ok(Some(Container::Mp4)));
        assert_eq!(sniff(&ts[..100], false), Ok(None));
        assert_eq!(sniff(b"", true), Err(DemuxError::Empty));
        assert_eq!(sniff("Grüße von der GGGG Küste".as_bytes(), true), Err(DemuxError::Text));
        assert_eq!(sniff(&[1, 2, 3, 0xff], true), Err(DemuxError::Unknown));
        assert_eq!(sniff(&[0x1a, 0x45, 0xdf, 0xa3, 1], true), Ok(Some(Container::Mp4)));
        assert!(matches!(sniff(b"OggS", true), Err(DemuxError::OtherContainer { .. })));
    }

    #[test]
    fn packets_with_time_or_parity_around_them_are_found() {
        for (before, after) in [(0, 0), (4, 0), (0, 16)] {
            let packet = [&vec![1; before][..], &[SYNC], &[0xff; 187], &vec![2; after]].concat();
            let data: Vec<u8> = std::iter::repeat_n(packet, 10).flatten().collect();
            assert_eq!(find_grid(&data), Some(Grid { offset: before, stride: 188 + before + after }));
        }
    }
}
