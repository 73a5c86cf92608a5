//! Segments in, renditions out.

mod alone;
pub mod bench;
pub mod board;
mod clip;
mod collect;
pub mod cut;
pub mod demux;
pub mod engine;
pub mod es;
pub mod exit;
mod feed;
pub mod fit;
pub mod graph;
pub mod ladder;
pub mod log;
pub mod mux;
pub mod nal;
pub mod parts;
pub mod plan;
pub mod playlist;
pub mod power;
pub mod probe;
pub mod scale;
pub mod serve;
pub mod split;
mod stage;
pub mod transcode;
