//! The file to share: the machine as a snapshot that tests can use, and what was found, without anything that names
//! a person, a network or this one unit.

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Chosen, Diagnosis, Facts, Other, Verdict};
use crate::machine::Machine;
use crate::probe::{Findings, cache};

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Version of this form: 1.
    pub report: u32,
    pub worker: String,
    /// With the properties of every element that any profile names: a snapshot that plans are tested on.
    pub machine: Machine,
    pub facts: Facts,
    pub chosen: Chosen,
    pub others: Vec<Other>,
    pub findings: Findings,
    pub broken_plugins: Vec<String>,
    pub verdict: Verdict,
}

/// What must not be in it.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Each with what is written in its place; everywhere.
    anywhere: Vec<(Regex, &'static str)>,
    /// Words that may be harmless in a name, so only in sentences and in pieces of files.
    in_text: Vec<(Regex, &'static str)>,
}

/// Below these keys are sentences and pieces of files.
const TEXTS: [&str; 4] = ["text", "detail", "files", "notes"];

impl Secrets {
    /// Of this machine and the user.
    pub fn here() -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let first = |path: &str| cache::text(std::path::Path::new(path));
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let units = [
            "/etc/machine-id",
            "/proc/device-tree/serial-number",
            "/sys/class/dmi/id/product_serial",
            "/sys/class/dmi/id/board_serial",
            "/sys/class/dmi/id/chassis_serial",
            "/sys/class/dmi/id/product_uuid",
        ];
        Self::of(
            &host.unwrap_or_default(),
            &[variable("USER"), variable("LOGNAME")],
            &variable("HOME"),
            &units.map(first),
        )
    }

    pub fn of(host: &str, users: &[String], home: &str, units: &[String]) -> Self {
        let pattern = |text: &str, with: &'static str| Regex::new(text).ok().map(|regex| (regex, with));
        let exactly = |text: &str, with: &'static str| pattern(&regex::escape(text), with);
        let word = |text: &str, with: &'static str| pattern(&format!(r"\b{}\b", regex::escape(text)), with);
        let mut anywhere = vec![
            pattern(r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b", "<mac>"),
            pattern(r"(?i)\bserial(?:[ _-]?(?:number|no))?\s*[:=]\s*\S+", "<serial>"),
        ];
        // Placeholders of firmware ("None", "0") are no serial numbers.
        let units =
            units.iter().filter(|unit| unit.len() >= 6 && unit.bytes().any(|byte| byte.is_ascii_digit()));
        anywhere.extend(units.map(|unit| exactly(unit, "<serial>")));
        if home.len() > 1 && home != "/root" {
            anywhere.push(exactly(home, "~"));
        }
        anywhere.push(pattern("/home/[^/\\s\"]+", "/home/<user>"));
        let mut in_text = Vec::new();
        for user in users.iter().filter(|user| !user.is_empty() && *user != "root") {
            in_text.push(word(user, "<user>"));
        }
        if !host.is_empty() && host != "localhost" {
            in_text.push(word(host, "<host>"));
        }
        Self {
            anywhere: anywhere.into_iter().flatten().collect(),
            in_text: in_text.into_iter().flatten().collect(),
        }
    }

    fn clean(&self, text: &str, in_text: bool) -> String {
        let more = self.in_text.iter().filter(|_| in_text);
        self.anywhere
            .iter()
            .chain(more)
            .fold(text.to_owned(), |text, (secret, with)| secret.replace_all(&text, *with).into_owned())
    }

    /// Every string of `value`, keys included.
    fn take_out_of(&self, value: Value, in_text: bool) -> Value {
        match value {
            Value::String(text) => Value::String(self.clean(&text, in_text)),
            Value::Array(list) => list.into_iter().map(|one| self.take_out_of(one, in_text)).collect(),
            Value::Object(map) => Value::Object(
                map.into_iter()
                    .map(|(key, value)| {
                        let below = in_text || TEXTS.contains(&key.as_str());
                        (self.clean(&key, false), self.take_out_of(value, below))
                    })
                    .collect(),
            ),
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
        }
    }
}

impl Report {
    pub fn new(diagnosis: Diagnosis, machine: Machine) -> Self {
        let Diagnosis { worker, facts, chosen, others, findings, broken_plugins, verdict, .. } = diagnosis;
        Self { report: 1, worker, machine, facts, chosen, others, findings, broken_plugins, verdict }
    }

    /// As it may be shared.
    pub fn to_json(&self, secrets: &Secrets) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&secrets.take_out_of(serde_json::to_value(self)?, false))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_names_a_person_or_a_unit_is_left() {
        let secrets =
            Secrets::of("kitchen-pi", &["alice".to_owned()], "/srv/alice", &["1420921056789".to_owned()]);
        let before = json!({
            "element": "alice",
            "files": {"/x": "kitchen-pi 1420921056789 Serial: ab12 eth0 02:42:ac:11:00:02"},
            "text": "/srv/alice/a.toml and /home/bob/b.toml of alice",
        });
        let after = secrets.take_out_of(before, false);
        assert_eq!(
            after,
            json!({
                // A name that happens to be a user's.
                "element": "alice",
                "files": {"/x": "<host> <serial> <serial> eth0 <mac>"},
                "text": "~/a.toml and /home/<user>/b.toml of <user>",
            })
        );
    }
}
