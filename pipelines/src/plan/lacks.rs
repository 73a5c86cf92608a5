//! Why nothing of the board's does a piece of work, in a sentence that says what to do.

use std::collections::BTreeSet;

use headwater_protocol::{Code, Fault};

use super::sessions::{Full, Why};
use crate::machine::Machine;

/// One way to do it, and why it is none here.
#[derive(Debug)]
pub(super) struct Lack<'a> {
    /// The first that exists would do.
    pub factory: &'a [String],
    pub package: &'a str,
    pub why: Why,
}

/// The work that nothing does.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// Before the sentence: whose work it is.
    pub whose: String,
    /// `decoder`
    pub who: &'a str,
    /// `decodes`
    pub does: &'a str,
    /// `H264`
    pub what: String,
    /// Where it is not for want of a session.
    pub code: Code,
}

impl Lack<'_> {
    /// A probe's sentence names the element itself.
    fn said(&self) -> String {
        let named = self.factory.iter().any(|name| self.why.text.starts_with(name));
        if named { self.why.to_string() } else { format!("{}: {}", self.factory.join(" or "), self.why) }
    }
}

/// One element may stand in a profile for several kinds of memory.
fn each_once(said: impl Iterator<Item = String>) -> Vec<String> {
    said.fold(Vec::new(), |mut all, one| {
        if !all.contains(&one) {
            all.push(one);
        }
        all
    })
}

/// All that could do `work` here, if it did not lack something.
pub(super) fn fault(machine: &Machine, work: &Work<'_>, lacks: &[Lack<'_>]) -> Fault {
    let Work { whose, who, does, what, code } = work;
    // Those that are here, and are not for this or did not prove themselves.
    let is_here = |lack: &&Lack<'_>| lack.factory.iter().any(|name| machine.elements.contains_key(name));
    let (here, missing): (Vec<&Lack<'_>>, Vec<_>) = lacks.iter().partition(is_here);
    let packages: BTreeSet<&str> = missing.into_iter().map(|lack| lack.package).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    let install =
        if packages.is_empty() { String::new() } else { format!("; install {}", packages.join(" or ")) };
    let full = lacks.iter().filter(|lack| lack.why.full.is_some());
    let full = each_once(full.map(|lack| lack.why.text.clone()));
    let is_busy = lacks.iter().any(|lack| lack.why.full == Some(Full::Others));
    let (code, text) = if full.is_empty() {
        let here = each_once(here.into_iter().map(Lack::said));
        let here = if here.is_empty() { String::new() } else { format!(" ({})", here.join("; ")) };
        (*code, format!("{whose}no {who} for {what} works here{here}{install}"))
    } else {
        let advice = if is_busy { "; try again when one ends" } else { &install };
        let full = full.join("; ");
        let code = if is_busy { Code::Busy } else { *code };
        (code, format!("{whose}{full}, and nothing else here {does} {what}{advice}"))
    };
    let detail = each_once(lacks.iter().map(Lack::said));
    Fault::new(code, text).with_detail(detail.join("\n"))
}
