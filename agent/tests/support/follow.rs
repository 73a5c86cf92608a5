//! An update, as a test follows it.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Fleet, Running};

/// The update's state, once it is this one.
pub(crate) fn state(fleet: &Fleet, kind: &str) -> Value {
    fleet.message("update", |update| update["state"]["kind"] == kind)
}

pub(crate) fn reply(fleet: &Fleet, id: &str) -> Value {
    fleet.message("reply", |reply| reply["id"] == id)["fault"].clone()
}

pub(crate) fn installation(fleet: &Fleet) -> Value {
    fleet.message("birth", |birth| birth["installation"] != Value::Null)["installation"].clone()
}

pub(crate) fn exit(mut agent: Running) -> Option<i32> {
    agent.wait().code()
}

pub(crate) fn end(agent: Running, fleet: &Fleet, helper: Running) {
    agent.signal(Signal::SIGTERM);
    assert_eq!(exit(agent), Some(0));
    drop(helper);
    fleet.no_process_is_left();
}

pub(crate) fn with_downgrade(mut order: Value) -> Value {
    order["command"]["update"]["allow_downgrade"] = json!(true);
    order
}
