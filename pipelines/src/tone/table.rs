//! A picture's Y'CbCr as BT.709's, by a table over the cube of all signals.
//!
//! ```text
//! (Cb, Cr) ─▶ one of 64 x 64 columns, shared by the four luma samples of a chroma sample
//! Y'       ─▶ two neighbours of 65 in that column: eight corners of a cell lie side by side, and a sample is
//!             one scalar product of them with eight weights
//! ```

use super::light::{self, Gamut};

/// How light is coded in a signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Coding {
    Pq,
    Hlg,
    Sdr,
}

/// A colour space other than SDR's BT.709 and BT.601.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wide {
    pub(super) coding: Coding,
    /// Its primaries to BT.709's.
    pub(super) gamut: Gamut,
    /// Shares of red and blue in luma.
    pub(super) red_blue: (f64, f64),
    pub(super) full_range: bool,
}

/// Cells along Cb and Cr. With 32 saturated edges are off by up to 9 codes.
const CHROMA: usize = 64;
/// Cells along Y'.
const LUMA: usize = 64;
/// A signal of ten bits: its upper bits choose the cell, its lower ones the place in it.
const SHIFT: u32 = 4;
const STEP: u16 = 1 << SHIFT;
/// Of a column: `[corner; 4]` for each of the planes between cells.
const COLUMN: usize = (LUMA + 1) * 4;
/// Table values are codes of eight bits with so many bits behind the point.
const POINT: u32 = 6;
/// Weights add up to one, with three times [`SHIFT`] bits.
const ONE: u32 = 3 * SHIFT;

/// The largest signal: a cell's upper side is no sample's.
const TOP: u16 = 1023;

#[derive(Debug)]
pub(super) struct Table {
    /// Y', Cb and Cr of the output.
    planes: [Vec<i16>; 3],
}

