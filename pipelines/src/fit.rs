//! Sizes and frame rates: pure arithmetic.

use headwater_protocol::FrameRate;

use crate::es::{CLOCK, Ticks};

/// A picture's size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    pub fn turned(self) -> Self {
        Self { width: self.height, height: self.width }
    }

    fn covers(self, other: Self) -> bool {
        self.width >= other.width && self.height >= other.height
    }
}

/// Smallest side an encoder is asked for; only absurdly long pictures come near it.
const MIN_SIDE: u64 = 16;

/// `long * part / whole`, rounded to the nearest even number, as ffmpeg's `scale=W:-2` does.
fn even(long: u64, part: u64, whole: u64) -> u64 {
    ((long * part + whole) / (2 * whole) * 2).max(MIN_SIDE)
}

/// Size of the output for a decoded picture of size `coded` with pixels of `aspect` (width : height):
/// the longer side of the picture as shown goes to the longer side of the box, the other follows.
/// Output pixels are square, both sides even.
pub fn fit(coded: Size, aspect: (u32, u32), boxed: Size) -> Size {
    let shown_width = u64::from(coded.width) * u64::from(aspect.0.max(1));
    let shown_height = u64::from(coded.height) * u64::from(aspect.1.max(1));
    let long = u64::from(boxed.width.max(boxed.height));
    let (short_side, long_side) = (shown_width.min(shown_height), shown_width.max(shown_height).max(1));
    let short = even(long, short_side, long_side) as u32;
    let long = even(long, 1, 1) as u32;
    if shown_width >= shown_height { Size::new(long, short) } else { Size::new(short, long) }
}

/// Picture as shown, in square pixels, keeping its height.
pub fn square(coded: Size, aspect: (u32, u32)) -> Size {
    let (num, den) = (u64::from(aspect.0.max(1)), u64::from(aspect.1.max(1)));
    let width = (u64::from(coded.width) * num + den / 2) / den;
    Size::new(u32::try_from(width).unwrap_or(u32::MAX), coded.height)
}

/// Where a scaled picture comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Decoded,
    /// Index into the list of sizes, always an earlier step of the cascade.
    Size(usize),
}

/// For each of `sizes` the picture it is scaled from: the smallest other one at least twice as large, else the
/// smallest that covers it, else the decoded picture. Scaling down in steps reads far fewer pixels than going back
/// to the top for each; halving keeps more of the picture than two smaller steps do (360p: 0.0026 more SSIM).
pub fn cascade(decoded: Size, sizes: &[Size]) -> Vec<Origin> {
    sizes
        .iter()
        .map(|&size| {
            sizes
                .iter()
                .enumerate()
                .filter(|(_, other)| {
                    other.covers(size) && other.pixels() > size.pixels() && decoded.covers(**other)
                })
                .min_by_key(|(_, other)| {
                    let near = other.width < 2 * size.width || other.height < 2 * size.height;
                    (near, other.pixels())
                })
                .map_or(Origin::Decoded, |(at, _)| Origin::Size(at))
        })
        .collect()
}

/// Rates that cameras and editors make.
const USUAL: [(u32, u32); 13] = [
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
    (12, 1),
    (15, 1),
    (100, 1),
    (120, 1),
];

/// Matroska, and what came over RTMP, have times of whole milliseconds.
const MILLISECOND: i64 = CLOCK / 1000;

