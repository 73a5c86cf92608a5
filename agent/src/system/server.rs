//! The socket: who may ask, what comes in, what goes out.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_protocol::{Code, Fault};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Uid, User};

use super::wire::{Answer, MAX_LINE, Request};
use super::{System, guard};

/// Callers at once. The agent needs two: a status beside an installation.
const CALLERS: usize = 4;
/// For a caller to say what it wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until nobody has asked for a while. Without a path the service manager has passed the listening socket as
/// standard input.
pub(super) fn serve(system: &System, path: Option<&Path>) -> anyhow::Result<()> {
    let listener = match path {
        Some(path) => listen(path).with_context(|| format!("cannot listen on {}", path.display()))?,
        None => {
            let stdin = io::stdin().as_fd().try_clone_to_owned()?;
            let listener = UnixListener::from(stdin);
            listener
                .local_addr()
                .context("standard input is no socket; use --socket, or start headwater-system.socket")?;
            listener
        }
    };
    // Another process may take the caller that woke this one.
    listener.set_nonblocking(true)?;
    let callers = AtomicUsize::new(0);
    let idle = Duration::from_secs(system.config.idle_seconds);
    std::thread::scope(|scope| {
        let mut last = Instant::now();
        loop {
            // Looked at each second, since a caller's end wakes nobody.
            let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wait, PollTimeout::from(1000u16)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    last = Instant::now();
                    if callers.fetch_add(1, Ordering::Relaxed) >= CALLERS {
                        callers.fetch_sub(1, Ordering::Relaxed);
                        refuse(stream, Fault::new(Code::Busy, "too many ask at once"));
                        continue;
                    }
                    let callers = &callers;
                    scope.spawn(move || {
                        caller(system, stream);
                        callers.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if callers.load(Ordering::Relaxed) > 0 {
                last = Instant::now();
            } else if last.elapsed() > idle && path.is_none() {
                return Ok(());
            }
        }
    })
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    // Who may do more than connect is decided below.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn refuse(mut stream: UnixStream, fault: Fault) {
    let _ = stream.set_write_timeout(Some(PATIENCE));
    say(&mut stream, &Answer::Fault(fault));
}

/// A caller that does not listen any more misses the answer; what it asked for is done all the same.
fn say(stream: &mut UnixStream, answer: &Answer) {
    // Plain structs with text keys: nothing in them can fail to be written as JSON.
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let _ = stream.write_all(&line);
}

fn caller(system: &System, mut stream: UnixStream) {
    let welcome = welcome(system, &stream);
    // Read in any case: who hangs up on unread words takes its own last ones back.
    let read = read(&mut stream);
    let request = match (welcome, read) {
        (Ok(()), Ok(request)) => request,
        (Err(fault), _) => {
            tracing::warn!(reason = fault.text, "refused");
            return refuse(stream, fault);
        }
        (Ok(()), Err(error)) => {
            return refuse(stream, Fault::new(Code::Unsupported, format!("no request: {error}")));
        }
    };
    tracing::info!(?request, "asked");
    let storage = |error: io::Error| Fault::new(Code::Storage, format!("the helper's journal: {error}"));
    let answer = match request {
        Request::Status => system.status().map(|status| Answer::Status(Box::new(status))).map_err(storage),
        Request::Install { order } => system.install(&order, &mut |percent| {
            say(&mut stream, &Answer::Progress { percent });
        }),
        Request::Commit { order } => system.commit(&order).map(|()| Answer::Done),
        // Not into what is being installed, before it was looked at.
        Request::Reboot => system.work().and_then(|_lock| guard::reboot()).map(|()| Answer::Done),
    };
    if let Err(fault) = &answer {
        tracing::warn!(code = %fault.code, reason = fault.text, "not done");
    }
    say(&mut stream, &answer.unwrap_or_else(Answer::Fault));
}

/// Only root and the agent's user are served, whatever the socket's mode says.
fn welcome(system: &System, stream: &UnixStream) -> Result<(), Fault> {
    let refused = |text: String| Fault::new(Code::Unsupported, text);
    stream.set_nonblocking(false).map_err(|error| refused(error.to_string()))?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(|error| refused(error.to_string()))?;
    let peer = getsockopt(stream, PeerCredentials);
    let peer = Uid::from_raw(peer.map_err(|errno| refused(format!("who asks is not known: {errno}")))?.uid());
    let user = &system.config.user;
    let agent = User::from_name(user).ok().flatten().map(|user| user.uid);
    if peer.is_root() || Some(peer) == agent {
        Ok(())
    } else {
        Err(refused(format!("user {peer} may not ask; only root and {user} may")))
    }
}

fn read(stream: &mut UnixStream) -> io::Result<Request> {
    let end = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let n = stream.read(&mut chunk)?;
        line.extend_from_slice(&chunk[..n]);
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            return serde_json::from_slice(&line[..end]).map_err(io::Error::other);
        }
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.len() as u64 > MAX_LINE {
            return Err(io::Error::other("the request is too long"));
        }
    }
}
