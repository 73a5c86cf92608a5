//! ISO base media boxes, walked without trust: what does not fit into its parent ends the walk.

/// Type and content of each box in `data`.
pub(super) fn boxes(data: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let head = Head::parse(rest)?;
        let end = head.size.map_or(rest.len(), |size| usize::try_from(size).unwrap_or(usize::MAX));
        // The last box of a file that was cut off is as long as what there is.
        let body = rest.get(head.len..end.min(rest.len()))?;
        rest = rest.get(end..).unwrap_or_default();
        Some((head.kind, body))
    })
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: [u8; 4],
    /// Bytes of the header.
    pub(super) len: usize,
    /// Bytes with the header; None goes to the end of the file.
    pub(super) size: Option<u64>,
}

impl Head {
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let kind = *data.get(4..8)?.first_chunk()?;
        let (len, size) = match u32_at(data, 0)? {
            0 => (8, None),
            1 => (16, Some(u64_at(data, 8)?)),
            size => (8, Some(u64::from(size))),
        };
        size.is_none_or(|s| s >= len as u64).then_some(Self { kind, len, size })
    }
}

/// The first box of a kind.
pub(super) fn find<'a>(data: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(data).find(|(k, _)| k == kind).map(|(_, body)| body)
}

/// Down a path of boxes.
pub(super) fn dig<'a>(data: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(data, |data, kind| find(data, kind))
}

pub(super) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// Entries of a table whose count stands before them, as far as they are there.
pub(super) fn table<const N: usize>(data: &[u8], count_at: usize) -> impl Iterator<Item = &[u8; N]> {
    let count = u32_at(data, count_at).unwrap_or(0) as usize;
    let entries = data.get(count_at + 4..).unwrap_or_default();
    entries.as_chunks::<N>().0.iter().take(count)
}
