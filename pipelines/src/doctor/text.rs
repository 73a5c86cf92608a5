//! A diagnosis as a page of text.

use std::collections::BTreeMap;
use std::fmt::Write;

use headwater_protocol::CapabilityKind;

use super::{Diagnosis, Verdict};
use crate::board::Status;
use crate::listing;
use crate::plan::{Explanation, Feed, Way};
use crate::probe::{Finding, Outcome, words};

/// Columns of a page.
const WIDTH: usize = 80;
/// Columns that stand before what is said of each thing.
const INDENT: usize = 11;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    pub colored: bool,
}

#[derive(Clone, Copy)]
enum Tone {
    Good,
    Bad,
    Warning,
    Title,
}

impl Style {
    fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warning => "33",
            Tone::Title => "1",
        };
        if self.colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// `text` in lines of [`WIDTH`], all but the first indented.
fn wrapped(indent: usize, text: &str) -> String {
    let mut out = String::new();
    let mut column = indent;
    for word in text.split_whitespace() {
        let long = word.chars().count();
        if column > indent && column + 1 + long > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
        if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += long;
    }
    out
}

struct Page {
    text: String,
    style: Style,
}

impl Page {
    // Writing to a String cannot fail.
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{}", line.trim_end());
    }

    fn title(&mut self, title: &str) {
        let title = self.style.paint(Tone::Title, title);
        self.line("");
        self.line(&title);
    }

    fn said(&mut self, name: &str, text: &str) {
        self.line(&format!("{name:<INDENT$}{}", wrapped(INDENT, text)));
    }

    fn item(&mut self, text: &str) {
        self.line(&format!("- {}", wrapped(2, text)));
    }
}

/// The whole page.
pub fn page(diagnosis: &Diagnosis, style: Style) -> String {
    let mut page = Page { text: String::new(), style };
    machine(&mut page, diagnosis);
    profile(&mut page, diagnosis);
    table(&mut page, &diagnosis.findings.found);
    reasons(&mut page, diagnosis);
    plan(&mut page, diagnosis);
    conclusion(&mut page, diagnosis);
    page.text
}

fn machine(page: &mut Page, diagnosis: &Diagnosis) {
    let facts = &diagnosis.facts;
    let model = if facts.model.is_empty() { "unknown" } else { &facts.model };
    page.said("machine", model);
    if !facts.chip.is_empty() {
        page.said("chip", &facts.chip);
    }
    page.said("", &format!("{}, {} cores, {} MB of memory", facts.arch, facts.cores, facts.memory_mb));
    page.said("worker", &format!("{}, GStreamer {}", diagnosis.worker, facts.gstreamer));
    for (name, version) in &facts.drivers {
        page.said(name, version);
    }
}

fn profile(page: &mut Page, diagnosis: &Diagnosis) {
    let chosen = &diagnosis.chosen;
    page.said("profile", &format!("{}: {}", chosen.id, chosen.title));
    let status = match chosen.status {
        Status::Verified => "a report from this kind of board stands behind it",
        Status::Community => "somebody runs it; there is no report of ours",
        Status::Experimental => {
            "written from documentation, never run on this board by us: please send the file that \
             `headwater-worker doctor --report FILE` writes"
        }
    };
    page.said("status", &format!("{}: {status}", listing::word(chosen.status)));
    if chosen.asked_for {
        page.said("", "it was asked for by name");
    }
    for lacking in &chosen.lacking {
        page.said("", &format!("it wants {lacking} in the environment, which is not set"));
    }
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for other in &diagnosis.others {
        others.entry(&other.why_not).or_default().push(&other.id);
    }
    for (why, ids) in others {
        page.said("not used", &format!("{}: {why}", ids.join(", ")));
    }
}

fn table(page: &mut Page, found: &[Finding]) {
    let row = |cells: [&str; 5]| {
        format!("{:<13} {:<20} {:<16} {:>8} {:>7}", cells[0], cells[1], cells[2], cells[3], cells[4])
    };
    page.title(&format!("{} verdict", row(["what", "element", "memory", "fps 720p", "at once"])));
    for Finding { candidate, outcome, .. } in found {
        let kind = match candidate.kind {
            CapabilityKind::Decode => "decode",
            CapabilityKind::Scale => "scale",
            CapabilityKind::Encode => "encode",
        };
        let what = candidate
            .codec
            .map_or_else(|| kind.to_owned(), |codec| format!("{kind} {}", words::codec(codec)));
        let memory = match &candidate.from {
            Some(from) => format!("{from} > {}", candidate.memory),
            None => candidate.memory.clone(),
        };
        let (speed, instances) = match outcome.proof() {
            Some(proof) => {
                let instances = proof.instances.map_or_else(|| "-".to_owned(), |count| count.to_string());
                (format!("{:.0}", proof.speed_fps), instances)
            }
            None => ("-".to_owned(), "-".to_owned()),
        };
        let (tone, verdict) = match outcome {
            Outcome::Proved(_) => (Tone::Good, "proved"),
            Outcome::Missing(_) => (Tone::Warning, "missing"),
            Outcome::Failed(_) => (Tone::Bad, "fails"),
            Outcome::NotTried(_) => (Tone::Warning, "untried"),
        };
        let cells = row([&what, &candidate.element, &memory, &speed, &instances]);
        let verdict = page.style.paint(tone, verdict);
        page.line(&format!("{cells} {verdict}"));
    }
}

