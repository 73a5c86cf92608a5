//! The manual and the completions, from the same definition as the arguments. For packages.

use std::io::{self, Write as _};
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// One page per command into a folder, or the main page to standard output.
pub(crate) fn pages(command: Command, folder: Option<&Path>) -> io::Result<()> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(command, folder)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            io::stdout().write_all(&page)
        }
    }
}

pub(crate) fn completions(mut command: Command, shell: Shell) {
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut io::stdout());
}
