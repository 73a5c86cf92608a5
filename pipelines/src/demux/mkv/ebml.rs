//! EBML, of which Matroska is made: elements with an id, a length and a content, walked without trust.

/// An element's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) id: u32,
    /// Bytes of the header.
    pub(super) len: usize,
    /// Bytes of the content; None where the file does not say.
    pub(super) size: Option<u64>,
}

impl Head {
    /// Longest header there is.
    pub(super) const MOST: usize = 12;

    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let first = *data.first()?;
        let id_len = first.leading_zeros() as usize + 1;
        if id_len > 4 {
            return None;
        }
        let id = data.get(..id_len)?.iter().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
        let (size, size_len) = number(data.get(id_len..)?)?;
        let unknown = size == (1 << (7 * size_len)) - 1;
        Some(Self { id, len: id_len + size_len, size: (!unknown).then_some(size) })
    }
}

/// A number of 1 to 8 bytes, its length told by the zeros in front.
pub(super) fn number(data: &[u8]) -> Option<(u64, usize)> {
    let first = *data.first()?;
    let len = first.leading_zeros() as usize + 1;
    let bytes = data.get(..len).filter(|_| len <= 8)?;
    let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    // The mark of the length is taken off.
    Some((value & !(1 << (7 * len)), len))
}

/// Id and content of each element in `data`; what does not fit ends the walk.
pub(super) fn elements(data: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let head = Head::parse(rest)?;
        let size = usize::try_from(head.size?).ok()?;
        let body = rest.get(head.len..head.len.checked_add(size)?)?;
        rest = &rest[head.len + size..];
        Some((head.id, body))
    })
}

pub(super) fn find(data: &[u8], id: u32) -> Option<&[u8]> {
    elements(data).find(|(found, _)| *found == id).map(|(_, body)| body)
}

pub(super) fn unsigned(body: &[u8]) -> u64 {
    body.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

pub(super) fn unsigned_in(data: &[u8], id: u32) -> Option<u64> {
    find(data, id).map(unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_their_own_length() {
        assert_eq!(number(&[0x81]), Some((1, 1)));
        assert_eq!(number(&[0x40, 0x02]), Some((2, 2)));
        assert_eq!(number(&[0x01, 0, 0, 0, 0, 0, 1, 0]), Some((256, 8)));
        assert_eq!(number(&[0]), None);
        assert_eq!(number(&[0x40]), None);
        let head = Head::parse(&[0x1f, 0x43, 0xb6, 0x75, 0xff]).unwrap();
        assert_eq!((head.id, head.len, head.size), (0x1f43_b675, 5, None));
    }
}
