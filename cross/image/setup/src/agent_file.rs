//! The one key of the agent's own configuration that `headwater.toml` has too: the proxy. The rest of that file is
//! whoever's who wrote it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;

use crate::SetupError;

/// Below the root, on the data partition.
const FILE: &str = "etc/headwater/agent.toml";
/// Who may read it beside root: a proxy's password may be in it.
const GROUP: &str = "headwater-agent";
/// Stands above our line, so that it is known again.
const MARK: &str = "# From headwater.toml of the boot partition:";

/// Makes the agent's proxy the one that the card asks for. Flash is written only where that changes something.
pub(crate) fn set_proxy(root: &Path, proxy: Option<&str>) -> Result<(), SetupError> {
    let path = root.join(FILE);
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(source) => return Err(SetupError::File { verb: "read", path, source }),
    };
    let after = with_proxy(&before, proxy);
    if after == before { Ok(()) } else { replace(root, &path, &after) }
}

/// The agent's file with that proxy in it. A proxy of the card's stands in place of any other; without one on the card
/// only the card's own line goes.
fn with_proxy(text: &str, proxy: Option<&str>) -> String {
    let mut kept = String::new();
    let (mut ours, mut tables) = (false, false);
    for line in text.split_inclusive('\n') {
        let begin = line.trim_start();
        tables |= begin.starts_with('[');
        let is_proxy =
            !tables && begin.strip_prefix("proxy").is_some_and(|rest| rest.trim_start().starts_with('='));
        let is_mark = line.trim_end() == MARK;
        if !(is_mark || is_proxy && (ours || proxy.is_some())) {
            kept.push_str(line);
        }
        ours = is_mark;
    }
    match proxy {
        // Before any table, or it would be that table's.
        Some(proxy) => format!("{MARK}\nproxy = {}\n{kept}", quoted(proxy)),
        None => kept,
    }
}

/// As TOML; a proxy's address has no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// All of the new text or all of the old, whenever the power fails.
fn replace(root: &Path, path: &Path, text: &str) -> Result<(), SetupError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(SetupError::file("make", folder))?;
    }
    let new = path.with_extension("toml.new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640);
    let mut file = options.open(&new).map_err(SetupError::file("open", &new))?;
    if let Some(group) = group(root) {
        chown(&new, None, Some(group)).map_err(SetupError::file("give away", &new))?;
    }
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(SetupError::file("write", &new))?;
    fs::rename(&new, path).map_err(SetupError::file("rename", &new))
}

fn group(root: &Path) -> Option<u32> {
    let groups = fs::read_to_string(root.join("etc/group")).ok()?;
    let line = groups.lines().find_map(|line| line.strip_prefix(GROUP)?.strip_prefix(':'))?;
    line.split(':').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    const PROXY: &str = "http://me:hush@proxy.example:3128";

    #[test]
    fn a_proxy_comes_before_the_tables_and_goes_without_a_trace() {
        for before in ["", "state_dir = \"/x\"\n[limits]\nworkers = 1\n", "# mine\n"] {
            let with = with_proxy(before, Some(PROXY));
            let table: toml::Table = with.parse().unwrap();
            assert_eq!(table["proxy"].as_str(), Some(PROXY));
            assert!(with.ends_with(before), "{with}");
            assert_eq!(with_proxy(&with, Some(PROXY)), with);
            assert_eq!(with_proxy(&with, None), before);
        }
    }

    #[test]
    fn the_cards_proxy_stands_in_place_of_another_and_a_persons_own_stays_without_one() {
        let own = "proxy=\"http://other:1\"\n[proxy]\nproxy = \"of a table\"\n";
        assert_eq!(with_proxy(own, None), own);
        let table: toml::Table = with_proxy("proxy = \"http://other:1\"\n", Some(PROXY)).parse().unwrap();
        assert_eq!(table["proxy"].as_str(), Some(PROXY));
        assert!(with_proxy(own, Some(PROXY)).contains("[proxy]\nproxy = \"of a table\"\n"));
    }

    #[test]
    fn a_proxy_with_quotes_in_its_password_stays_one_text() {
        let odd = "http://me:a\"b\\c@proxy.example:3128";
        let table: toml::Table = with_proxy("", Some(odd)).parse().unwrap();
        assert_eq!(table["proxy"].as_str(), Some(odd));
    }

    #[test]
    fn the_file_is_for_root_and_the_agent_and_is_written_once() {
        let root = tempfile::tempdir().unwrap();
        set_proxy(root.path(), None).unwrap();
        let path = root.path().join(FILE);
        assert!(!path.exists());
        set_proxy(root.path(), Some(PROXY)).unwrap();
        let first = fs::metadata(&path).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o640);
        set_proxy(root.path(), Some(PROXY)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino(), "the same file, not a new one");
        set_proxy(root.path(), None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn the_agents_group_is_read_from_the_boards_own_list() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/group"), "root:x:0:\nheadwater-agent:x:900:\n").unwrap();
        assert_eq!(group(root.path()), Some(900));
        assert_eq!(group(Path::new("/nowhere")), None);
    }
}
