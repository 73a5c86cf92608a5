//! The two steps of a row with AVX-512, for processors that do not slow down for it: not the first ones.

use std::arch::x86_64::*;

use super::axis::{Axis, GROUP};
use super::rows::blend_from;
use super::x86::{DOWN, MOST_ROWS, UP, check, gather_avx2};

/// Each row must be at least as long as `out`.
#[target_feature(enable = "avx512bw")]
#[expect(unsafe_code, reason = "loads and stores of vectors")]
pub(super) fn blend_avx512(rows: &[(&[u8], i16)], out: &mut [i16]) {
    assert!(rows.iter().all(|(row, _)| row.len() >= out.len()));
    let mut weights = [_mm512_setzero_si512(); MOST_ROWS];
    let (near, far) = rows.split_at(rows.len().min(MOST_ROWS));
    near.iter().zip(&mut weights).for_each(|((_, weight), all)| *all = _mm512_set1_epi16(*weight));
    let whole = out.len() / 64 * 64;
    for at in (0..whole).step_by(64) {
        let mut sums = [_mm512_setzero_si512(); 2];
        let mut add = |row: &[u8], weight: __m512i| {
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: at + 64 <= out.len() <= row.len().
                let bytes = unsafe { _mm256_loadu_si256(row.as_ptr().add(at + 32 * half).cast()) };
                let words = _mm512_slli_epi16::<{ UP as u32 }>(_mm512_cvtepu8_epi16(bytes));
                *sum = _mm512_add_epi16(*sum, _mm512_mulhrs_epi16(words, weight));
            }
        };
        near.iter().zip(&weights).for_each(|((row, _), weight)| add(row, *weight));
        far.iter().for_each(|(row, weight)| add(row, _mm512_set1_epi16(*weight)));
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: at + 64 <= out.len().
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(at + 32 * half).cast(), *sum) };
        }
    }
    blend_from(rows, out, whole);
}

#[target_feature(enable = "avx2,avx512bw,avx512vl")]
#[expect(unsafe_code, reason = "loads and stores of vectors")]
pub(super) fn gather_avx512(line: &[i16], axis: &Axis, out: &mut [u8]) {
    if axis.taps != GROUP || out.len() < 16 {
        return gather_avx2(line, axis, out);
    }
    check(line, axis, out);
    let half = _mm512_set1_epi32(super::rows::HALF);
    let order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let count = out.len();
    // The last block may overlap the one before.
    let last = (!count.is_multiple_of(16)).then(|| count - 16);
    for at in (0..count / 16 * 16).step_by(16).chain(last) {
        let four = |of: usize| {
            let one = at + 4 * of;
            // SAFETY: `check` has shown that one + 3 < out.len() = first.len(), that `weights` has a group for each, and
            // `Axis::new` that first + GROUP <= reach, which `line` has. Weights of neighbours follow each other.
            unsafe {
                let samples = |number: usize| {
                    let first = *axis.first.get_unchecked(one + number) as usize;
                    _mm_loadu_si128(line.as_ptr().add(first).cast())
                };
                let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(samples(0)), samples(1));
                let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(samples(2)), samples(3));
                let samples = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                let weights = _mm512_loadu_si512(axis.weights.as_ptr().add(one * GROUP).cast());
                _mm512_madd_epi16(samples, weights)
            }
        };
        let (a, b, c, d) = (four(0), four(1), four(2), four(3));
        // In each lane of 128 bits the four parts of one sample of each become one sum of each.
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let sums = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let sums = _mm512_srai_epi32::<{ DOWN as u32 }>(_mm512_add_epi32(sums, half));
        let bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(sums, _mm512_setzero_si512()));
        // SAFETY: at + 16 <= out.len().
        unsafe { _mm_storeu_si128(out.as_mut_ptr().add(at).cast(), _mm_shuffle_epi8(bytes, order)) };
    }
}
