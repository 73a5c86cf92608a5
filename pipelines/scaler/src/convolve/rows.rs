//! The two steps of a row, without vector instructions: what the others are held against, bit for bit.

use super::axis::{Axis, WEIGHT_BITS};

/// Bits behind the point of what lies between the two steps. The cubic overshoots by a quarter at most, so that
/// 1.25 * 255 * 64 stays below 2^15.
pub(super) const BETWEEN_BITS: u32 = 6;

/// A source row is shifted so far before the rounded 16-bit product, which is that of `pmulhrsw` and `sqrdmulh`.
pub(super) const SHIFT: u32 = 15 + BETWEEN_BITS - WEIGHT_BITS;

/// Added before the last shift: a half.
pub(super) const HALF: i32 = 1 << (WEIGHT_BITS + BETWEEN_BITS - 1);

/// A target row from source rows and their weights. Each row is at least as long as `out`.
pub(super) fn blend(rows: &[(&[u8], i16)], out: &mut [i16]) {
    blend_from(rows, out, 0);
}

/// The same from a column on.
pub(super) fn blend_from(rows: &[(&[u8], i16)], out: &mut [i16], from: usize) {
    for (at, out) in out.iter_mut().enumerate().skip(from) {
        let parts = rows.iter().map(|(row, weight)| {
            let product = i32::from(row[at]) * (1 << SHIFT) * i32::from(*weight);
            ((product + (1 << 14)) >> 15) as i16
        });
        *out = parts.fold(0, i16::wrapping_add);
    }
}

/// Target samples from a row between the steps.
pub(super) fn gather(line: &[i16], axis: &Axis, out: &mut [u8]) {
    for ((out, first), weights) in out.iter_mut().zip(&axis.first).zip(axis.weights.chunks_exact(axis.taps)) {
        let samples = &line[*first as usize..][..axis.taps];
        let sum: i32 = samples.iter().zip(weights).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum();
        *out = ((sum + HALF) >> (WEIGHT_BITS + BETWEEN_BITS)).clamp(0, 255) as u8;
    }
}
