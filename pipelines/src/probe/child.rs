//! One candidate in a process of its own: started, listened to, killed at its deadline.
//!
//! The child says what it found line by line, so that what it proved stands even where something later hangs it.

use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater_protocol::Fault;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::candidate::Candidate;
use super::finding::{Outcome, Proof};
use super::{Options, words};

/// What a child says, one JSON value per line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The V4L2 controls of its device, before it is tried.
    Controls(BTreeSet<String>),
    /// Pictures come out, slow or not.
    Moves,
    Proved(Proof),
    /// So many ran at once, after it was proved.
    Instances(u32),
    /// One more than so many did not.
    Limit(u32),
    Failed(Fault),
}

/// A child's answer has a few hundred bytes; what a vendor's library prints between the lines is skipped.
const MAX_LINE: u64 = 1 << 16;
/// Bytes of its standard error that are kept as evidence, the last ones.
const MAX_ERRORS: usize = 4096;
/// After SIGKILL a process that is not stuck in the kernel is gone in milliseconds.
const REAP: Duration = Duration::from_secs(5);
/// A candidate that moves gets so many of its deadlines in all.
pub(super) const DEADLINES: u32 = 4;
/// What the command line takes at most.
const LONGEST: Duration = Duration::from_secs(300);
/// How often a child that was killed is asked for.
const POLL: Duration = Duration::from_millis(10);

/// How a child ended.
enum End {
    Exited(ExitStatus),
    /// It was killed at its deadline.
    Killed,
    /// It is still there after SIGKILL.
    Stuck,
}

/// What came of a candidate's process.
pub(super) struct Tried {
    pub outcome: Outcome,
    /// Of its device; None where it takes none or they could not be read.
    pub controls: Option<BTreeSet<String>>,
    /// Its process could not be killed.
    pub stuck: bool,
}

/// Proves one candidate.
pub(super) fn prove(candidate: &Candidate, options: &Options) -> Tried {
    let mut child = match start(candidate, options) {
        Ok(child) => child,
        Err(error) => {
            let outcome = Outcome::Failed(words::not_started(candidate, &error));
            return Tried { outcome, controls: None, stuck: false };
        }
    };
    let errors = keep_tail(&mut child);
    let lines = read_lines(&mut child);
    let deadline = deadline(candidate, options);
    let (said, end) = listen(&mut child, &lines, deadline);
    let tail = {
        let kept = errors.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&Vec::from(kept.clone())).into_owned()
    };
    let controls =
        said.iter().find_map(|one| if let Said::Controls(all) = one { Some(all.clone()) } else { None });
    let stuck = matches!(end, End::Stuck);
    Tried { outcome: judge(candidate, deadline, said, &end, &tail), controls, stuck }
}

/// Software is slow on a small board, and does not hang.
fn deadline(candidate: &Candidate, options: &Options) -> Duration {
    if candidate.software { (options.deadline * 2).min(LONGEST) } else { options.deadline }
}

fn start(candidate: &Candidate, options: &Options) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(board) = &options.board {
        command.env("HEADWATER_BOARD", board);
    }
    command
        .args([
            "probe-one",
            &candidate.key(),
            "--deadline",
            &deadline(candidate, options).as_secs_f64().to_string(),
        ])
        .args(["--parent", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group, so that what a plugin starts is killed with it.
        .process_group(0)
        .spawn()
}

/// For the child: the kernel kills this process when its parent ends, which else would be for each candidate to find
/// out by itself.
pub fn end_with_parent(parent: u32) -> std::io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(std::io::Error::other("the process that asked for this probe is gone"))
    }
}

fn keep_tail(child: &mut Child) -> Arc<Mutex<VecDeque<u8>>> {
    let kept = Arc::new(Mutex::new(VecDeque::new()));
    if let Some(mut errors) = child.stderr.take() {
        let kept = Arc::clone(&kept);
        // Ends with the pipe; not joined, for a process in the kernel keeps it open.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count) = errors.read(&mut piece) {
                if count == 0 {
                    return;
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&piece[..count]);
                let over = kept.len().saturating_sub(MAX_ERRORS);
                kept.drain(..over);
            }
        });
    }
    kept
}

/// The child's words; the channel closes with its output.
fn read_lines(child: &mut Child) -> Receiver<Said> {
    let (sender, receiver) = channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            loop {
                line.clear();
                match (&mut output).take(MAX_LINE).read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                let Ok(said) = serde_json::from_slice(&line) else { continue };
                // Nobody listens any more; the pipe is emptied all the same, for a full one would hold the child.
                let _ = sender.send(said);
            }
        });
    }
    receiver
}

fn listen(child: &mut Child, lines: &Receiver<Said>, deadline: Duration) -> (Vec<Said>, End) {
    // One more than the child takes, which then says itself that it was too slow.
    let over = Instant::now() + deadline * (DEADLINES + 1);
    let mut said = Vec::new();
    loop {
        let until = over.min(Instant::now() + deadline);
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(one) => said.push(one),
            Err(RecvTimeoutError::Timeout) => break,
            // Its output is closed, so it is about to end.
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(status) = wait(child, until) {
                    return (said, End::Exited(status));
                }
                break;
            }
        }
    }
    kill(child);
    let end = wait(child, Instant::now() + REAP);
    said.extend(lines.try_iter());
    (said, if end.is_some() { End::Killed } else { End::Stuck })
}

fn wait(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        // An error means that it is not ours any more, which cannot be; the deadline ends that too.
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

fn kill(child: &mut Child) {
    // Not reaped yet, so the number is still its own. Either may find nobody left.
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.kill();
}

fn judge(candidate: &Candidate, deadline: Duration, said: Vec<Said>, end: &End, tail: &str) -> Outcome {
    let mut proof = None;
    for one in said {
        match (one, &mut proof) {
            (Said::Controls(_) | Said::Moves, _) => {}
            (Said::Failed(fault), _) => return Outcome::Failed(fault),
            (Said::Proved(found), _) => proof = Some(found),
            (Said::Instances(count), Some(proof)) => proof.instances = Some(count),
            (Said::Limit(count), Some(proof)) => proof.limit = Some(count),
            (Said::Instances(_) | Said::Limit(_), None) => {}
        }
    }
    match (end, proof) {
        (End::Stuck, _) => Outcome::Failed(words::unkillable(candidate)),
        (End::Exited(status), Some(proof)) if status.success() => Outcome::Proved(proof),
        (End::Exited(_) | End::Killed, Some(mut proof)) => {
            // Only the counting of instances follows the proof.
            let count = proof.instances.unwrap_or(1);
            proof.notes.push(format!("more than {count} at once hung or crashed it"));
            (proof.instances, proof.limit) = (Some(count), Some(count));
            Outcome::Proved(proof)
        }
        (End::Killed, None) => Outcome::Failed(words::hung(candidate, deadline, tail)),
        (End::Exited(status), None) => Outcome::Failed(words::crashed(candidate, *status, tail)),
    }
}