/// Frame rate of some frames, from their presentation times in any order; None for fewer than two times.
///
/// The usual distance decides: gaps, and holes where reordered frames are not there yet, do not count. Few times of whole
/// milliseconds do not tell 29.97 from 30: then it is always 30, for one stream's segments shall not differ.
pub fn measure_rate(times: &[Ticks]) -> Option<FrameRate> {
    let mut times: Vec<i64> = times.iter().map(|time| time.0).collect();
    times.sort_unstable();
    let steps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0).collect();
    let mut sorted = steps.clone();
    sorted.sort_unstable();
    // The lower middle: a hole makes a step longer, nothing makes it shorter.
    let middle = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    let coarse =
        steps.iter().filter(|step| (*step - middle).abs() <= MILLISECOND).all(|step| step % MILLISECOND == 0);
    let reach = if coarse { MILLISECOND } else { 2 };
    let alike = |step: &i64| (step - middle).abs() <= reach;
    let count = steps.iter().filter(|step| alike(step)).count() as i64;
    let sum: i64 = steps.iter().filter(|step| alike(step)).sum();
    let step = sum as f64 / count as f64;
    // Rounding moves both ends of a row of steps by half a millisecond at most, and nothing in between.
    let rows =
        steps.chunk_by(|a, b| alike(a) == alike(b)).filter(|row| row.first().is_some_and(alike)).count();
    let error = if coarse { rows as f64 * MILLISECOND as f64 / count as f64 } else { 0.6 };
    let usual = USUAL
        .iter()
        .filter_map(|&(num, den)| FrameRate::new(num, den).ok())
        .map(|rate| (rate, (CLOCK as f64 / rate.as_f64() - step).abs()))
        .filter(|(_, distance)| *distance <= error)
        .min_by(|(a, near), (b, far)| a.den().cmp(&b.den()).then(near.total_cmp(far)));
    if let Some((rate, _)) = usual {
        return Some(rate);
    }
    let num = u32::try_from(CLOCK * count).ok()?;
    let den = u32::try_from(sum).ok()?;
    let common = gcd(num, den);
    FrameRate::new(num / common, den / common).ok()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Whether `asked` is twice the rate of `frames`, or as near to it as 60 is to twice 29.97: then it has a picture for each
/// field of frames that are woven of two.
pub fn is_double(asked: FrameRate, frames: FrameRate) -> bool {
    (asked.as_f64() / frames.as_f64() - 2.0).abs() < 0.01
}

/// Number of frames in `milliseconds`, at least one.
pub fn frames_in(milliseconds: u64, rate: FrameRate) -> u32 {
    let frames = milliseconds * u64::from(rate.num());
    let per = 1000 * u64::from(rate.den());
    u32::try_from((frames + per / 2) / per).unwrap_or(u32::MAX).max(1)
}

/// A frame is repeated for so long at most.
const GAP_MS: u64 = 10_000;

/// Turns any frame times into an even rate: each output time shows the frame nearest to it, as ffmpeg's
/// `fps` filter does. Output times start at the first frame's and are exact ticks of the rate's fraction.
#[derive(Debug, Clone)]
pub struct Gate {
    rate: FrameRate,
    start: Option<Ticks>,
    /// First output slot that is still empty.
    next: i64,
}

impl Gate {
    pub fn new(rate: FrameRate) -> Self {
        Self { rate, start: None, next: 0 }
    }

    fn slot(&self, start: Ticks, time: Ticks) -> i64 {
        let per = i128::from(CLOCK) * i128::from(self.rate.den());
        let at = i128::from(time.0 - start.0) * i128::from(self.rate.num());
        ((2 * at + per).div_euclid(2 * per)) as i64
    }

    fn time(&self, start: Ticks, slot: i64) -> Ticks {
        let num = i128::from(self.rate.num());
        let at = i128::from(slot) * i128::from(CLOCK) * i128::from(self.rate.den());
        Ticks(start.0 + ((2 * at + num).div_euclid(2 * num)) as i64)
    }

    /// A frame arrives at `time`: output times at which the frame *before* it is shown.
    pub fn arrive(&mut self, time: Ticks) -> Vec<Ticks> {
        let start = *self.start.get_or_insert(time);
        self.show_until(start, time)
    }

    fn show_until(&mut self, start: Ticks, time: Ticks) -> Vec<Ticks> {
        let slot = self.slot(start, time);
        // What is longer is a gap in the stream: filled, a jump of the clock would become hours of one picture.
        let most = i64::from(frames_in(GAP_MS, self.rate));
        let shown = (self.next..slot.min(self.next.saturating_add(most)))
            .map(|slot| self.time(start, slot))
            .collect();
        self.next = self.next.max(slot);
        shown
    }

