//! The gateway: takes video over HTTP, hands it to the fleet, returns renditions.

pub mod views;
