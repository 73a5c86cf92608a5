//! Scaling of 8-bit 4:2:0 pictures with AVX2, SSSE3 or NEON, where the processor has them.
//!
//! The only unsafe code of Headwater is here: loads and stores of vectors, behind checks of every length, memory that
//! is filled again while others keep it, and settings of the heap.

mod convolve;
mod heap;
mod slab;

pub use self::convolve::Convolution;
pub use self::heap::keep_little;
pub use self::slab::{Held, Loose, Slabs};

/// Largest side of a picture; more than any codec here has.
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
    #[error("a picture of {width}x{height} came where weights were made for {made_width}x{made_height}")]
    Other { width: u32, height: u32, made_width: u32, made_height: u32 },
}

/// Width and height of a plane: chroma has half of each, rounded up.
fn plane_size(plane: usize, width: u32, height: u32) -> (usize, usize) {
    let (width, height) = (width as usize, height as usize);
    if plane == 0 { (width, height) } else { (width.div_ceil(2), height.div_ceil(2)) }
}

fn check_size(width: u32, height: u32) -> Result<(), ScaleError> {
    let fine = (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height);
    if fine { Ok(()) } else { Err(ScaleError::Size { width, height }) }
}

fn check(width: u32, height: u32, planes: [(usize, usize); 3]) -> Result<(), ScaleError> {
    check_size(width, height)?;
    for (plane, (bytes, stride)) in planes.into_iter().enumerate() {
        let (columns, rows) = plane_size(plane, width, height);
        // The last row need not be padded to its stride.
        let needed = stride.checked_mul(rows - 1).and_then(|start| start.checked_add(columns));
        if stride < columns || needed.is_none_or(|needed| bytes < needed) {
            return Err(ScaleError::Plane { plane, width, height, bytes, stride });
        }
    }
    Ok(())
}
