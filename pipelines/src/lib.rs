//! Segments in, renditions out.

pub mod demux;
pub mod es;
pub mod mux;
pub mod nal;
pub mod split;
