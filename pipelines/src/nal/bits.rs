//! The payload of a NAL unit, bit by bit.

use memchr::memmem;

/// Removes emulation prevention: 00 00 03 becomes 00 00.
pub(crate) fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut rest = nal;
    while let Some(at) = memmem::find(rest, b"\0\0\x03") {
        out.extend_from_slice(&rest[..at + 2]);
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    out
}

/// Reads bits from the most significant on.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        let byte = *self.data.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// At most 32 bits.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    pub(crate) fn skip(&mut self, count: u32) -> Option<()> {
        self.at = self.at.checked_add(count as usize)?;
        (self.at <= self.data.len() * 8).then_some(())
    }

    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }

    pub(crate) fn se(&mut self) -> Option<i32> {
        let value = i64::from(self.ue()?);
        i32::try_from(if value % 2 == 1 { (value + 1) / 2 } else { -value / 2 }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_prevention_is_removed() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [1, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn golomb_codes_are_read_and_endless_zeros_refused() {
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0000]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue(), bits.ue()], [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(Bits::new(&[0; 9]).ue(), None);
    }
}
