//! The gateway: takes video over HTTP, hands it to the fleet, returns renditions.

pub mod page;
pub mod views;
