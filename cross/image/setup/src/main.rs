//! Between a person with a card reader and a board without a keyboard: `headwater.toml` on the boot partition.
//!
//! ```text
//! apply      at every boot: headwater.toml ─▶ files in /run for the network, ssh, the clock and enrolment;
//!            its proxy ─▶ the agent's configuration
//! enrolled   after every try: takes a token off the card that is used or refused; says why it is neither
//! ```
//!
//! Whatever is wrong is told on the console and in `headwater-error.txt` beside the file, and the board boots.

mod agent_file;
mod enrolled;
mod file;
mod files;
mod plan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use file::BoardFile;
use files::{BOOT, ERROR_FILE, FILE};

/// Why a verb did not do all that it should.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    File { verb: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{FILE}: {0}")]
    BadFile(#[from] file::BadFile),
}

impl SetupError {
    fn file(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = Path::new("/");
    let result = match arguments.as_slice() {
        ["apply"] => apply(root),
        ["enrolled"] => enrolled::enrolled(root),
        _ => {
            eprintln!("usage: headwater-setup apply | enrolled");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(said) => {
            println!("headwater: {said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("headwater: {error}");
            ExitCode::from(1)
        }
    }
}

/// Puts what the file says in place; returns a sentence for the console. A file with one mistake is not applied at
/// all, so that nobody has to guess which half of it holds.
fn apply(root: &Path) -> Result<String, SetupError> {
    let boot = root.join(BOOT);
    let complaint = boot.join(ERROR_FILE);
    let board = match read(&boot.join(FILE)) {
        Ok(Some(board)) => board,
        Ok(None) => {
            return Ok(format!("there is no {FILE} on the boot partition; the network is asked for by DHCP"));
        }
        Err(error) => {
            files::say(
                &complaint,
                &format!("{error}\n\nNothing of the file was applied. Mend it and start the board again."),
            )?;
            return Err(error);
        }
    };
    files::unsay(&complaint)?;
    let (done, writes) = plan::plan(&board);
    for write in &writes {
        files::put(root, write)?;
    }
    agent_file::set_proxy(root, board.proxy())?;
    Ok(done)
}

/// None where there is no such file.
fn read(path: &Path) -> Result<Option<BoardFile>, SetupError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(BoardFile::read(&bytes)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SetupError::file("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn board(text: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in [BOOT, "proc/sys/kernel"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        if let Some(text) = text {
            fs::write(root.path().join(BOOT).join(FILE), text).unwrap();
        }
        root
    }

    #[test]
    fn a_whole_file_is_put_in_place_and_secrets_are_for_root_alone() {
        let token = file::tests::TOKEN;
        let root = board(Some(&format!(
            "token = \"{token}\"\r\nhostname = \"north\"\r\n[wifi]\r\nssid = \"barn\"\r\npassword = \"long enough\"\r\n"
        )));
        apply(root.path()).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("run/headwater/token"), format!("{token}\n"));
        assert_eq!(read("proc/sys/kernel/hostname"), "north\n");
        for secret in ["run/headwater/token", "run/headwater/wpa_supplicant.conf"] {
            let mode = fs::metadata(root.path().join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
        assert!(!root.path().join(BOOT).join(ERROR_FILE).exists());
    }

    #[test]
    fn a_file_with_a_mistake_is_told_on_the_card_and_nothing_of_it_is_applied() {
        let root = board(Some("hostname = \"north\"\n[wifi]\nsid = \"barn\"\n"));
        let told = apply(root.path()).unwrap_err().to_string();
        assert!(told.contains("headwater.toml") && told.contains("line 3"), "{told}");
        let written = fs::read_to_string(root.path().join(BOOT).join(ERROR_FILE)).unwrap();
        assert!(written.contains("sid"), "{written}");
        assert!(!root.path().join("run/headwater").exists());
        assert!(!root.path().join("proc/sys/kernel/hostname").exists());
    }

    #[test]
    fn a_file_in_another_encoding_is_told_on_the_card_with_what_to_do() {
        let root = board(None);
        // As Windows' ANSI has it.
        fs::write(root.path().join(BOOT).join(FILE), b"[wifi]\r\nssid = \"M\xfcller\"\r\n").unwrap();
        apply(root.path()).unwrap_err();
        let written = fs::read_to_string(root.path().join(BOOT).join(ERROR_FILE)).unwrap();
        assert!(written.contains("line 2 is not UTF-8 text; save the file once more"), "{written}");
        assert!(!root.path().join("run/headwater").exists());
    }

    #[test]
    fn the_cards_proxy_becomes_the_agents_and_is_not_told_with_its_password() {
        let root = board(Some("proxy = \"http://me:hush@proxy.example:3128\"\n"));
        let told = apply(root.path()).unwrap();
        assert!(told.contains("proxy proxy.example:3128") && !told.contains("hush"), "{told}");
        let agent = || fs::read_to_string(root.path().join("etc/headwater/agent.toml")).unwrap();
        assert!(agent().contains("proxy = \"http://me:hush@proxy.example:3128\"\n"));
        fs::write(root.path().join(BOOT).join(FILE), "").unwrap();
        apply(root.path()).unwrap();
        assert!(!agent().contains("proxy"));
    }

    #[test]
    fn a_mended_file_takes_the_complaint_away() {
        let root = board(Some("hostname = 7\n"));
        apply(root.path()).unwrap_err();
        fs::write(root.path().join(BOOT).join(FILE), "hostname = \"north\"\n").unwrap();
        apply(root.path()).unwrap();
        assert!(!root.path().join(BOOT).join(ERROR_FILE).exists());
    }

    #[test]
    fn a_card_without_the_file_boots() {
        assert!(apply(board(None).path()).unwrap().contains("no headwater.toml"));
    }
}
