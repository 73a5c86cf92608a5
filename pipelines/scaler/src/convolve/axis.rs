//! Which source samples a target sample is made of, and by which weights, along one side of a plane.

/// Bits of a weight behind the point: 1.0 is 16384.
pub(super) const WEIGHT_BITS: u32 = 14;

/// Weights of a target sample come in groups of so many, as vectors of 16-bit numbers are loaded.
pub(super) const GROUP: usize = 8;

/// Source samples that the cubic reaches on each side, where the picture does not get smaller.
const REACH: f64 = 2.0;

#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// For each target sample its first source sample. Counted from `pad` samples before the picture.
    pub first: Vec<u32>,
    /// For each target sample: a multiple of [`GROUP`], filled up with zeros.
    pub taps: usize,
    pub weights: Vec<i16>,
    /// Samples needed before the picture.
    pub pad: usize,
    /// Samples needed in all: no `first + taps` is larger.
    pub reach: usize,
}

/// Keys' cubic with a = -0.6, which is what ffmpeg scales with by default.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.6;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < REACH {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

impl Axis {
    /// From `from` samples to `to`, both at least one. Samples lie in the middle of what they cover.
    pub(super) fn new(from: usize, to: usize) -> Self {
        let ratio = from as f64 / to as f64;
        // Made smaller, the cubic is stretched: it lets nothing through that the target cannot hold.
        let stretch = ratio.max(1.0);
        let count = (2.0 * REACH * stretch).ceil() as usize;
        let taps = count.next_multiple_of(GROUP);
        let starts: Vec<(f64, i64)> = (0..to)
            .map(|at| {
                let middle = (at as f64 + 0.5) * ratio - 0.5;
                (middle, (middle - REACH * stretch).ceil() as i64)
            })
            .collect();
        let pad = starts.first().map_or(0, |(_, start)| (-start).max(0)) as usize;
        let mut weights = Vec::with_capacity(to * taps);
        for (middle, start) in &starts {
            let exact = (0..count).map(|tap| cubic(((*start + tap as i64) as f64 - middle) / stretch));
            weights.extend(whole(&exact.collect::<Vec<_>>()));
            weights.extend(std::iter::repeat_n(0, taps - count));
        }
        let first: Vec<u32> = starts.iter().map(|(_, start)| (start + pad as i64) as u32).collect();
        let last = first.iter().max().map_or(0, |first| *first as usize);
        Self { first, taps, weights, pad, reach: (last + taps).max(pad + from) }
    }

    #[cfg(test)]
    pub(super) fn weights(&self, at: usize) -> &[i16] {
        &self.weights[at * self.taps..][..self.taps]
    }
}

/// Whole weights of sum one. What rounding leaves is carried from one to the next.
fn whole(exact: &[f64]) -> Vec<i16> {
    let one = f64::from(1 << WEIGHT_BITS);
    let sum: f64 = exact.iter().sum();
    let (mut so_far, mut given) = (0.0, 0.0);
    exact
        .iter()
        .map(|weight| {
            so_far += weight / sum * one;
            let next = (so_far - given).round();
            given += next;
            next as i16
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_each_target_sample_have_the_sum_one_and_stay_within_reach() {
        for (from, to) in [(1920, 1280), (1280, 854), (640, 427), (3, 2), (1, 1), (1, 9), (7, 30), (4096, 16)]
        {
            let axis = Axis::new(from, to);
            for at in 0..to {
                let sum: i32 = axis.weights(at).iter().map(|weight| i32::from(*weight)).sum();
                assert_eq!(sum, 1 << WEIGHT_BITS, "{from} to {to}, sample {at}");
                assert!(axis.first[at] as usize + axis.taps <= axis.reach);
            }
        }
    }

    #[test]
    fn three_to_two_has_two_kinds_of_samples_that_mirror_each_other() {
        let axis = Axis::new(1920, 1280);
        assert_eq!(axis.taps, GROUP);
        let mut mirrored = axis.weights(101)[..6].to_vec();
        mirrored.reverse();
        for (one, other) in axis.weights(100).iter().zip(mirrored) {
            assert!(one.abs_diff(other) <= 1, "{:?} {:?}", axis.weights(100), axis.weights(101));
        }
        assert_eq!(axis.weights(100), axis.weights(102));
    }

    #[test]
    fn a_plane_of_the_same_size_is_taken_as_it_is() {
        let axis = Axis::new(10, 10);
        for at in 0..10 {
            let weights = axis.weights(at);
            let one = weights.iter().position(|weight| *weight == 1 << WEIGHT_BITS).unwrap();
            assert_eq!(axis.first[at] as usize + one, axis.pad + at);
        }
    }
}
