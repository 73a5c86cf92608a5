//! A whole Headwater on this machine, for the end-to-end tests, the demo and the benchmarks:
//! a gateway with its broker, enrolled agents, real media, real clients.
//!
//! ```text
//! Fleet ── Process(headwater-gateway) ── mosquitto
//!   └──── Process(headwater-agent) × n ── headwater-worker × streams
//! ```

pub mod bench;
pub mod board;
pub mod fleet;
pub mod media;
pub mod process;
pub mod push;
pub mod stop;
pub mod worker;

pub use fleet::Fleet;
pub use process::Process;