/// Rows of ten-bit samples: the two of luma that share the one of chroma. An odd last row is its own pair.
pub(super) struct Rows<'a> {
    pub(super) luma: [&'a [u16]; 2],
    pub(super) chroma: [&'a [u16]; 2],
}

impl Table {
    pub(super) fn new(wide: &Wide) -> Self {
        let side = CHROMA + 1;
        let mut nodes = vec![[0_i16; 3]; side * side * (LUMA + 1)];
        for (at, node) in nodes.iter_mut().enumerate() {
            let (y, column) = (at % (LUMA + 1), at / (LUMA + 1));
            let (b, r) = (column / side, column % side);
            let code = |cell: usize| (cell * usize::from(STEP)) as f64;
            let made = sdr(wide, [code(y), code(b), code(r)]);
            *node = made.map(|value| (value * f64::from(1_u32 << POINT)).round() as i16);
        }
        let node = |b: usize, r: usize, y: usize| nodes[(b * side + r) * (LUMA + 1) + y];
        let mut planes = [(); 3].map(|()| Vec::with_capacity(CHROMA * CHROMA * COLUMN));
        for b in 0..CHROMA {
            for r in 0..CHROMA {
                for y in 0..=LUMA {
                    for corner in [node(b, r, y), node(b, r + 1, y), node(b + 1, r, y), node(b + 1, r + 1, y)]
                    {
                        for (plane, value) in planes.iter_mut().zip(corner) {
                            plane.push(value);
                        }
                    }
                }
            }
        }
        Self { planes }
    }

    /// Two rows of luma and one of each chroma. All have the width of what they come from.
    pub(super) fn apply(&self, from: &Rows<'_>, luma: [&mut [u8]; 2], chroma: [&mut [u8]; 2]) {
        let [top, bottom] = luma;
        let [out_b, out_r] = chroma;
        let pairs = from.luma[0].chunks(2).zip(from.luma[1].chunks(2));
        let outs = top.chunks_mut(2).zip(bottom.chunks_mut(2)).zip(out_b.iter_mut().zip(out_r));
        let signals = from.chroma[0].iter().zip(from.chroma[1]);
        for (((upper, lower), (b, r)), ((out_upper, out_lower), (out_b, out_r))) in
            pairs.zip(signals).zip(outs)
        {
            let (b, r) = ((*b).min(TOP), (*r).min(TOP));
            let start = (usize::from(b / STEP) * CHROMA + usize::from(r / STEP)) * COLUMN;
            let corners = weights(b % STEP, r % STEP);
            let columns = self.planes.each_ref().map(|plane| &plane[start..start + COLUMN]);
            let (mut sum, mut count) = (0, 0);
            for (y, out) in upper.iter().zip(out_upper).chain(lower.iter().zip(out_lower)) {
                let y = (*y).min(TOP);
                *out = sample(columns[0], y, corners);
                sum += u32::from(y);
                count += 1;
            }
            // Chroma as the mean luma of its samples has it.
            let mean = (sum / u32::max(count, 1)) as u16;
            *out_b = sample(columns[1], mean, corners);
            *out_r = sample(columns[2], mean, corners);
        }
    }
}

/// Of the four corners around (Cb, Cr); they add up to `STEP * STEP`.
fn weights(b: u16, r: u16) -> [u16; 4] {
    [(STEP - b) * (STEP - r), (STEP - b) * r, b * (STEP - r), b * r]
}

#[inline(always)]
fn sample(column: &[i16], y: u16, corners: [u16; 4]) -> u8 {
    let at = usize::from(y / STEP) * 4;
    let cell = &column[at..at + 8];
    let part = y % STEP;
    let mut sum = 1_i32 << (POINT + ONE - 1);
    for corner in 0..4 {
        // At most 1 << ONE, which sixteen bits hold: that lets a compiler multiply eight at once.
        let (lower, upper) = (corners[corner] * (STEP - part), corners[corner] * part);
        sum += i32::from(cell[corner]) * i32::from(lower as i16)
            + i32::from(cell[4 + corner]) * i32::from(upper as i16);
    }
    (sum >> (POINT + ONE)).clamp(0, 255) as u8
}

/// Ten-bit codes of a wide colour space as eight-bit ones of BT.709 in limited range, not rounded.
fn sdr(wide: &Wide, codes: [f64; 3]) -> [f64; 3] {
    let [y, b, r] = match wide.full_range {
        true => [codes[0] / 1023.0, (codes[1] - 512.0) / 1023.0, (codes[2] - 512.0) / 1023.0],
        false => [(codes[0] - 64.0) / 876.0, (codes[1] - 512.0) / 896.0, (codes[2] - 512.0) / 896.0],
    };
    let (kr, kb) = wide.red_blue;
    let kg = 1.0 - kr - kb;
    let (red, blue) = (y + 2.0 * (1.0 - kr) * r, y + 2.0 * (1.0 - kb) * b);
    let signal = [red, (y - kr * red - kb * blue) / kg, blue];
    let nits = match wide.coding {
        Coding::Pq => signal.map(light::pq_to_nits),
        Coding::Hlg => light::hlg_to_nits(signal, [kr, kg, kb]),
        Coding::Sdr => signal.map(light::sdr_to_nits),
    };
    // The strongest primary decides for all three, so that hues stay.
    let strongest = nits.into_iter().fold(0.0, f64::max);
    let shown = match wide.coding {
        Coding::Pq | Coding::Hlg => light::eetf(strongest, light::PEAK) / strongest.max(1e-9),
        Coding::Sdr => 1.0,
    };
    // What BT.709 cannot show is clipped (BT.2407-0, 3).
    let [red, green, blue] =
        light::convert(&wide.gamut, nits.map(|nits| nits * shown)).map(light::nits_to_sdr);
    let (kr, kb) = (0.2126, 0.0722);
    let y = kr * red + (1.0 - kr - kb) * green + kb * blue;
    [
        16.0 + 219.0 * y,
        128.0 + 224.0 * (blue - y) / (2.0 * (1.0 - kb)),
        128.0 + 224.0 * (red - y) / (2.0 * (1.0 - kr)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(coding: Coding) -> Wide {
        Wide { coding, gamut: light::BT2020, red_blue: (0.2627, 0.0593), full_range: false }
    }

    fn mapped(table: &Table, [y, b, r]: [u16; 3]) -> [u8; 3] {
        let (luma, chroma) = ([y; 2], [[b], [r]]);
        let (mut top, mut bottom, mut out) = ([0; 2], [0; 2], [[0], [0]]);
        let [out_b, out_r] = &mut out;
        table.apply(
            &Rows { luma: [&luma, &luma], chroma: [&chroma[0], &chroma[1]] },
            [&mut top, &mut bottom],
            [out_b, out_r],
        );
        assert_eq!(top, bottom);
        [top[0], out[0][0], out[1][0]]
    }

    /// Y'CbCr in ten bits of a signal in BT.2020.
    fn coded([red, green, blue]: [f64; 3]) -> [u16; 3] {
        let y = 0.2627 * red + 0.678 * green + 0.0593 * blue;
        let (b, r) = ((blue - y) / 1.8814, (red - y) / 1.4746);
        [64.0 + 876.0 * y, 512.0 + 896.0 * b, 512.0 + 896.0 * r].map(|code| code.round() as u16)
    }

    #[test]
    fn grey_and_white_have_the_levels_that_viewers_expect() {
        let pq = Table::new(&wide(Coding::Pq));
        let grey = |nits: f64| mapped(&pq, coded([light::nits_to_pq(nits); 3]));
        assert_eq!(grey(0.0), [16, 128, 128]);
        // 18 % grey: 26 of 203 nits, 0.425 of the signal.
        assert_eq!(grey(26.0), [109, 128, 128]);
        assert_eq!(grey(203.0), [214, 128, 128]);
        assert_eq!(grey(1000.0), [235, 128, 128]);
        let hlg = Table::new(&wide(Coding::Hlg));
        let [y, b, r] = mapped(&hlg, coded([0.75; 3]));
        assert!((213..=215).contains(&y) && b == 128 && r == 128, "{y} {b} {r}");
        let sdr = Table::new(&wide(Coding::Sdr));
        assert_eq!(mapped(&sdr, coded([0.5; 3])), [126, 128, 128]);
        assert_eq!(mapped(&sdr, coded([1.0; 3])), [235, 128, 128]);
    }

    #[test]
    fn primaries_of_bt709_come_out_as_themselves() {
        // BT.709's red, green and blue of 80 nits, in light of BT.2020 (BT.2087-0, 3).
        let to_2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.088, 0.8956]];
        let table = Table::new(&wide(Coding::Pq));
        let level = light::nits_to_sdr(80.0);
        for (at, want) in [(0, [63, 102, 240]), (1, [173, 42, 26]), (2, [32, 240, 118])] {
            let mut light_709 = [0.0; 3];
            light_709[at] = 80.0;
            let got = mapped(&table, coded(light::convert(&to_2020, light_709).map(light::nits_to_pq)));
            for (plane, (got, full)) in got.into_iter().zip(want).enumerate() {
                let zero = if plane == 0 { 16.0 } else { 128.0 };
                let want = zero + (f64::from(full) - zero) * level;
                assert!((f64::from(got) - want).abs() < 4.0, "primary {at}: {got} is not {want}");
            }
        }
    }

    #[test]
    fn between_its_nodes_the_table_is_near_the_curves() {
        for coding in [Coding::Pq, Coding::Hlg, Coding::Sdr] {
            let wide = wide(coding);
            let table = Table::new(&wide);
            let (mut worst, mut squares, mut count) = (0.0_f64, 0.0, 0.0);
            let levels = (0..=40).map(|level| f64::from(level) / 40.0);
            for red in levels.clone() {
                for green in levels.clone() {
                    for blue in levels.clone().step_by(4) {
                        let codes = coded([red, green, blue]);
                        let exact = sdr(&wide, codes.map(f64::from));
                        for (got, want) in mapped(&table, codes).into_iter().zip(exact) {
                            let off = (f64::from(got) - want).abs();
                            worst = worst.max(off);
                            squares += off * off;
                            count += 1.0;
                        }
                    }
                }
            }
            let rms = f64::sqrt(squares / count);
            // Rounding alone gives 0.29. The worst are colours at the edge of the gamut.
            assert!(rms < 0.5 && worst < 6.0, "{coding:?}: {rms} in the mean, {worst} at worst");
        }
    }
}
