//! The two steps of a row with AVX2, and with SSSE3 for small machines that have no AVX2.

use std::arch::x86_64::*;

use super::axis::{Axis, GROUP, WEIGHT_BITS};
use super::rows::{BETWEEN_BITS, HALF, SHIFT, blend_from};

const DOWN: i32 = (WEIGHT_BITS + BETWEEN_BITS) as i32;
const UP: i32 = SHIFT as i32;

/// Each row must be at least as long as `out`.
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "loads and stores of vectors")]
pub(super) fn blend_avx2(rows: &[(&[u8], i16)], out: &mut [i16]) {
    assert!(rows.iter().all(|(row, _)| row.len() >= out.len()));
    let whole = out.len() / 32 * 32;
    let zero = _mm256_setzero_si256();
    for at in (0..whole).step_by(32) {
        let (mut low, mut high) = (zero, zero);
        for (row, weight) in rows {
            let weight = _mm256_set1_epi16(*weight);
            // SAFETY: at + 32 <= out.len() <= row.len().
            let bytes = unsafe { _mm256_loadu_si256(row.as_ptr().add(at).cast()) };
            let first = _mm256_slli_epi16::<UP>(_mm256_unpacklo_epi8(bytes, zero));
            let second = _mm256_slli_epi16::<UP>(_mm256_unpackhi_epi8(bytes, zero));
            low = _mm256_add_epi16(low, _mm256_mulhrs_epi16(first, weight));
            high = _mm256_add_epi16(high, _mm256_mulhrs_epi16(second, weight));
        }
        // Unpacking works in halves of 128 bits.
        let (first, second) =
            (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high));
        // SAFETY: at + 32 <= out.len().
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), first);
            _mm256_storeu_si256(out.as_mut_ptr().add(at + 16).cast(), second);
        }
    }
    blend_from(rows, out, whole);
}

#[target_feature(enable = "ssse3")]
#[expect(unsafe_code, reason = "loads and stores of vectors")]
pub(super) fn blend_ssse3(rows: &[(&[u8], i16)], out: &mut [i16]) {
    assert!(rows.iter().all(|(row, _)| row.len() >= out.len()));
    let whole = out.len() / 16 * 16;
    let zero = _mm_setzero_si128();
    for at in (0..whole).step_by(16) {
        let (mut low, mut high) = (zero, zero);
        for (row, weight) in rows {
            let weight = _mm_set1_epi16(*weight);
            // SAFETY: at + 16 <= out.len() <= row.len().
            let bytes = unsafe { _mm_loadu_si128(row.as_ptr().add(at).cast()) };
            let first = _mm_slli_epi16::<UP>(_mm_unpacklo_epi8(bytes, zero));
            let second = _mm_slli_epi16::<UP>(_mm_unpackhi_epi8(bytes, zero));
            low = _mm_add_epi16(low, _mm_mulhrs_epi16(first, weight));
            high = _mm_add_epi16(high, _mm_mulhrs_epi16(second, weight));
        }
        // SAFETY: at + 16 <= out.len().
        unsafe {
            _mm_storeu_si128(out.as_mut_ptr().add(at).cast(), low);
            _mm_storeu_si128(out.as_mut_ptr().add(at + 8).cast(), high);
        }
    }
    blend_from(rows, out, whole);
}

/// Where blocks of eight target samples begin: the last one may overlap the one before.
fn blocks(count: usize) -> impl Iterator<Item = usize> {
    (0..count / 8 * 8).step_by(8).chain((!count.is_multiple_of(8)).then(|| count - 8))
}

/// `out` is as long as the axis, at least eight samples; `line` is as long as its reach.
fn check(line: &[i16], axis: &Axis, out: &[u8]) {
    assert!(out.len() >= 8 && out.len() == axis.first.len() && line.len() >= axis.reach);
    assert!(axis.weights.len() == out.len() * axis.taps && axis.taps.is_multiple_of(GROUP));
}

