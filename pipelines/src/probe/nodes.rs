//! The device nodes of a machine, by their names.

use std::fs;
use std::path::Path;

/// What is in `dev` and its folder of graphics cards, in the order of names: `dri/renderD128`, `video0`.
pub(super) fn nodes(dev: &Path) -> Vec<String> {
    let names = |folder: &'static str| {
        let entries = fs::read_dir(dev.join(folder)).into_iter().flatten().flatten();
        entries.filter_map(move |entry| Some(format!("{folder}{}", entry.file_name().to_str()?)))
    };
    let mut all: Vec<String> = names("").chain(names("dri/")).collect();
    all.sort();
    all
}
