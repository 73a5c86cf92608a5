//! Scaling of 8-bit 4:2:0 pictures by libyuv, which picks its AVX2 or NEON code by itself.
//!
//! The only unsafe code of Headwater is the call at the end of [`scale`].

use std::ffi::c_int;

/// How target pixels are made from source pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Two by two neighbours.
    Bilinear,
    /// Mean over all source pixels that a target pixel covers; bilinear where the picture gets larger.
    Box,
}

/// Largest side that libyuv's fixed-point steps (16.16) carry.
pub const MAX_SIDE: u32 = 16_384;

/// A picture to read: planes Y, U, V, each with the distance of its rows in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub width: u32,
    pub height: u32,
    pub planes: [(&'a [u8], usize); 3],
}

/// A picture to write.
#[derive(Debug)]
pub struct Target<'a> {
    pub width: u32,
    pub height: u32,
    pub planes: [(&'a mut [u8], usize); 3],
}

/// Why a picture was not scaled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    #[error("a picture of {width}x{height} cannot be scaled; each side must be 1 to {MAX_SIDE}")]
    Size { width: u32, height: u32 },
    #[error("plane {plane} of {width}x{height} has {bytes} bytes with rows {stride} apart, too few")]
    Plane { plane: usize, width: u32, height: u32, bytes: usize, stride: usize },
    #[error("libyuv refused to scale: {0}")]
    Refused(i32),
}

/// Width and height of a plane: chroma has half of each, rounded up.
fn plane_size(plane: usize, width: u32, height: u32) -> (usize, usize) {
    let (width, height) = (width as usize, height as usize);
    if plane == 0 { (width, height) } else { (width.div_ceil(2), height.div_ceil(2)) }
}

fn check(width: u32, height: u32, planes: [(usize, usize); 3]) -> Result<(), ScaleError> {
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(ScaleError::Size { width, height });
    }
    for (plane, (bytes, stride)) in planes.into_iter().enumerate() {
        let (columns, rows) = plane_size(plane, width, height);
        // The last row need not be padded to its stride.
        let needed = stride.checked_mul(rows - 1).and_then(|start| start.checked_add(columns));
        if stride < columns || c_int::try_from(stride).is_err() || needed.is_none_or(|needed| bytes < needed)
        {
            return Err(ScaleError::Plane { plane, width, height, bytes, stride });
        }
    }
    Ok(())
}

/// Fills `target` with the whole of `source`.
pub fn scale(source: &Source<'_>, target: &mut Target<'_>, filter: Filter) -> Result<(), ScaleError> {
    check(source.width, source.height, source.planes.map(|(plane, stride)| (plane.len(), stride)))?;
    let lengths = [0, 1, 2].map(|i: usize| (target.planes[i].0.len(), target.planes[i].1));
    check(target.width, target.height, lengths)?;
    let filter = match filter {
        Filter::Bilinear => 2,
        Filter::Box => 3,
    };
    let [(sy, sy_stride), (su, su_stride), (sv, sv_stride)] = source.planes;
    let [(ty, ty_stride), (tu, tu_stride), (tv, tv_stride)] = &mut target.planes;
    // SAFETY: `check` has shown for each of the six planes that (rows - 1) * stride + columns bytes lie inside
    // its slice, that strides fit a C int and cover a row, and that sides are within what libyuv carries.
    // libyuv reads and writes rows of exactly `columns` bytes. Targets are exclusive borrows, so they
    // overlap neither each other nor a source, and nothing keeps a pointer after the call.
    #[expect(unsafe_code, reason = "the one call into libyuv")]
    let refused = unsafe {
        I420Scale(
            sy.as_ptr(),
            sy_stride as c_int,
            su.as_ptr(),
            su_stride as c_int,
            sv.as_ptr(),
            sv_stride as c_int,
            source.width as c_int,
            source.height as c_int,
            ty.as_mut_ptr(),
            *ty_stride as c_int,
            tu.as_mut_ptr(),
            *tu_stride as c_int,
            tv.as_mut_ptr(),
            *tv_stride as c_int,
            target.width as c_int,
            target.height as c_int,
            filter,
        )
    };
    if refused == 0 { Ok(()) } else { Err(ScaleError::Refused(refused)) }
}

// SAFETY: the signature is that of libyuv/scale.h; `enum FilterMode` has the size of a C int.
#[expect(unsafe_code, reason = "the one function of libyuv in use")]
unsafe extern "C" {
    fn I420Scale(
        src_y: *const u8,
        src_stride_y: c_int,
        src_u: *const u8,
        src_stride_u: c_int,
        src_v: *const u8,
        src_stride_v: c_int,
        src_width: c_int,
        src_height: c_int,
        dst_y: *mut u8,
        dst_stride_y: c_int,
        dst_u: *mut u8,
        dst_stride_u: c_int,
        dst_v: *mut u8,
        dst_stride_v: c_int,
        dst_width: c_int,
        dst_height: c_int,
        filtering: c_int,
    ) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planes(width: usize, height: usize, value: u8) -> [Vec<u8>; 3] {
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        [vec![value; width * height], vec![value; chroma], vec![value; chroma]]
    }

    fn run(from: (u32, u32), to: (u32, u32), filter: Filter) -> [Vec<u8>; 3] {
        let [y, u, v] = planes(from.0 as usize, from.1 as usize, 77);
        let [mut ty, mut tu, mut tv] = planes(to.0 as usize, to.1 as usize, 0);
        let (sc, tc) = (from.0.div_ceil(2) as usize, to.0.div_ceil(2) as usize);
        let source =
            Source { width: from.0, height: from.1, planes: [(&y, from.0 as usize), (&u, sc), (&v, sc)] };
        let mut target = Target {
            width: to.0,
            height: to.1,
            planes: [(&mut ty, to.0 as usize), (&mut tu, tc), (&mut tv, tc)],
        };
        scale(&source, &mut target, filter).unwrap();
        [ty, tu, tv]
    }

    #[test]
    fn a_grey_picture_stays_grey_at_every_size_to_one_step_of_rounding() {
        for filter in [Filter::Bilinear, Filter::Box] {
            for (from, to) in
                [((1920, 1080), (1280, 720)), ((33, 17), (16, 8)), ((16, 16), (64, 48)), ((2, 2), (2, 2))]
            {
                assert!(
                    run(from, to, filter).iter().flatten().all(|byte| byte.abs_diff(77) <= 1),
                    "{from:?} {to:?}"
                );
            }
        }
    }

    #[test]
    fn a_plane_that_is_too_short_never_reaches_libyuv() {
        let [y, u, v] = planes(64, 64, 1);
        let [mut ty, mut tu, mut tv] = planes(32, 32, 1);
        let mut target =
            Target { width: 32, height: 32, planes: [(&mut ty, 32), (&mut tu, 16), (&mut tv, 16)] };
        let short = Source { width: 64, height: 64, planes: [(&y[..64 * 64 - 1], 64), (&u, 32), (&v, 32)] };
        assert!(matches!(
            scale(&short, &mut target, Filter::Box),
            Err(ScaleError::Plane { plane: 0, bytes: 4095, .. })
        ));
        let narrow = Source { width: 64, height: 64, planes: [(&y, 63), (&u, 32), (&v, 32)] };
        assert!(matches!(
            scale(&narrow, &mut target, Filter::Box),
            Err(ScaleError::Plane { stride: 63, .. })
        ));
        let empty = Source { width: 0, height: 64, planes: [(&y, 64), (&u, 32), (&v, 32)] };
        assert!(matches!(scale(&empty, &mut target, Filter::Box), Err(ScaleError::Size { .. })));
    }
}
