//! What elements tell a test, a line each, in a file.

use std::io::Write;

/// Adds `ELEMENT WHAT` to the trace, if there is one.
pub(crate) fn tell(element: &str, what: &str) {
    let Some(path) = std::env::var_os("HEADWATER_STUB_TRACE") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{element} {what}\n").as_bytes()));
    if let Err(error) = written {
        // A test that reads the trace misses the line and fails.
        eprintln!("HEADWATER_STUB_TRACE: {error}");
    }
}