    /// The last frame ends at `end`: output times at which it is shown, one at least if none was given yet.
    pub fn finish(&mut self, end: Ticks) -> Vec<Ticks> {
        let Some(start) = self.start else { return Vec::new() };
        let slot = self.slot(start, end).max(i64::from(self.next == 0));
        (self.next..slot).map(|slot| self.time(start, slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: (u32, u32) = (1, 1);

    #[test]
    fn the_longer_side_fills_the_longer_side_of_the_box() {
        let hd = Size::new(1280, 720);
        assert_eq!(fit(Size::new(1920, 1080), SQUARE, hd), hd);
        assert_eq!(fit(Size::new(1080, 1920), SQUARE, hd), Size::new(720, 1280));
        assert_eq!(fit(Size::new(1920, 1080), SQUARE, Size::new(720, 1280)), hd);
        assert_eq!(fit(Size::new(1440, 1080), SQUARE, hd), Size::new(1280, 960));
        assert_eq!(fit(Size::new(1920, 800), SQUARE, hd), Size::new(1280, 534));
        assert_eq!(fit(Size::new(1919, 1079), SQUARE, hd), Size::new(1280, 720));
        assert_eq!(fit(Size::new(64, 64), SQUARE, Size::new(640, 360)), Size::new(640, 640));
    }

    #[test]
    fn pixels_that_are_not_square_are_shown_as_they_should_be() {
        // PAL 16:9 and 4:3.
        assert_eq!(fit(Size::new(720, 576), (64, 45), Size::new(640, 360)), Size::new(640, 360));
        assert_eq!(fit(Size::new(720, 576), (16, 15), Size::new(640, 360)), Size::new(640, 480));
    }

    #[test]
    fn a_very_long_picture_keeps_a_size_that_encoders_take() {
        assert_eq!(fit(Size::new(4000, 2), SQUARE, Size::new(640, 360)), Size::new(640, 16));
    }

    #[test]
    fn each_size_comes_from_a_larger_one() {
        let sizes = [(1280, 720), (854, 480), (640, 360), (426, 240), (2560, 1440)];
        let decoded = Size::new(1920, 1080);
        assert_eq!(
            cascade(decoded, &sizes.map(|(w, h)| Size::new(w, h))),
            [Origin::Decoded, Origin::Size(0), Origin::Size(0), Origin::Size(1), Origin::Decoded],
            "halves are preferred, and nothing comes from an enlarged picture",
        );
    }

    fn times(step_num: i64, step_den: i64, count: i64) -> Vec<Ticks> {
        (0..count).map(|i| Ticks(i * step_num / step_den)).collect()
    }

    #[test]
    fn usual_rates_are_found_in_rounded_times() {
        let rate = |num, den| Some(FrameRate::new(num, den).unwrap());
        assert_eq!(measure_rate(&times(3000, 1, 9)), rate(30, 1));
        assert_eq!(measure_rate(&times(3003, 1, 9)), rate(30_000, 1001));
        assert_eq!(measure_rate(&times(15_015, 4, 9)), rate(24_000, 1001));
        assert_eq!(measure_rate(&times(3003, 2, 9)), rate(60_000, 1001));
        assert_eq!(measure_rate(&times(9000, 1, 9)), rate(10, 1));
        let reordered = [0, 12_000, 6000, 3000, 9000].map(Ticks);
        assert_eq!(measure_rate(&reordered), rate(30, 1));
        assert_eq!(measure_rate(&[Ticks(5)]), None);
        assert_eq!(measure_rate(&[Ticks(5), Ticks(5)]), None);
    }

    /// Times of `count` frames in whole milliseconds, of which the first is `phase` thousandths of one too late.
    fn rounded(rate: FrameRate, phase: i64, count: i64) -> Vec<Ticks> {
        let (num, den) = (i64::from(rate.num()), i64::from(rate.den()));
        let millis = |at: i64| (at * den * 1_000_000 + (phase + 500) * num).div_euclid(num * 1000);
        (0..count).map(|at| Ticks(millis(at) * MILLISECOND)).collect()
    }

    #[test]
    fn times_of_whole_milliseconds_give_one_rate_wherever_a_segment_begins() {
        let rate = |num, den| FrameRate::new(num, den).unwrap();
        for whole in [24, 25, 30, 50, 60, 120] {
            let ntsc = rate(whole * 1000, 1001);
            for (phase, count) in (0..1000).step_by(7).flat_map(|phase| [2, 4, 9].map(|count| (phase, count)))
            {
                let found = |real| measure_rate(&rounded(real, phase, count));
                assert_eq!(found(rate(whole, 1)), Some(rate(whole, 1)), "{phase} {count}");
                if USUAL.contains(&(whole * 1000, 1001)) {
                    assert_eq!(found(ntsc), Some(rate(whole, 1)), "{phase} {count}");
                }
            }
        }
        for (phase, ntsc) in (0..1000).step_by(7).flat_map(|phase| [24, 30, 60].map(|rate| (phase, rate))) {
            let ntsc = rate(ntsc * 1000, 1001);
            assert_eq!(measure_rate(&rounded(ntsc, phase, 300)), Some(ntsc), "{phase}: many frames tell");
        }
    }

    #[test]
    fn times_of_whole_milliseconds_may_have_holes() {
        let thirty = FrameRate::new(30, 1).unwrap();
        for phase in 0..1000 {
            let mut times = rounded(thirty, phase, 12);
            // Reordered frames that are not there yet, and a gap of 100 s.
            times.remove(10);
            times.remove(7);
            times.extend(rounded(thirty, phase, 3).iter().map(|time| Ticks(time.0 + 100 * CLOCK)));
            assert_eq!(measure_rate(&times), Some(thirty), "{phase}");
        }
    }

    #[test]
    fn rates_of_their_own_stay_what_they_are() {
        let rate = |num, den| Some(FrameRate::new(num, den).unwrap());
        assert_eq!(measure_rate(&times(9000, 1, 2)), rate(10, 1));
        assert_eq!(measure_rate(&times(3690, 1, 9)), rate(1000, 41), "41 ms each");
        assert_eq!(measure_rate(&times(3050, 1, 9)), rate(1800, 61));
        let uneven = [0, 3000, 6050, 9050, 12_120, 15_120].map(Ticks);
        assert_eq!(measure_rate(&uneven), rate(30, 1), "the usual step");
    }

    #[test]
    fn twice_the_rate_is_told_from_a_little_more_and_from_half_of_it() {
        let rate = |num, den| FrameRate::new(num, den).unwrap();
        let ntsc = rate(30_000, 1001);
        assert!(is_double(rate(50, 1), rate(25, 1)) && is_double(rate(60_000, 1001), ntsc));
        assert!(is_double(rate(60, 1), ntsc) && is_double(rate(60_000, 1001), rate(30, 1)));
        assert!(!is_double(rate(30, 1), rate(25, 1)) && !is_double(rate(25, 1), rate(25, 1)));
        assert!(!is_double(rate(60, 1), rate(25, 1)) && !is_double(rate(25, 1), rate(50, 1)));
    }

    #[test]
    fn the_gate_halves_doubles_and_never_drifts() {
        let run = |rate: (u32, u32), input: Vec<Ticks>, end| {
            let mut gate = Gate::new(FrameRate::new(rate.0, rate.1).unwrap());
            let mut out = Vec::new();
            for time in input {
                out.extend(gate.arrive(time));
            }
            out.extend(gate.finish(Ticks(end)));
            out
        };
        assert_eq!(run((15, 1), times(3000, 1, 6), 18_000), [0, 6000, 12_000].map(Ticks));
        assert_eq!(run((60, 1), times(3000, 1, 2), 6000), [0, 1500, 3000, 4500].map(Ticks));
        let long = run((30_000, 1001), times(3000, 1, 30_000), 90_000_000);
        assert_eq!(long.len(), 29_970);
        assert_eq!(long[29_969], Ticks(29_969 * 3003));
        assert_eq!(run((1, 10), times(3000, 1, 2), 6000), [Ticks(0)], "one frame at least");
        let jump = run((30, 1), vec![Ticks(0), Ticks(1 << 32)], (1 << 32) + 3000);
        assert_eq!(jump.len(), 301, "a jump of the clock is not filled");
        assert_eq!(jump[300].0 % 3000, 0, "and the frames after it stay on the grid");
    }
}
