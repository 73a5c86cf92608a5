//! Scaling by convolution with a cubic: what ffmpeg calls bicubic, to the same quality.
//!
//! Weights are made once for a pair of sizes. Each target row is made in two steps while its source rows are in the
//! cache: the rows that it lies between are blended into one of 16-bit samples, and of those the target samples are
//! gathered. Nothing else lies in between.

#[cfg(target_arch = "aarch64")]
mod arm;
mod axis;
mod rows;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::{ScaleError, Source, Target, check, plane_size};
use axis::Axis;

/// Instructions that the two steps are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Ssse3,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Way {
    /// What this processor has, the best first.
    fn all() -> Vec<Self> {
        let mut ways = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                ways.push(Way::Avx2);
            }
            if std::arch::is_x86_feature_detected!("ssse3") {
                ways.push(Way::Ssse3);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            ways.push(Way::Neon);
        }
        ways.push(Way::Plain);
        ways
    }

    #[cfg_attr(
        any(target_arch = "x86_64", target_arch = "aarch64"),
        expect(unsafe_code, reason = "calls of functions for one kind of processor")
    )]
    fn blend(self, rows: &[(&[u8], i16)], out: &mut [i16]) {
        match self {
            Way::Plain => rows::blend(rows, out),
            // SAFETY: only `Way::all` makes this one, where the processor has it.
            #[cfg(target_arch = "x86_64")]
            Way::Ssse3 => unsafe { x86::blend_ssse3(rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx2 => unsafe { x86::blend_avx2(rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Way::Neon => unsafe { arm::blend_neon(rows, out) },
        }
    }

    #[cfg_attr(
        any(target_arch = "x86_64", target_arch = "aarch64"),
        expect(unsafe_code, reason = "calls of functions for one kind of processor")
    )]
    fn gather(self, line: &[i16], axis: &Axis, out: &mut [u8]) {
        // Vectors need eight samples.
        match if out.len() < 8 { Way::Plain } else { self } {
            Way::Plain => rows::gather(line, axis, out),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Ssse3 => unsafe { x86::gather_ssse3(line, axis, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx2 => unsafe { x86::gather_avx2(line, axis, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Way::Neon => unsafe { arm::gather_neon(line, axis, out) },
        }
    }
}

/// Weights for both sides of a plane.
#[derive(Debug, Clone)]
struct Sides {
    across: Axis,
    down: Axis,
}

/// Scales pictures from one size to another.
#[derive(Debug, Clone)]
pub struct Convolution {
    from: (u32, u32),
    to: (u32, u32),
    way: Way,
    /// Of luma and of chroma.
    sides: [Sides; 2],
    /// One row between the steps.
    line: Vec<i16>,
}

impl Convolution {
    /// Makes the weights, which takes as long as scaling a few rows.
    pub fn new(from: (u32, u32), to: (u32, u32)) -> Result<Self, ScaleError> {
        for (width, height) in [from, to] {
            crate::check_size(width, height)?;
        }
        let sides = [0, 1].map(|plane| {
            let (from, to) = (plane_size(plane, from.0, from.1), plane_size(plane, to.0, to.1));
            Sides { across: Axis::new(from.0, to.0), down: Axis::new(from.1, to.1) }
        });
        let way = Way::all()[0];
        Ok(Self { from, to, way, sides, line: Vec::new() })
    }

    pub fn from(&self) -> (u32, u32) {
        self.from
    }

    /// Fills `target` with the whole of `source`; they must have the sizes that this was made for.
    pub fn scale(&mut self, source: &Source<'_>, target: &mut Target<'_>) -> Result<(), ScaleError> {
        for ((width, height), (made_width, made_height)) in
            [((source.width, source.height), self.from), ((target.width, target.height), self.to)]
        {
            if (width, height) != (made_width, made_height) {
                return Err(ScaleError::Other { width, height, made_width, made_height });
            }
        }
        check(source.width, source.height, source.planes.map(|(plane, stride)| (plane.len(), stride)))?;
        let lengths = [0, 1, 2].map(|i: usize| (target.planes[i].0.len(), target.planes[i].1));
        check(target.width, target.height, lengths)?;
        for (plane, (from, to)) in source.planes.iter().zip(&mut target.planes).enumerate() {
            let (width, height) = plane_size(plane, self.from.0, self.from.1);
            let sides = &self.sides[plane.min(1)];
            let to_width = plane_size(plane, self.to.0, self.to.1).0;
            one_plane(self.way, sides, &mut self.line, (*from, width, height), (&mut *to.0, to.1, to_width));
        }
        Ok(())
    }
}

fn one_plane(
    way: Way,
    Sides { across, down }: &Sides,
    line: &mut Vec<i16>,
    ((source, stride), width, height): ((&[u8], usize), usize, usize),
    (target, target_stride, target_width): (&mut [u8], usize, usize),
) {
    line.clear();
    line.resize(across.reach, 0);
    let mut rows: Vec<(&[u8], i16)> = Vec::with_capacity(down.taps);
    for ((out, first), weights) in
        target.chunks_mut(target_stride).zip(&down.first).zip(down.weights.chunks_exact(down.taps))
    {
        rows.clear();
        for (tap, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0) {
            // Outside the picture its edge goes on.
            let row = (*first as usize + tap).saturating_sub(down.pad).min(height - 1);
            rows.push((&source[row * stride..][..width], *weight));
        }
        let (before, rest) = line.split_at_mut(across.pad);
        let (inside, behind) = rest.split_at_mut(width);
        way.blend(&rows, inside);
        before.fill(inside[0]);
        behind.fill(inside[width - 1]);
        way.gather(line, across, &mut out[..target_width]);
    }
}

#[cfg(test)]
mod tests;
