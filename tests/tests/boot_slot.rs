//! The contract between RAUC and the reference image's `boot-slot.sh`, on a real GRUB environment block. What GRUB
//! makes of the same variables is in `cross/image/boot/grub.cfg`; here its part is played by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Result, ensure};

fn image() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/image")
}

/// A boot partition as it is flashed: slot A has proved itself, slot B is empty.
struct Boot {
    folder: tempfile::TempDir,
}

impl Boot {
    fn flashed() -> Result<Self> {
        let boot = Self { folder: tempfile::tempdir()? };
        boot.editenv(&["create"])?;
        boot.editenv(&["set", "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0", "confirmed=A"])?;
        Ok(boot)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("grubenv")
    }

    fn editenv(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("grub-editenv").arg(self.file()).args(arguments).output()?;
        ensure!(output.status.success(), "grub-editenv: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let script = image().join("boot-slot.sh");
        Ok(Command::new("sh").arg(script).args(arguments).env("HEADWATER_GRUBENV", self.file()).output()?)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn states(&self) -> Result<[String; 3]> {
        Ok([self.ask(&["get-primary"])?, self.ask(&["get-state", "A"])?, self.ask(&["get-state", "B"])?])
    }

    /// What RAUC does: the slot is bad while it is written, and the wanted one afterwards.
    fn install(&self, slot: &str) -> Result<()> {
        self.ask(&["set-state", slot, "bad"])?;
        self.ask(&["set-primary", slot])?;
        Ok(())
    }

    fn value(&self, name: &str) -> Result<String> {
        let list = self.editenv(&["list"])?;
        let value = list.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        Ok(value.unwrap_or_default().to_owned())
    }
}

#[test]
fn a_flashed_board_starts_slot_a_and_nothing_else() -> Result<()> {
    ensure!(Boot::flashed()?.states()? == ["A", "good", "bad"]);
    Ok(())
}

#[test]
fn while_a_slot_is_written_the_other_one_is_started() -> Result<()> {
    let boot = Boot::flashed()?;
    boot.ask(&["set-state", "B", "bad"])?;
    ensure!(boot.states()? == ["A", "good", "bad"]);
    Ok(())
}

#[test]
fn an_installed_slot_is_next_and_after_two_starts_without_a_word_the_confirmed_one_is_back() -> Result<()> {
    let boot = Boot::flashed()?;
    boot.install("B")?;
    ensure!(boot.states()? == ["B", "good", "good"]);
    boot.editenv(&["set", "B_TRY=1"])?;
    ensure!(boot.states()? == ["B", "good", "good"]);
    boot.editenv(&["set", "B_TRY=2"])?;
    ensure!(boot.states()? == ["A", "good", "bad"]);
    Ok(())
}

#[test]
fn a_slot_that_was_called_good_stays_however_often_it_is_started() -> Result<()> {
    let boot = Boot::flashed()?;
    boot.install("B")?;
    boot.editenv(&["set", "B_TRY=1"])?;
    boot.ask(&["set-state", "B", "good"])?;
    ensure!(boot.value("confirmed")? == "B" && boot.value("B_TRY")? == "0");
    // GRUB counts no starts of it; even a count that is there is not held against it.
    boot.editenv(&["set", "B_TRY=2"])?;
    ensure!(boot.states()? == ["B", "good", "good"]);
    Ok(())
}

#[test]
fn a_slot_that_was_called_bad_is_not_started_and_the_other_one_is() -> Result<()> {
    let boot = Boot::flashed()?;
    boot.install("B")?;
    boot.ask(&["set-state", "B", "bad"])?;
    ensure!(boot.states()? == ["A", "good", "bad"]);
    Ok(())
}

#[test]
fn what_is_about_to_be_overwritten_has_proved_nothing() -> Result<()> {
    let boot = Boot::flashed()?;
    boot.install("B")?;
    boot.ask(&["set-state", "B", "good"])?;
    boot.install("A")?;
    ensure!(boot.value("confirmed")? == "B");
    boot.editenv(&["set", "A_TRY=2"])?;
    ensure!(boot.states()? == ["B", "bad", "good"]);
    boot.ask(&["set-state", "B", "bad"])?;
    ensure!(boot.value("confirmed")?.is_empty());
    Ok(())
}

#[test]
fn saying_again_what_is_known_writes_nothing() -> Result<()> {
    let boot = Boot::flashed()?;
    let inode =
        |boot: &Boot| std::fs::metadata(boot.file()).map(|meta| std::os::unix::fs::MetadataExt::ino(&meta));
    let before = inode(&boot)?;
    boot.ask(&["set-state", "A", "good"])?;
    ensure!(inode(&boot)? == before);
    boot.ask(&["set-state", "B", "good"])?;
    ensure!(
        inode(&boot)? != before,
        "a change is a new file, so that a cut leaves the old one or the new one"
    );
    Ok(())
}

#[test]
fn an_environment_block_keeps_the_size_that_grub_can_write() -> Result<()> {
    let boot = Boot::flashed()?;
    boot.install("B")?;
    ensure!(std::fs::metadata(boot.file())?.len() == 1024);
    Ok(())
}

#[test]
fn what_is_not_understood_is_refused_and_changes_nothing() -> Result<()> {
    let boot = Boot::flashed()?;
    let before = std::fs::read(boot.file())?;
    for wrong in [&["set-primary", "C"][..], &["set-state", "A", "fine"], &["get-current"], &[]] {
        ensure!(boot.run(wrong)?.status.code() == Some(2), "{wrong:?}");
    }
    ensure!(std::fs::read(boot.file())? == before);
    Ok(())
}

#[test]
fn grub_can_read_its_configuration() -> Result<()> {
    for name in ["grub.cfg", "early.cfg"] {
        let output = Command::new("grub-script-check").arg(image().join("boot").join(name)).output()?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
