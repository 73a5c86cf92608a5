//! Every way this program ends, as a number that a service manager and a script can act on.

use std::process::ExitCode;

/// Exit status; documented in `--help` and README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Ended as asked.
    Ok = 0,
    /// The command line or the configuration is wrong. Starting again does not help.
    Usage = 2,
    /// There is no identity yet: run `headwater-agent enroll TOKEN`.
    NotEnrolled = 3,
    /// The token was refused, or the server is not the one that the token names.
    EnrolmentRefused = 4,
    /// The state folder cannot be used.
    StateDir = 5,
    /// A restart was asked for over MQTT; the service manager starts the agent anew.
    Restart = 6,
    /// A new boot was asked for, and root's helper has been told.
    Reboot = 7,
    /// Anything else: a bug or a broken system.
    Internal = 70,
}

impl Exit {
    pub(crate) const HELP: &str = "\
Exit status:
   0  ended as asked
   2  the command line or the configuration is wrong
   3  this node has no identity yet: run `headwater-agent enroll TOKEN`
   4  enrolment was refused
   5  the state folder cannot be used
   6  a restart was asked for; the service manager starts the agent anew
   7  a new boot was asked for, and has begun
  70  anything else";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
