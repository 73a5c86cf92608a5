//! `boards`: the profiles at hand, and which are for this machine.

use std::fmt::Write;

use serde::Serialize;

use crate::board::{BadProfile, Boards, Reason, Status, user_folder};
use crate::survey;

/// One profile.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    pub id: String,
    pub title: String,
    pub status: Status,
    pub in_use: bool,
    /// None where it is for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// The user's file; None for a shipped one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// All profiles by id. Needs GStreamer.
pub fn list() -> Result<Vec<Listed>, BadProfile> {
    let boards = Boards::with_folder(&user_folder())?;
    let machine = survey::machine(&boards);
    let used = boards.board(survey::named_board().as_deref(), &machine)?;
    let listed = boards.all().map(|profile| Listed {
        id: profile.board.id.clone(),
        title: profile.board.title.clone(),
        status: profile.board.status,
        in_use: profile.board.id == used.id,
        why_not: profile.board.check(&machine).err().map(|mismatch| mismatch.to_string()),
        file: profile.file.as_ref().map(|file| file.display().to_string()),
    });
    Ok(listed.collect())
}

/// As TOML, with all that the profile extends.
pub fn show(id: &str) -> Result<String, BadProfile> {
    let boards = Boards::with_folder(&user_folder())?;
    let missing = || BadProfile { profile: id.to_owned(), reason: Reason::Missing };
    Ok(boards.profile(id).ok_or_else(missing)?.merged.to_string())
}

pub fn word(status: Status) -> &'static str {
    match status {
        Status::Verified => "verified",
        Status::Community => "community",
        Status::Experimental => "experimental",
    }
}

/// One line for each profile, the one in use marked.
pub fn text(listed: &[Listed]) -> String {
    let mut text = String::new();
    for one in listed {
        let mark = if one.in_use { '*' } else { ' ' };
        let why = match &one.why_not {
            _ if one.in_use => "in use",
            Some(why) => why.as_str(),
            None => "it matches too",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark} {:<24} {:<13} {}", one.id, word(one.status), one.title);
        let _ = writeln!(text, "  {:<24} {why}", "");
    }
    text
}
