//! What a try to enrol means for the card. systemd runs this after every try and tells how it ended.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::SetupError;
use crate::file::BoardFile;
use crate::files::{self, BOOT, ERROR_FILE, FILE};

const TOKEN: &str = "run/headwater/token";
/// What the agent said on standard error.
const SAID: &str = "run/headwater/enroll.err";

/// How a try ended, by the agent's exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Enrolled,
    /// Trying again does not help: the token is used, expired or someone else's.
    Refused,
    /// Nor does it before somebody has changed something; the token was not shown to the gateway.
    Misconfigured,
    /// The network, the gateway or the clock: systemd tries again.
    NotYet,
}

impl Ending {
    /// `EXIT_STATUS` of systemd.exec(5); a signal is a name.
    fn of(exit_status: &str) -> Self {
        match exit_status {
            "0" => Self::Enrolled,
            // The agent's exit status: 2 its command line or configuration is wrong, 4 enrolment was refused.
            "2" => Self::Misconfigured,
            "4" => Self::Refused,
            _ => Self::NotYet,
        }
    }
}

pub(crate) fn enrolled(root: &Path) -> Result<String, SetupError> {
    let ending = Ending::of(&std::env::var("EXIT_STATUS").unwrap_or_default());
    let told = note(root, ending)?;
    if ending == Ending::Enrolled {
        // Not waited for: systemd is still busy with the unit that this is part of.
        let started =
            Command::new("systemctl").args(["--no-block", "restart", "headwater-agent.service"]).status();
        started.map_err(SetupError::file("run", Path::new("systemctl")))?;
    }
    Ok(told)
}

/// Puts the ending on the card; returns a sentence for the console.
fn note(root: &Path, ending: Ending) -> Result<String, SetupError> {
    let said = fs::read_to_string(root.join(SAID)).unwrap_or_default();
    let reason = said.trim().lines().next_back().unwrap_or("no reason given").to_owned();
    let complaint = root.join(BOOT).join(ERROR_FILE);
    match ending {
        Ending::Enrolled => {
            forget_token(root)?;
            files::unsay(&complaint)?;
            Ok("enrolled; the token was taken off the boot partition".to_owned())
        }
        Ending::Refused => {
            forget_token(root)?;
            files::say(
                &complaint,
                &format!(
                    "Enrolment was refused.\n{reason}\n\nThe token was taken out of {FILE}; put a new one there."
                ),
            )?;
            Ok(format!("enrolment was refused: {reason}"))
        }
        Ending::Misconfigured => {
            files::say(
                &complaint,
                &format!(
                    "Not enrolled, because of the agent's configuration.\n{reason}\n\nThe token was not used and stays in \
                     {FILE}. Mend what is wrong and start the board again."
                ),
            )?;
            Ok(format!("not enrolled, because of the agent's configuration: {reason}"))
        }
        Ending::NotYet => {
            files::say(&complaint, &format!("Not enrolled yet; the board goes on trying.\n{reason}"))?;
            Ok(format!("not enrolled yet: {reason}"))
        }
    }
}

/// The token in the file becomes empty, the rest of the file stays, byte by byte.
fn forget_token(root: &Path) -> Result<(), SetupError> {
    files::unsay(&root.join(TOKEN))?;
    let path = root.join(BOOT).join(FILE);
    let board = BoardFile::read(&fs::read(&path).map_err(SetupError::file("read", &path))?)?;
    if let (Some(_), Some(place)) = (board.token(), &board.token) {
        let span = place.span();
        files::overwrite(&path, span.start, &format!("{:<1$}", "\"\"", span.len()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::TOKEN as A_TOKEN;

    fn card(said: &str) -> (tempfile::TempDir, String) {
        let root = tempfile::tempdir().unwrap();
        for folder in [BOOT, "run/headwater"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let text = format!("# mine\r\ntoken = \"{A_TOKEN}\"  # from Anna\r\nhostname = \"north\"\r\n");
        fs::write(root.path().join(BOOT).join(FILE), &text).unwrap();
        fs::write(root.path().join(TOKEN), A_TOKEN).unwrap();
        fs::write(root.path().join(SAID), said).unwrap();
        (root, text)
    }

    fn read(root: &tempfile::TempDir, name: &str) -> Option<String> {
        fs::read_to_string(root.path().join(BOOT).join(name)).ok()
    }

    #[test]
    fn a_used_token_is_gone_from_the_card_and_the_rest_stays() {
        let (root, before) = card("");
        fs::write(root.path().join(BOOT).join(ERROR_FILE), "old").unwrap();
        note(root.path(), Ending::Enrolled).unwrap();
        let after = read(&root, FILE).unwrap();
        assert_eq!(after.len(), before.len());
        assert!(
            !after.contains("hw1/") && after.contains("# from Anna\r\nhostname = \"north\"\r\n"),
            "{after}"
        );
        assert_eq!(after.parse::<BoardFile>().unwrap().token(), None);
        assert_eq!(read(&root, ERROR_FILE), None);
        assert!(!root.path().join(TOKEN).exists());
    }

    #[test]
    fn a_refused_token_is_gone_too_and_the_reason_is_on_the_card() {
        let (root, _) = card("headwater-agent: the gateway refused the token: it was used\n");
        note(root.path(), Ending::Refused).unwrap();
        assert_eq!(read(&root, FILE).unwrap().parse::<BoardFile>().unwrap().token(), None);
        assert!(read(&root, ERROR_FILE).unwrap().contains("it was used"));
    }

    #[test]
    fn while_the_gateway_is_away_the_token_stays() {
        let (root, before) = card("headwater-agent: cannot fetch the CA certificate\n");
        note(root.path(), Ending::NotYet).unwrap();
        assert_eq!(read(&root, FILE).unwrap(), before);
        assert!(root.path().join(TOKEN).exists());
        assert!(read(&root, ERROR_FILE).unwrap().contains("cannot fetch"));
    }

    #[test]
    fn a_configuration_with_which_the_agent_does_not_start_costs_no_token() {
        let (root, before) =
            card("headwater-agent: /etc/headwater/agent.toml is not a valid configuration\n");
        note(root.path(), Ending::Misconfigured).unwrap();
        assert_eq!(read(&root, FILE).unwrap(), before);
        assert!(root.path().join(TOKEN).exists());
        let told = read(&root, ERROR_FILE).unwrap();
        assert!(told.contains("not a valid configuration") && told.contains("was not used"), "{told}");
    }

    #[test]
    fn an_ending_is_told_by_the_agents_status() {
        let all = ["0", "2", "4", "70", "TERM", ""].map(Ending::of);
        let wanted = [
            Ending::Enrolled,
            Ending::Misconfigured,
            Ending::Refused,
            Ending::NotYet,
            Ending::NotYet,
            Ending::NotYet,
        ];
        assert_eq!(all, wanted);
    }
}