fn reasons(page: &mut Page, diagnosis: &Diagnosis) {
    let found = &diagnosis.findings.found;
    let mut faults: Vec<&str> =
        found.iter().filter_map(|finding| finding.outcome.fault()).map(|fault| fault.text.as_str()).collect();
    // One element may miss for several codecs.
    let mut seen = std::collections::BTreeSet::new();
    faults.retain(|fault| seen.insert(*fault));
    if !faults.is_empty() {
        page.title("What is not used, and why");
        for fault in faults {
            page.item(fault);
        }
    }
    let notes = found.iter().flat_map(|Finding { candidate, outcome, .. }| {
        let notes = outcome.proof().map(|proof| proof.notes.as_slice()).unwrap_or_default();
        notes.iter().map(|note| format!("{}: {note}", candidate.element))
    });
    let broken =
        diagnosis.broken_plugins.iter().map(|file| format!("GStreamer could not load the plugin {file}"));
    let all: Vec<String> = notes.chain(broken).chain(diagnosis.chosen.notes.iter().cloned()).collect();
    if !all.is_empty() {
        page.title("Notes");
        for note in &all {
            page.item(note);
        }
    }
}

fn plan(page: &mut Page, diagnosis: &Diagnosis) {
    page.title("1080p30 to 720p, 480p, 360p and 240p");
    match (&diagnosis.plan, &diagnosis.no_plan) {
        (Some(plan), _) => {
            let [decode, encode] = lines(plan);
            page.said("decode", &decode);
            page.said("encode", &encode);
        }
        (None, Some(fault)) => page.said("cannot", &fault.text),
        (None, None) => {}
    }
}

/// The plan in two lines: how it is decoded, how it is encoded.
fn lines(plan: &Explanation) -> [String; 2] {
    let decoder = plan.decode.elements.last().map_or("", |element| element.factory.as_str());
    let decode = format!("{decoder}, pictures in {} memory", plan.decode.memory);
    let mut encoders: Vec<&str> = Vec::new();
    let mut scalers: Vec<&str> = Vec::new();
    let splits = plan.outputs.splits.iter().map(|element| element.factory.as_str());
    for rung in &plan.outputs.rungs {
        encoders.push(&rung.element.factory);
        scalers.extend(
            rung.before.first().filter(|_| rung.feed == Feed::Decoded).map(|one| one.factory.as_str()),
        );
    }
    scalers.extend(splits);
    for list in [&mut encoders, &mut scalers] {
        list.dedup();
    }
    let how = match plan.outputs.way {
        Way::Software => "scaled by Headwater in system memory, one size from the next".to_owned(),
        Way::Native if scalers.is_empty() => "scaled by the encoders".to_owned(),
        Way::Native => format!("scaled by {}", scalers.join(", ")),
    };
    [decode, format!("{how}; {}", encoders.join(", "))]
}

fn conclusion(page: &mut Page, diagnosis: &Diagnosis) {
    let tried = |finding: &&Finding| match finding.outcome {
        Outcome::NotTried(_) => false,
        Outcome::Proved(_) | Outcome::Missing(_) | Outcome::Failed(_) => !finding.candidate.software,
    };
    let hardware = diagnosis.findings.found.iter().filter(tried);
    let (proved, all) = hardware.fold((0, 0), |(proved, all), finding| {
        (proved + usize::from(finding.outcome.proof().is_some()), all + 1)
    });
    let (tone, text) = match diagnosis.verdict {
        Verdict::Works if all == 0 => {
            (Tone::Good, "It works, in software: this profile names no hardware.".to_owned())
        }
        Verdict::Works => {
            (Tone::Good, format!("It works: {proved} of {all} uses of its hardware are proved."))
        }
        Verdict::Partly => (
            Tone::Warning,
            format!(
                "It works, but only {proved} of {all} uses of the board's hardware are proved; software does the rest."
            ),
        ),
        Verdict::Nothing => (
            Tone::Bad,
            "It does not work: there is no way to make the standard ladder. What is missing is said above."
                .to_owned(),
        ),
    };
    let text = wrapped(0, &text);
    let text = page.style.paint(tone, &text);
    page.line("");
    page.line(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_words_and_indented() {
        let text = wrapped(4, &"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        assert!(text.lines().skip(1).all(|line| line.starts_with("    word")));
        assert_eq!(text.split_whitespace().count(), 40);
    }
}
