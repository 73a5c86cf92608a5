//! The two steps of a row with NEON, which every aarch64 processor has.

use std::arch::aarch64::*;

use super::axis::{Axis, GROUP, WEIGHT_BITS};
use super::rows::{BETWEEN_BITS, SHIFT, blend_from};

const DOWN: i32 = (WEIGHT_BITS + BETWEEN_BITS) as i32;
const UP: i32 = SHIFT as i32;

/// Each row must be at least as long as `out`.
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "loads and stores of vectors")]
pub(super) fn blend_neon(rows: &[(&[u8], i16)], out: &mut [i16]) {
    assert!(rows.iter().all(|(row, _)| row.len() >= out.len()));
    let whole = out.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        let (mut low, mut high) = (vdupq_n_s16(0), vdupq_n_s16(0));
        for (row, weight) in rows {
            // SAFETY: at + 16 <= out.len() <= row.len().
            let bytes = unsafe { vld1q_u8(row.as_ptr().add(at)) };
            let first = vreinterpretq_s16_u16(vshll_n_u8::<UP>(vget_low_u8(bytes)));
            let second = vreinterpretq_s16_u16(vshll_n_u8::<UP>(vget_high_u8(bytes)));
            low = vaddq_s16(low, vqrdmulhq_n_s16(first, *weight));
            high = vaddq_s16(high, vqrdmulhq_n_s16(second, *weight));
        }
        // SAFETY: at + 16 <= out.len().
        unsafe {
            vst1q_s16(out.as_mut_ptr().add(at), low);
            vst1q_s16(out.as_mut_ptr().add(at + 8), high);
        }
    }
    blend_from(rows, out, whole);
}

/// `out` is as long as the axis, at least eight samples; `line` is as long as its reach.
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "loads and stores of vectors")]
pub(super) fn gather_neon(line: &[i16], axis: &Axis, out: &mut [u8]) {
    assert!(out.len() >= 8 && out.len() == axis.first.len() && line.len() >= axis.reach);
    assert!(axis.weights.len() == out.len() * axis.taps && axis.taps.is_multiple_of(GROUP));
    let count = out.len();
    // The last block may overlap the one before.
    let blocks = (0..count / 8 * 8).step_by(8).chain((!count.is_multiple_of(8)).then(|| count - 8));
    for at in blocks {
        let mut sums = [vdupq_n_s32(0); 8];
        for group in (0..axis.taps).step_by(GROUP) {
            for (one, sum) in sums.iter_mut().enumerate() {
                // SAFETY: at + one < out.len() = first.len(), `weights` has `taps` for each, and `Axis::new` has
                // shown that first + taps <= reach, which `line` has. group + 8 <= taps.
                let (samples, weights) = unsafe {
                    let first = *axis.first.get_unchecked(at + one) as usize;
                    (
                        vld1q_s16(line.as_ptr().add(first + group)),
                        vld1q_s16(axis.weights.as_ptr().add((at + one) * axis.taps + group)),
                    )
                };
                *sum = vmlal_s16(*sum, vget_low_s16(samples), vget_low_s16(weights));
                *sum = vmlal_high_s16(*sum, samples, weights);
            }
        }
        let four = |sums: &[int32x4_t]| {
            let sums = vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
            vqmovn_s32(vrshrq_n_s32::<DOWN>(sums))
        };
        let words = vcombine_s16(four(&sums[..4]), four(&sums[4..]));
        // SAFETY: at + 8 <= out.len().
        unsafe { vst1_u8(out.as_mut_ptr().add(at), vqmovun_s16(words)) };
    }
}
