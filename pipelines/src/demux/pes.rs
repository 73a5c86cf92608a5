//! The header of a PES packet, its clock of 33 bits, and which of its timestamps are damaged.

use crate::es::CLOCK;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes until the payload.
    pub(super) len: usize,
    pub(super) payload: Option<usize>,
    pub(super) pts: Option<u64>,
    pub(super) dts: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Header(Header),
    More,
    Bad,
}

pub(super) fn parse_header(data: &[u8]) -> Parsed {
    if data.len() < 9 {
        return Parsed::More;
    }
    if data[..3] != [0, 0, 1] || data[6] & 0xc0 != 0x80 {
        return Parsed::Bad;
    }
    let len = 9 + usize::from(data[8]);
    if data.len() < len {
        return Parsed::More;
    }
    let optional = &data[9..len];
    let pts = (data[7] & 0x80 != 0).then(|| timestamp(optional)).flatten();
    let dts = (data[7] & 0xc0 == 0xc0).then(|| timestamp(optional.get(5..)?)).flatten();
    let payload = match usize::from(data[4]) << 8 | usize::from(data[5]) {
        0 => None,
        packet => match (packet + 6).checked_sub(len) {
            Some(payload) => Some(payload),
            None => return Parsed::Bad,
        },
    };
    Parsed::Header(Header { len, payload, pts, dts })
}

/// 33 bits with a marker after each group.
fn timestamp(b: &[u8]) -> Option<u64> {
    let [a, b, c, d, e, ..] = *b else { return None };
    if a & c & e & 1 == 0 {
        return None;
    }
    let [a, b, c, d, e] = [a, b, c, d, e].map(u64::from);
    Some((a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
}

const WRAP: i64 = 1 << 33;

/// A timestamp lies no farther than this from the clock and from those around it.
const FAR: i64 = 10 * CLOCK;

/// Finds the damaged timestamps of a stream: those far from the clock reference and from the ones before. To be near one
/// of them is enough, for a whole stream's clock may be wrong or missing.
#[derive(Debug, Default)]
pub(super) struct Judge {
    sound: Option<u64>,
    /// Sound or not: where time jumps without a clock, the second stamp confirms the first.
    latest: Option<u64>,
}

impl Judge {
    pub(super) fn is_sound(&mut self, stamp: u64, clock: Option<u64>) -> bool {
        let others = [clock, self.sound, self.latest.replace(stamp)];
        // 33 bits: fits.
        let near = |other: u64| (stamp as i64 - other as i64 + FAR).rem_euclid(WRAP) <= 2 * FAR;
        // Nothing tells of the first whether it is wrong or the clock.
        let sound = self.sound.is_none() || others.into_iter().flatten().any(near);
        if sound {
            self.sound = Some(stamp);
        }
        sound
    }
}

/// Makes 33-bit timestamps into ones that go on over the wrap. The first one of all stays as it is.
#[derive(Debug, Default)]
pub(super) struct Unwrap {
    last: Option<i64>,
}

impl Unwrap {
    pub(super) fn unwrap(&mut self, stamp: u64) -> i64 {
        // 33 bits: fits.
        let stamp = stamp as i64;
        let value = match self.last {
            None => stamp,
            Some(last) => {
                let ahead = (stamp - last).rem_euclid(WRAP);
                if ahead < WRAP / 2 { last + ahead } else { last + ahead - WRAP }
            }
        };
        self.last = Some(value);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_go_on_over_the_wrap_in_both_directions() {
        let mut time = Unwrap::default();
        let near = (1 << 33) - 1000;
        assert_eq!(time.unwrap(near), near as i64);
        assert_eq!(time.unwrap(500), (1 << 33) + 500);
        assert_eq!(time.unwrap(near + 1), near as i64 + 1);
        let mut time = Unwrap::default();
        assert_eq!((time.unwrap(10), time.unwrap(near)), (10, -1000));
    }

    #[test]
    fn a_stamp_far_from_all_others_is_damaged() {
        const SECOND: u64 = 90_000;
        let damaged = |clocked: bool, seconds: &[u64]| {
            let mut judge = Judge::default();
            let judged = |second: &u64| judge.is_sound(second * SECOND, clocked.then_some(4 * SECOND));
            seconds.iter().map(judged).collect::<Vec<bool>>()
        };
        for clocked in [true, false] {
            assert_eq!(damaged(clocked, &[3, 4, 50, 5]), [true, true, false, true]);
            assert_eq!(damaged(clocked, &[3, 4, 500, 501, 502]), [true, true, false, true, true], "a jump");
            assert_eq!(damaged(clocked, &[300, 305, 310]), [true; 3], "only the clock says otherwise");
        }
        assert_eq!(damaged(true, &[300, 7, 8]), [true; 3], "the clock confirms a jump");
    }

    #[test]
    fn stamps_on_both_sides_of_the_wrap_are_near() {
        let mut judge = Judge::default();
        assert!(judge.is_sound((1 << 33) - 1000, None) && judge.is_sound(500, None));
        assert!(!judge.is_sound(1 << 32, None) && judge.is_sound((1 << 33) - 1, None));
    }

    #[test]
    fn a_pes_header_gives_its_times_and_length() {
        let head =
            [0, 0, 1, 0xe0, 0, 20, 0x80, 0xc0, 10, 0x31, 0, 7, 0xd8, 0x61, 0x11, 0, 7, 0xa6, 0x81, 0xaa];
        let wanted = Header { len: 19, payload: Some(7), pts: Some(126_000), dts: Some(119_616) };
        assert_eq!(parse_header(&head), Parsed::Header(wanted));
        assert_eq!(parse_header(&head[..18]), Parsed::More);
        assert_eq!(parse_header(&[1; 20]), Parsed::Bad);
    }

    #[test]
    fn a_timestamp_has_33_bits() {
        assert_eq!(timestamp(&[0x2f, 0xff, 0xff, 0xff, 0xff]), Some((1 << 33) - 1));
        assert_eq!(timestamp(&[0x2e, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
