//! Programs of the system, run with a deadline and bounded output.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Longer lines are cut; nobody here writes such.
const MAX_LINE: u64 = 64 * 1024;
/// Output that is kept: RAUC's status of a board with a dozen slots is a tenth of it. Of more, the end counts.
const MAX_TEXT: usize = 256 * 1024;
/// For questions, which are answered at once.
pub(crate) const QUICK: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("cannot run {program}: {source}")]
    Run { program: String, source: std::io::Error },
    #[error("{program} did not end within {after:?} and was killed")]
    TooSlow { program: String, after: Duration },
    #[error("{program} ended with {status}")]
    Failed { program: String, status: std::process::ExitStatus, text: String },
}

impl ToolError {
    /// What the program said.
    pub(crate) fn text(&self) -> &str {
        match self {
            ToolError::Run { .. } | ToolError::TooSlow { .. } => "",
            ToolError::Failed { text, .. } => text,
        }
    }
}

/// Runs a program to its end; its standard output. Both outputs go to `line` as they come.
pub(crate) fn run(
    program: &str,
    args: &[&str],
    deadline: Duration,
    line: impl FnMut(&str),
) -> Result<String, ToolError> {
    run_in(Path::new("."), program, args, deadline, line)
}

/// The same, for a program that writes into its working folder.
pub(crate) fn run_in(
    folder: &Path,
    program: &str,
    args: &[&str],
    deadline: Duration,
    mut line: impl FnMut(&str),
) -> Result<String, ToolError> {
    let failed = |source| ToolError::Run { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that its children can be ended with it. Texts are compared: no translations.
    command.process_group(0).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    let mut child = command.spawn().map_err(failed)?;
    let group = i32::try_from(child.id()).ok().map(Pid::from_raw);
    let (sender, lines) = sync_channel(64);
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
        child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>),
    ];
    for (index, output) in outputs.into_iter().enumerate() {
        let (Some(output), sender) = (output, sender.clone()) else { continue };
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut bytes = Vec::new();
            while let Ok(1..) = output.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                bytes.clear();
                if sender.send((index, text)).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let end = Instant::now() + deadline;
    let (mut stdout, mut all) = (String::new(), String::new());
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((index, text)) => {
                line(&text);
                keep(&mut all, &text);
                if index == 0 {
                    keep(&mut stdout, &text);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(group) = group {
                    // An error means that nobody is left.
                    let _ = killpg(group, Signal::SIGKILL);
                }
                let _ = child.wait();
                return Err(ToolError::TooSlow { program: program.to_owned(), after: deadline });
            }
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        Ok(stdout)
    } else {
        Err(ToolError::Failed { program: program.to_owned(), status, text: all.trim_end().to_owned() })
    }
}

fn keep(text: &mut String, line: &str) {
    if text.len() + line.len() > MAX_TEXT {
        text.clear();
    }
    text.push_str(line);
    text.push('\n');
}

/// A question; its answer without white space around it.
pub(crate) fn ask(program: &str, args: &[&str]) -> Result<String, ToolError> {
    run(program, args, QUICK, |_| {}).map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let error = run("sh", &["-c", "echo begun; sleep 1000 & wait"], Duration::from_millis(300), |_| {});
        assert!(matches!(error.unwrap_err(), ToolError::TooSlow { .. }));
    }

    #[test]
    fn both_outputs_are_evidence_and_only_one_is_the_answer() {
        let script = "echo good; echo bad >&2; exit $0";
        assert_eq!(ask("sh", &["-c", script, "0"]).unwrap(), "good");
        let error = ask("sh", &["-c", script, "3"]).unwrap_err();
        assert!(error.text().contains("good") && error.text().contains("bad"), "{error:?}");
    }

    #[test]
    fn a_program_that_is_not_there_cannot_be_run() {
        assert!(matches!(ask("no-such-program", &[]), Err(ToolError::Run { .. })));
    }
}