#[target_feature(enable = "avx2")]
pub(super) fn gather_avx2(line: &[i16], axis: &Axis, out: &mut [u8]) {
    // All steps down to a half have one group: with that known, a third of the instructions are not needed.
    if axis.taps == GROUP {
        groups_avx2::<true>(line, axis, out)
    } else {
        groups_avx2::<false>(line, axis, out)
    }
}

#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "loads and stores of vectors")]
fn groups_avx2<const ONE: bool>(line: &[i16], axis: &Axis, out: &mut [u8]) {
    check(line, axis, out);
    let taps = if ONE { GROUP } else { axis.taps };
    assert!(taps == axis.taps);
    let half = _mm256_set1_epi32(HALF);
    let order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, -1, -1, -1, -1, -1, -1, -1, -1);
    for at in blocks(out.len()) {
        let mut sums = [_mm256_setzero_si256(); 4];
        for group in (0..taps).step_by(GROUP) {
            for (pair, sum) in sums.iter_mut().enumerate() {
                let one = at + 2 * pair;
                // SAFETY: `check` has shown that one + 1 < out.len() = first.len(), that `weights` has `taps` for
                // each, and `Axis::new` that first + taps <= reach, which `line` has. group + 8 <= taps. Where there
                // is one group, the weights of both samples follow each other.
                let (samples, weights) = unsafe {
                    let start = |at: usize| line.as_ptr().add(*axis.first.get_unchecked(at) as usize + group);
                    let weights = |at: usize| axis.weights.as_ptr().add(at * taps + group);
                    (
                        _mm256_loadu2_m128i(start(one + 1).cast(), start(one).cast()),
                        if ONE {
                            _mm256_loadu_si256(weights(one).cast())
                        } else {
                            _mm256_loadu2_m128i(weights(one + 1).cast(), weights(one).cast())
                        },
                    )
                };
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(samples, weights));
            }
        }
        // Even samples in the lower half, odd ones in the upper.
        let sums =
            _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
        let sums = _mm256_srai_epi32::<DOWN>(_mm256_add_epi32(sums, half));
        let words = _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let bytes = _mm_shuffle_epi8(_mm_packus_epi16(words, words), order);
        // SAFETY: at + 8 <= out.len().
        unsafe { _mm_storel_epi64(out.as_mut_ptr().add(at).cast(), bytes) };
    }
}

#[target_feature(enable = "ssse3")]
#[expect(unsafe_code, reason = "loads and stores of vectors")]
pub(super) fn gather_ssse3(line: &[i16], axis: &Axis, out: &mut [u8]) {
    check(line, axis, out);
    let half = _mm_set1_epi32(HALF);
    for at in blocks(out.len()) {
        let mut sums = [_mm_setzero_si128(); 8];
        for group in (0..axis.taps).step_by(GROUP) {
            for (one, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let (samples, weights) = unsafe {
                    let first = *axis.first.get_unchecked(at + one) as usize;
                    (
                        _mm_loadu_si128(line.as_ptr().add(first + group).cast()),
                        _mm_loadu_si128(axis.weights.as_ptr().add((at + one) * axis.taps + group).cast()),
                    )
                };
                *sum = _mm_add_epi32(*sum, _mm_madd_epi16(samples, weights));
            }
        }
        let four = |sums: &[__m128i]| {
            let sums = _mm_hadd_epi32(_mm_hadd_epi32(sums[0], sums[1]), _mm_hadd_epi32(sums[2], sums[3]));
            _mm_srai_epi32::<DOWN>(_mm_add_epi32(sums, half))
        };
        let words = _mm_packs_epi32(four(&sums[..4]), four(&sums[4..]));
        // SAFETY: at + 8 <= out.len().
        unsafe { _mm_storel_epi64(out.as_mut_ptr().add(at).cast(), _mm_packus_epi16(words, words)) };
    }
}
