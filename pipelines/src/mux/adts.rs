//! AAC's two wrappings: frames with an ADTS header, and bare frames with an AudioSpecificConfig.

use bytes::Bytes;

pub(crate) const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// What headers of AAC say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aac {
    pub(crate) object_type: u8,
    pub(crate) rate_index: u8,
    pub(crate) channels: u8,
}

impl Aac {
    pub(crate) fn rate(self) -> u32 {
        RATES.get(usize::from(self.rate_index)).copied().unwrap_or(48_000)
    }

    pub(crate) fn config(self) -> [u8; 2] {
        [self.object_type << 3 | self.rate_index >> 1, (self.rate_index & 1) << 7 | self.channels << 3]
    }

    pub(crate) fn of_config(config: &[u8]) -> Option<Self> {
        let [a, b, ..] = *config else { return None };
        let aac = Self { object_type: a >> 3, rate_index: (a & 7) << 1 | b >> 7, channels: b >> 3 & 0x0f };
        // A rate written out and object types beyond 31 do not fit into ADTS.
        (usize::from(aac.rate_index) < RATES.len() && (1..31).contains(&aac.object_type)).then_some(aac)
    }
}

/// The header of a frame of `len` bytes. ADTS knows the first four object types; others (HE-AAC) are
/// extensions of low complexity and say so in the frame.
pub(crate) fn header(config: &[u8], len: usize) -> [u8; 7] {
    let aac = Aac::of_config(config).unwrap_or(Aac { object_type: 2, rate_index: 3, channels: 2 });
    let profile = if aac.object_type <= 4 { aac.object_type - 1 } else { 1 };
    let len = (len + 7) as u32 & 0x1fff;
    [
        0xff,
        0xf1,
        profile << 6 | aac.rate_index << 2 | aac.channels >> 2 & 1,
        (aac.channels & 3) << 6 | (len >> 11) as u8,
        (len >> 3) as u8,
        (len as u8 & 7) << 5 | 0x1f,
        0xfc,
    ]
}

/// One ADTS frame, without its header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AdtsFrame {
    pub(crate) aac: Aac,
    pub(crate) data: Bytes,
}

/// Takes whole frames off the front; leaves what is not whole.
pub(crate) fn frames(data: &mut Bytes) -> Vec<AdtsFrame> {
    let mut found = Vec::new();
    loop {
        // Damage: go on at the next sync word.
        let Some(at) = memchr::memchr(0xff, data) else {
            data.clear();
            return found;
        };
        let _ = data.split_to(at);
        if data.len() < 7 {
            return found;
        }
        let len = usize::from(data[3] & 3) << 11 | usize::from(data[4]) << 3 | usize::from(data[5] >> 5);
        let head = if data[1] & 1 == 1 { 7 } else { 9 };
        if data[1] & 0xf6 != 0xf0 || len < head {
            let _ = data.split_to(1);
            continue;
        }
        if data.len() < len {
            return found;
        }
        let aac = Aac {
            object_type: (data[2] >> 6) + 1,
            rate_index: data[2] >> 2 & 0x0f,
            channels: (data[2] & 1) << 2 | data[3] >> 6,
        };
        found.push(AdtsFrame { aac, data: data.split_to(len).slice(head..) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let aac = Aac { object_type: 2, rate_index: 4, channels: 2 };
        let one = [&header(&aac.config(), 3)[..], b"abc"].concat();
        let mut data = Bytes::from([&b"xx"[..], &one, &one, &one[..5]].concat());
        let found = frames(&mut data);
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].aac, &found[1].data[..]), (aac, &b"abc"[..]));
        assert_eq!(data.len(), 5);
        assert_eq!(Aac::of_config(&aac.config()), Some(aac));
        assert_eq!(aac.config(), [0x12, 0x10]);
    }
}
