//! QEMU's own voice: events, and orders to the machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// QEMU answers at once unless the host is very busy.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    line: String,
    /// Not yet asked for, oldest first.
    events: Vec<Value>,
}

impl Qmp {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut qmp = Self { stream: BufReader::new(stream), line: String::new(), events: Vec::new() };
        qmp.order("qmp_capabilities")?;
        Ok(qmp)
    }

    pub(super) fn order(&mut self, command: &str) -> Result<Value> {
        let text = format!("{}\n", json!({ "execute": command }));
        self.stream.get_mut().write_all(text.as_bytes())?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let Some(mut message) = self.next()? else {
                if Instant::now() > deadline {
                    bail!("QEMU does not answer {command}");
                }
                continue;
            };
            if message.get("return").is_some() {
                return Ok(message["return"].take());
            }
            if message.get("error").is_some() {
                bail!("QEMU refuses {command}: {}", message["error"]);
            }
            if message.get("event").is_some() {
                self.events.push(message);
            }
        }
    }

    /// Whether an event of this name has come since it was last asked for.
    pub(super) fn seen(&mut self, event: &str) -> Result<bool> {
        while let Some(message) = self.next()? {
            self.events.push(message);
        }
        let before = self.events.len();
        self.events.retain(|message| message["event"] != event);
        Ok(self.events.len() < before)
    }

    fn next(&mut self) -> Result<Option<Value>> {
        match self.stream.read_line(&mut self.line) {
            Ok(0) => bail!("QEMU hung up"),
            Ok(_) => {
                let message = serde_json::from_str(&self.line).context("QEMU's word is no JSON")?;
                self.line.clear();
                Ok(Some(message))
            }
            // A part of a line that is there already stays for the next look.
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
