//! The gateway's own binary with the mosquitto it starts, and nodes played by the test: real MQTT over
//! TLS with an enrolled certificate, real HTTPS for media, made-up renditions.

mod board;
mod certificate;
mod harness;
mod node;
#[path = "../../src/testing.rs"]
mod testing;

mod bad_input;
mod bundles;
mod commands;
mod evidence;
mod hostile;
mod main_path;
mod operate;
mod restart;
mod updates;
