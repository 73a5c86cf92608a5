//! Segments in, renditions out.

pub mod board;
mod collect;
pub mod cut;
pub mod demux;
pub mod engine;
pub mod es;
pub mod exit;
mod feed;
pub mod fit;
pub mod graph;
pub mod hardware;
pub mod ladder;
pub mod log;
pub mod machine;
pub mod mux;
pub mod nal;
pub mod plan;
pub mod playlist;
pub mod probe;
pub mod scale;
pub mod serve;
pub mod sound;
pub mod split;
mod stage;
pub mod survey;
pub mod transcode;
