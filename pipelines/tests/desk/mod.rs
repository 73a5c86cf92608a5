//! A user's own board profiles in a folder, and the worker run with them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The last resort without its slow encoders.
pub(crate) const SMALL: &str = r#"
schema = 1
id = "software"
title = "Software, a little"
status = "verified"
priority = -100

[[decoder]]
codec = "h264"
factory = ["avdec_h264"]
package = "gstreamer1.0-libav"
out = { formats = ["I420"] }
set_if = { qos = "false", max-errors = "-1" }

[[encoder]]
codec = "h264"
factory = ["x264enc"]
package = "gstreamer1.0-plugins-ugly"
in = { formats = ["I420"] }
set = { speed-preset = "ultrafast", bframes = "0", b-adapt = "false", byte-stream = "true", option-string = "scenecut=0:open-gop=0" }
[encoder.map]
threads = { prop = "threads" }
bitrate = { prop = "bitrate", unit = "kbit/s", with = { pass = "cbr", vbv-buf-capacity = "1000" } }
gop = { prop = "key-int-max", unit = "frames", never = 1000000 }
"#;

/// The beginning of a profile that matches every machine.
pub(crate) const TOY: &str = r#"
schema = 1
id = "toy"
title = "A toy board"
status = "experimental"
priority = 1000
notes = ["Its codecs want toy-codecs in /boot/config.txt."]
"#;

pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// With the small last resort.
    pub(crate) fn new() -> Self {
        let desk = Self::plain();
        desk.profile("software", SMALL);
        desk
    }

    /// With the shipped profiles alone.
    pub(crate) fn plain() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("boards")).unwrap();
        Self { folder }
    }

    /// A small last resort below a toy board of these entries.
    pub(crate) fn with_toy(entries: &str) -> Self {
        let desk = Self::new();
        desk.profile("toy", &format!("{TOY}{entries}"));
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn profile(&self, id: &str, text: &str) {
        std::fs::write(self.path("boards").join(format!("{id}.toml")), text).unwrap();
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.path("probe.json")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-worker"));
        command
            .args(arguments)
            .env("HEADWATER_BOARDS", self.path("boards"))
            .env_remove("HEADWATER_BOARD")
            .env("HEADWATER_PROBE_CACHE", self.cache())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it prints; it must end with `code`.
    pub(crate) fn text(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str], code: i32) -> serde_json::Value {
        serde_json::from_str(&self.text(arguments, code)).unwrap()
    }
}
