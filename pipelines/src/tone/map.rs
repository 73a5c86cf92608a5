//! A picture's Y'CbCr as BT.709's, a line at a time, by small tables.
//!
//! ```text
//! Y'CbCr ─ R'G'B' of 12 bits ─▶ light ─▶ ( HLG: OOTF by luminance ) ─▶ tone curve by the strongest primary
//!        ─▶ BT.709 primaries ─▶ signal ─▶ Y'CbCr of 8 bits
//! ```
//!
//! One table over the cube of all Y'CbCr would need a read less, and is off by up to twenty codes where a primary is
//! near zero, even with 64 cells along each side: there the signal is no smooth function of Y'CbCr.

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

/// Samples that are worked on at once: each step is a loop that a compiler turns into vectors.
pub(super) const CHUNK: usize = 32;
/// Signals of a primary: twelve bits are finer than any input here.
const SIGNALS: usize = 4096;
const TOP: f32 = 4095.0;

/// A function of light, read by the upper bits of a number's floating-point form: 256 steps to each octave.
/// Half a step is 0.2 % of light and less than 0.2 codes of the result.
#[derive(Debug)]
struct Octaves(Box<[f32; Self::STEPS]>);

impl Octaves {
    const STEPS: usize = 32 * 256;
    /// Of 23 bits of mantissa the upper 8 count.
    const SHIFT: u32 = 15;
    /// A two-thousandth of the first code above black.
    const LOWEST: f32 = 1.0 / (1 << 26) as f32;
    /// 13,000 nits.
    const HIGHEST: f32 = 63.9;
    const FIRST: u32 = Self::LOWEST.to_bits() >> Self::SHIFT;

    fn new(function: impl Fn(f64) -> f64) -> Self {
        let mut steps = Box::new([0.0; Self::STEPS]);
        for (at, step) in steps.iter_mut().enumerate() {
            let middle = ((Self::FIRST + at as u32) << Self::SHIFT) + (1 << (Self::SHIFT - 1));
            *step = function(f64::from(f32::from_bits(middle))) as f32;
        }
        Self(steps)
    }

    #[inline(always)]
    fn at(&self, light: f32) -> f32 {
        let step = (light.clamp(Self::LOWEST, Self::HIGHEST).to_bits() >> Self::SHIFT) - Self::FIRST;
        self.0[step as usize % Self::STEPS]
    }
}

/// The nearest whole number, for 0 to 2^22: behind 2^23 a number's lowest bits are its ones. Unlike a cast it needs no
/// check for each value.
#[inline(always)]
fn nearest(value: f32) -> u32 {
    const ONES: f32 = (1 << 23) as f32;
    (value + ONES).to_bits() - ONES.to_bits()
}

/// R'G'B' of one line in BT.709, each from 0 to 1.
pub(super) type Line = [Vec<[f32; CHUNK]>; 3];

/// Everything of one colour space. 1.0 is SDR's white, as light and as signal.
#[derive(Debug)]
pub(super) struct Map {
    /// From luma's code to a primary's: factor and summand.
    luma: (f32, f32),
    /// What Cr adds to red, Cb and Cr to green, Cb to blue.
    chroma: [f32; 4],
    light: Box<[f32; SIGNALS]>,
    ootf: Option<(Octaves, [f32; 3])>,
    bend: Octaves,
    gamut: [[f32; 3]; 3],
    signal: Octaves,
}

