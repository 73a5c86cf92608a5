//! Looks into the first bytes of a rendition, just enough for a playlist: which codecs are inside a transport
//! stream, and where a fragmented MP4's header ends.

/// What is kept of a file's start to look at: the first audio may come behind a large keyframe.
pub(crate) const HEAD: usize = 512 * 1024;

const PACKET: usize = 188;

/// Bytes in front of the first fragment, or None where none was found.
pub(crate) fn mp4_init_length(head: &[u8]) -> Option<u64> {
    let mut at = 0_usize;
    let mut has_moov = false;
    loop {
        let header = head.get(at..at + 8)?;
        let (length, kind) = header.split_at(4);
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        match kind {
            b"styp" | b"sidx" | b"moof" | b"emsg" | b"prft" => return has_moov.then_some(at as u64),
            b"moov" => has_moov = true,
            _ => {}
        }
        // 0 and 1 mean lengths that no header box has.
        if length < 8 {
            return None;
        }
        at = at.checked_add(length)?;
    }
}

/// RFC 6381 names of all streams in a transport stream, or None where one of them is not understood.
pub(crate) fn ts_codecs(head: &[u8]) -> Option<String> {
    let pmt_pid = program_map_pid(&first_payload(head, 0)?)?;
    let streams = program_streams(&first_payload(head, pmt_pid)?)?;
    let mut names = Vec::new();
    for (kind, pid) in streams {
        let payload = first_payload(head, pid)?;
        let name = match kind {
            0x1b => avc_name(&payload)?,
            0x0f => aac_name(&payload)?,
            0x03 | 0x04 => "mp4a.40.34".to_owned(),
            0x81 => "ac-3".to_owned(),
            _ => return None,
        };
        names.push(name);
    }
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| names.join(","))
}

/// What follows the first unit start on a PID, over as many packets as there are up to the next start.
fn first_payload(head: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut payload: Option<Vec<u8>> = None;
    for packet in head.chunks_exact(PACKET) {
        let &[0x47, b1, b2, b3, ..] = packet else { return None };
        let (start, pid) = (b1 & 0x40 != 0, u16::from(b1 & 0x1f) << 8 | u16::from(b2));
        if pid != wanted {
            continue;
        }
        let begin = match b3 & 0x30 {
            0x10 => 4,
            0x30 => 5 + usize::from(packet[4]),
            _ => continue,
        };
        let bytes = packet.get(begin..)?;
        match &mut payload {
            Some(_) if start => break,
            Some(payload) => payload.extend_from_slice(bytes),
            None if start => payload = Some(bytes.to_vec()),
            None => {}
        }
    }
    payload
}

/// A table section behind its pointer field, without its checksum.
fn section(payload: &[u8], table: u8) -> Option<&[u8]> {
    let section = payload.get(1 + usize::from(*payload.first()?)..)?;
    let &[id, high, low, ..] = section else { return None };
    let length = usize::from(high & 0x0f) << 8 | usize::from(low);
    if id != table || length < 9 {
        return None;
    }
    section.get(3..3 + length - 4)
}

fn program_map_pid(payload: &[u8]) -> Option<u16> {
    let programs = section(payload, 0)?.get(5..)?;
    let program = programs.chunks_exact(4).find(|entry| entry[..2] != [0, 0])?;
    Some(u16::from(program[2] & 0x1f) << 8 | u16::from(program[3]))
}

fn program_streams(payload: &[u8]) -> Option<Vec<(u8, u16)>> {
    let section = section(payload, 2)?;
    let skip = usize::from(section.get(7)? & 0x0f) << 8 | usize::from(*section.get(8)?);
    let mut rest = section.get(9 + skip..)?;
    let mut streams = Vec::new();
    while let &[kind, p1, p2, l1, l2, ..] = rest {
        streams.push((kind, u16::from(p1 & 0x1f) << 8 | u16::from(p2)));
        rest = rest.get(5 + (usize::from(l1 & 0x0f) << 8 | usize::from(l2))..)?;
    }
    Some(streams)
}

/// `avc1.PPCCLL` of the first sequence parameter set.
fn avc_name(pes: &[u8]) -> Option<String> {
    let at = pes.windows(4).position(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 7)?;
    let bytes = pes.get(at + 4..at + 7)?;
    Some(format!("avc1.{:02x}{:02x}{:02x}", bytes[0], bytes[1], bytes[2]))
}

/// `mp4a.40.N` of the first ADTS header.
fn aac_name(pes: &[u8]) -> Option<String> {
    let data = pes.get(9 + usize::from(*pes.get(8)?)..)?;
    let &[0xff, sync, profile, ..] = data else { return None };
    (sync & 0xf6 == 0xf0).then(|| format!("mp4a.40.{}", (profile >> 6) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pid: u16, payload: &[u8]) -> Vec<u8> {
        let stuffing = PACKET - 4 - payload.len();
        let mut bytes = vec![0x47, 0x40 | (pid >> 8) as u8, pid as u8];
        if stuffing == 0 {
            bytes.push(0x10);
        } else {
            bytes.push(0x30);
            bytes.push((stuffing - 1) as u8);
            bytes.resize(4 + stuffing, 0xff);
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    fn stream(kind: u8) -> Vec<u8> {
        let pat = [0, 0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe0, 0x20, 9, 9, 9, 9];
        let pmt = [
            &[0, 2, 0xb0, 23, 0, 1, 0xc1, 0, 0, 0xe0, 0x41, 0xf0, 0][..],
            &[kind, 0xe0, 0x41, 0xf0, 0, 0x0f, 0xe0, 0x42, 0xf0, 0, 9, 9, 9, 9],
        ]
        .concat();
        let video =
            [0, 0, 1, 0xe0, 0, 0, 0x80, 0, 0, 0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x67, 0x64, 0, 0x1f, 1];
        let audio = [0, 0, 1, 0xc0, 0, 0, 0x80, 0, 0, 0xff, 0xf1, 0x50, 0x80];
        [packet(0, &pat), packet(0x20, &pmt), packet(0x41, &video), packet(0x42, &audio)].concat()
    }

    #[test]
    fn the_codecs_of_a_transport_stream_are_named_only_where_all_are_sure() {
        assert_eq!(ts_codecs(&stream(0x1b)).as_deref(), Some("avc1.64001f,mp4a.40.2"));
        assert_eq!(ts_codecs(&stream(0x06)), None);
        assert_eq!(ts_codecs(b"not a transport stream"), None);
        let whole = stream(0x1b);
        for end in 0..whole.len() {
            ts_codecs(&whole[..end]);
        }
    }

    #[test]
    fn an_mp4_header_ends_where_the_first_fragment_starts() {
        let atom = |kind: &[u8], length: u32| {
            let mut bytes = [&length.to_be_bytes(), kind].concat();
            bytes.resize(length as usize, 0);
            bytes
        };
        let file = [atom(b"ftyp", 24), atom(b"moov", 100), atom(b"moof", 40), atom(b"mdat", 20)].concat();
        assert_eq!(mp4_init_length(&file), Some(124));
        assert_eq!(mp4_init_length(&file[24 + 100..]), None);
        assert_eq!(mp4_init_length(&file[..60]), None);
        assert_eq!(mp4_init_length(&[0; 64]), None);
    }
}
