//! What a board's profile wants in the environment. GStreamer's plugins read it when they are loaded, so it must be
//! there before GStreamer starts; and a process cannot safely change its own, so it is started anew with it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::board::{Board, Boards, Match, user_folder};
use crate::machine::Machine;
use crate::survey;

/// Says for which profile the environment was set, and that it is not to be done again.
const MARK: &str = "HEADWATER_ENVIRONMENT_OF";

/// Variables of the profile that are not set. What a person has set stands.
pub fn lacking(board: &Board) -> Vec<(&str, &str)> {
    let lacking = board.env.iter().filter(|(name, _)| std::env::var_os(name).is_none());
    lacking.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Returns where nothing has to be set; else this process begins anew, its standard input untouched. `named`: the
/// profile that was asked for. An error of a profile is told later, where profiles are needed.
pub fn enter(named: Option<&str>) -> std::io::Result<()> {
    if std::env::var_os(MARK).is_some() {
        return Ok(());
    }
    let Ok(boards) = Boards::with_folder(&user_folder()) else { return Ok(()) };
    let mut machine = survey::hardware(&boards, &survey::root());
    machine.gstreamer = survey::gstreamer();
    let board = match named {
        Some(id) => boards.get(id),
        None => foreseen(&boards, &machine),
    };
    let Some(board) = board else { return Ok(()) };
    let lacking = lacking(board);
    if lacking.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "headwater-worker".into());
    let error =
        Command::new("/proc/self/exe").arg0(name).args(arguments).envs(lacking).env(MARK, &board.id).exec();
    Err(error)
}

/// The profile that will be chosen, as far as that can be known without GStreamer's registry: rules on elements are
/// taken as met.
fn foreseen<'a>(boards: &'a Boards, machine: &Machine) -> Option<&'a Board> {
    boards.best(|board| {
        let rules = Match { element: Vec::new(), ..board.rules.clone() };
        !board.is_abstract && rules.check(machine).is_ok()
    })
}
