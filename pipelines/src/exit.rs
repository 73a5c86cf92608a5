//! How the worker's process ends.

use std::process::ExitCode;

/// The documented exit codes. `--help` lists them; 2 is a wrong command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All was done, or the agent closed the socket.
    Done = 0,
    /// The work failed; standard error says why.
    Failed = 1,
    /// What came over the socket was no frame of the worker's protocol.
    Protocol = 3,
    /// A pipeline stood still and could not be stopped.
    Hung = 4,
    /// GStreamer or the board profile could not be loaded.
    Start = 5,
    /// `doctor`: it works, but without some of the hardware that the board's profile names.
    Partly = 6,
}

/// For `--help`.
pub const HELP: &str = "Exit codes: 0 done, 1 failed (standard error says why), 2 wrong command line, 3 garbage on the \
     socket, 4 a pipeline hung, 5 GStreamer could not be started, 6 doctor: it works, but without some of the board's \
     hardware";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// Ends the process with threads still in it, where they can no longer be stopped.
    // A thread stuck in a driver ends only with its process.
    pub fn now(self) -> ! {
        std::process::exit(self as i32)
    }
}