impl Map {
    pub(super) fn new(wide: &Wide) -> Self {
        let (kr, kb) = wide.red_blue;
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) =
            if wide.full_range { (0.0, 1023.0, 1023.0) } else { (64.0, 876.0, 896.0) };
        let top = f64::from(TOP);
        let mut light = Box::new([0.0; SIGNALS]);
        for (at, light) in light.iter_mut().enumerate() {
            let signal = at as f64 / top;
            *light = match wide.coding {
                Coding::Pq => light::pq_to_nits(signal) / light::WHITE,
                // Of the scene, until the OOTF.
                Coding::Hlg => light::hlg_to_scene(signal),
                Coding::Sdr => light::sdr_to_nits(signal) / light::WHITE,
            } as f32;
        }
        let bend = |light: f64| match wide.coding {
            Coding::Pq | Coding::Hlg => {
                light::eetf(light * light::WHITE, light::PEAK) / (light * light::WHITE)
            }
            Coding::Sdr => 1.0,
        };
        let ootf = |luminance: f64| light::hlg_ootf(luminance) / light::WHITE;
        Self {
            luma: ((top / luma) as f32, (-black * top / luma) as f32),
            chroma: [
                2.0 * (1.0 - kr),
                -2.0 * kb * (1.0 - kb) / kg,
                -2.0 * kr * (1.0 - kr) / kg,
                2.0 * (1.0 - kb),
            ]
            .map(|share| (share * top / chroma) as f32),
            light,
            ootf: match wide.coding {
                Coding::Hlg => Some((Octaves::new(ootf), [kr, kg, kb].map(|share| share as f32))),
                Coding::Pq | Coding::Sdr => None,
            },
            bend: Octaves::new(bend),
            gamut: wide.gamut.map(|row| row.map(|share| share as f32)),
            signal: Octaves::new(|light| light::nits_to_sdr(light * light::WHITE)),
        }
    }

    /// Ten-bit samples of a line; a chroma sample is shared by two of luma.
    pub(super) fn line(&self, luma: &[[u16; CHUNK]], chroma: [&[[u16; CHUNK / 2]]; 2], out: &mut Line) {
        for plane in out.iter_mut() {
            plane.clear();
        }
        for (y, (b, r)) in luma.iter().zip(chroma[0].iter().zip(chroma[1])) {
            let [red, green, blue] = self.chunk(y, b, r);
            out[0].push(red);
            out[1].push(green);
            out[2].push(blue);
        }
    }

    fn chunk(&self, luma: &[u16; CHUNK], b: &[u16; CHUNK / 2], r: &[u16; CHUNK / 2]) -> [[f32; CHUNK]; 3] {
        let mut signals = [[0_u32; CHUNK]; 3];
        let (factor, summand) = self.luma;
        let [red_r, green_b, green_r, blue_b] = self.chroma;
        for at in 0..CHUNK {
            let y = f32::from(luma[at]) * factor + summand;
            let (b, r) = (f32::from(b[at / 2]) - 512.0, f32::from(r[at / 2]) - 512.0);
            signals[0][at] = nearest((y + red_r * r).clamp(0.0, TOP));
            signals[1][at] = nearest((y + green_b * b + green_r * r).clamp(0.0, TOP));
            signals[2][at] = nearest((y + blue_b * b).clamp(0.0, TOP));
        }
        let mut light = signals.map(|plane| plane.map(|signal| self.light[signal as usize % SIGNALS]));
        if let Some((ootf, share)) = &self.ootf {
            for at in 0..CHUNK {
                let luminance = share[0] * light[0][at] + share[1] * light[1][at] + share[2] * light[2][at];
                let gain = ootf.at(luminance);
                light.iter_mut().for_each(|plane| plane[at] *= gain);
            }
        }
        for at in 0..CHUNK {
            // The strongest decides for all three, so that hues stay.
            let gain = self.bend.at(light[0][at].max(light[1][at]).max(light[2][at]));
            light.iter_mut().for_each(|plane| plane[at] *= gain);
        }
        self.gamut.map(|[red, green, blue]| {
            let mut made = [0.0; CHUNK];
            for at in 0..CHUNK {
                made[at] = red * light[0][at] + green * light[1][at] + blue * light[2][at];
            }
            // What BT.709 cannot show is clipped (BT.2407-0, 3).
            made.map(|light| self.signal.at(light))
        })
    }
}

// BT.709-6, 3.2.
const KR: f32 = 0.2126;
const KB: f32 = 0.0722;
const KG: f32 = 1.0 - KR - KB;

/// Luma of a line, in limited range.
pub(super) fn luma(line: &Line, out: &mut [u8]) {
    for (at, out) in out.chunks_mut(CHUNK).enumerate() {
        let (red, green, blue) = (&line[0][at], &line[1][at], &line[2][at]);
        for (at, out) in out.iter_mut().enumerate() {
            *out = nearest(16.0 + 219.0 * (KR * red[at] + KG * green[at] + KB * blue[at])) as u8;
        }
    }
}

/// Chroma of two lines: of the mean of the four pixels that share it.
pub(super) fn chroma(lines: &[Line; 2], [out_b, out_r]: [&mut [u8]; 2]) {
    let half = CHUNK / 2;
    for (at, (out_b, out_r)) in out_b.chunks_mut(half).zip(out_r.chunks_mut(half)).enumerate() {
        let mut sums = [[0.0_f32; CHUNK / 2]; 3];
        for (plane, sums) in sums.iter_mut().enumerate() {
            let (upper, lower) = (&lines[0][plane][at], &lines[1][plane][at]);
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = upper[2 * at] + upper[2 * at + 1] + lower[2 * at] + lower[2 * at + 1];
            }
        }
        for (at, (b, r)) in out_b.iter_mut().zip(out_r).enumerate() {
            let (red, green, blue) = (sums[0][at] / 4.0, sums[1][at] / 4.0, sums[2][at] / 4.0);
            let y = KR * red + KG * green + KB * blue;
            *b = nearest(128.0 + 112.0 / (1.0 - KB) * (blue - y)) as u8;
            *r = nearest(128.0 + 112.0 / (1.0 - KR) * (red - y)) as u8;
        }
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
