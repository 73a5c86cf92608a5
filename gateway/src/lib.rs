//! The gateway: takes video over HTTP, hands it to the fleet, returns renditions.
//!
//! ```text
//! push ─┐                ┌─ schedule (pure)          nodes, enroll ◀─ HTTPS ─ nodes
//! api  ─┼─▶ owner ◀──────┤
//! page ─┘     │  ▲       └─ store (SQLite)           broker (mosquitto, a child)
//! playback    ▼  │                                     ▲
//!            grants, media                           mqtt ◀────────── MQTT ── nodes
//! ```

pub mod api;
pub mod app;
pub mod broker;
pub mod bundle;
pub mod config;
pub mod daemon;
pub mod depot;
pub mod enroll;
pub mod grants;
pub mod guard;
pub mod housekeep;
pub mod identity;
mod leftover;
pub mod media;
pub mod metrics;
pub mod mqtt;
pub mod nodes;
pub mod operate;
pub mod owner;
pub mod page;
pub mod playback;
pub mod push;
pub mod rollout;
pub mod schedule;
pub mod secret;
pub mod selector;
pub mod serve;
pub mod state_dir;
pub mod store;
#[cfg(test)]
mod testing;
pub mod views;
