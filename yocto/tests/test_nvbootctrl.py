"""RAUC's contract with a boot loader backend, kept over nvbootctrl and UEFI's variables; both are stand-ins here."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

YOCTO = pathlib.Path(__file__).resolve().parents[1]
BACKEND = YOCTO / "meta-headwater/dynamic-layers/tegra/recipes-bsp/headwater-nvbootctrl/files/headwater-nvbootctrl"
VENDOR = "781e084c-a330-417c-b678-38e696380cb9"
UNBOOTABLE = 255


class Board:
    """A Jetson with two slots that runs A, flashed with the redundant layout."""

    def __init__(self, folder):
        self.state_file = folder / "nvbootctrl.json"
        self.state_file.write_text(json.dumps({"current": 0, "active": 0, "status": ["normal", "normal"], "fail": [], "calls": []}))
        self.efivars = folder / "efivars"
        self.efivars.mkdir()
        self.set_variable("RootfsRedundancyLevel", 1)
        self.set_variable("RootfsStatusSlotA", 0)
        self.set_variable("RootfsStatusSlotB", 0)
        programs = folder / "bin"
        programs.mkdir()
        # Started often: without a look for modules, and not by way of a wrapper that may be in PATH.
        text = (YOCTO / "tests/nvbootctrl").read_text().partition("\n")[2]
        (programs / "nvbootctrl").write_text(f"#!{sys.executable} -SE\n{text}")
        (programs / "nvbootctrl").chmod(0o755)
        # efivarfs is not here, and nothing is guarded against change.
        (programs / "chattr").write_text("#!/bin/sh\nexit 0\n")
        (programs / "chattr").chmod(0o755)
        self.environment = {"PATH": f"{programs}:{os.environ['PATH']}", "FAKE_NVBOOTCTRL": str(self.state_file), "HEADWATER_EFIVARS": str(self.efivars), "HEADWATER_TRIAL": str(folder / "rauc/trial")}

    @property
    def state(self):
        return json.loads(self.state_file.read_text())

    def is_now(self, **changes):
        self.state_file.write_text(json.dumps({**self.state, **changes}))

    def path(self, name):
        return self.efivars / f"{name}-{VENDOR}"

    def variable(self, name):
        return self.path(name).read_bytes()

    def set_variable(self, name, value):
        self.path(name).write_bytes(bytes([7, 0, 0, 0]) + value.to_bytes(4, "little"))

    def reads_as(self, value):
        """From now on variables read as `value`, whatever was written."""
        reader = self.state_file.parent / "bin/od"
        reader.write_text(f"#!/bin/sh\necho ' {value}'\n")
        reader.chmod(0o755)

    def backend(self, *arguments, program=BACKEND):
        return subprocess.run([program, *arguments], env=self.environment, capture_output=True, text=True, timeout=30)


class Backend(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.board = Board(pathlib.Path(folder.name))

    def says(self, word, *arguments):
        done = self.board.backend(*arguments)
        self.assertEqual((done.returncode, done.stdout), (0, word + "\n"), done.stderr)

    def does(self, *arguments):
        done = self.board.backend(*arguments)
        self.assertEqual((done.returncode, done.stdout.replace("Info: variable BootChainFwStatus is not found.\n", "")), (0, ""), done.stderr)

    def refuses(self, reason, *arguments, program=BACKEND):
        done = self.board.backend(*arguments, program=program)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(reason, done.stderr)

    def test_the_running_slot_is_told(self):
        self.says("A", "get-current")
        self.board.is_now(current=1)
        self.says("B", "get-current")

    def test_the_primary_slot_is_the_one_that_starts_next_and_not_the_one_that_runs(self):
        self.board.is_now(current=0, active=1)
        self.says("B", "get-primary")

    def test_a_slot_made_primary_starts_next(self):
        self.does("set-primary", "B")
        self.assertEqual(self.board.state["active"], 1)
        self.says("B", "get-primary")

    def test_a_slot_that_failed_before_gets_another_chance_when_it_is_made_primary(self):
        self.board.set_variable("RootfsStatusSlotB", UNBOOTABLE)
        self.does("set-primary", "B")
        self.assertEqual(self.board.variable("RootfsStatusSlotB"), bytes([7, 0, 0, 0, 0, 0, 0, 0]))

    def test_a_slot_is_not_made_primary_where_the_firmware_takes_its_new_status_and_keeps_the_old(self):
        self.board.reads_as(UNBOOTABLE)
        self.refuses("did not keep it", "set-primary", "B")
        self.assertEqual(self.board.state["active"], 0)

    def test_a_slot_is_not_made_primary_where_the_firmware_does_not_take_its_new_status(self):
        self.board.reads_as(UNBOOTABLE)
        self.board.path("RootfsStatusSlotB").unlink()
        self.board.path("RootfsStatusSlotB").symlink_to("/dev/full")
        self.refuses("does not take a new status of slot B", "set-primary", "B")
        self.assertEqual(self.board.state["active"], 0)

    def test_a_failing_nvbootctrl_fails_the_update(self):
        self.board.is_now(fail=["set-active-boot-slot"])
        self.refuses("does not make slot B the active one", "set-primary", "B")

    def test_a_board_that_does_not_tell_the_state_of_its_slots_has_none(self):
        self.board.is_now(fail=["dump-slots-info"])
        self.refuses("does not tell the state of the slots", "get-state", "A")
        self.refuses("does not tell the state of the slots", "get-primary")

    def test_a_normal_slot_is_good(self):
        self.says("good", "get-state", "A")
        self.says("good", "get-state", "B")

    def test_an_unbootable_slot_is_bad_whoever_says_so(self):
        self.board.set_variable("RootfsStatusSlotB", UNBOOTABLE)
        self.says("bad", "get-state", "B")
        self.board.set_variable("RootfsStatusSlotB", 0)
        self.board.is_now(status=["normal", "unbootable"])
        self.says("bad", "get-state", "B")

    def test_a_slot_without_a_status_is_as_nvbootctrl_says(self):
        self.board.path("RootfsStatusSlotB").unlink()
        self.says("good", "get-state", "B")

    def test_marking_the_running_slot_good_ends_the_count_of_its_tries(self):
        self.board.is_now(status=["retry", "normal"])
        self.does("set-state", "A", "good")
        self.assertIn("verify", self.board.state["calls"])
        self.says("good", "get-state", "A")

    def test_marking_the_other_slot_good_does_not_verify_the_running_one(self):
        self.board.set_variable("RootfsStatusSlotB", UNBOOTABLE)
        self.does("set-state", "B", "good")
        self.assertNotIn("verify", self.board.state["calls"])
        self.says("good", "get-state", "B")

    def test_a_slot_marked_bad_is_not_started_until_it_is_written(self):
        self.does("set-state", "B", "bad")
        self.assertEqual(self.board.variable("RootfsStatusSlotB"), bytes([7, 0, 0, 0, 255, 0, 0, 0]))
        self.says("bad", "get-state", "B")

    def test_the_last_slot_that_can_be_started_is_never_marked_bad(self):
        self.board.set_variable("RootfsStatusSlotB", UNBOOTABLE)
        self.refuses("the only one that can be started", "set-state", "A", "bad")
        self.says("good", "get-state", "A")

    def test_an_ordinary_boot_is_vouched_for_without_the_agent(self):
        self.does("trusted")

    def test_a_new_slot_is_not_trusted_until_it_is_marked_good(self):
        self.does("set-primary", "B")
        self.does("trusted")
        self.board.is_now(current=1)
        self.refuses("slot B is new", "trusted")
        self.does("set-state", "B", "good")
        self.does("trusted")

    def test_the_old_slot_is_trusted_after_the_firmware_came_back_to_it(self):
        self.does("set-primary", "B")
        self.board.is_now(current=0)
        self.does("trusted")

    def test_a_switch_that_was_taken_back_leaves_no_trial(self):
        self.board.is_now(current=1)
        self.does("set-primary", "A")
        self.does("set-primary", "B")
        self.does("set-primary", "A")
        self.board.is_now(current=0)
        self.refuses("slot A is new", "trusted")
        self.does("set-primary", "A")
        self.does("trusted")

    def test_a_trial_is_on_disk_before_the_slot_is_switched(self):
        self.board.is_now(fail=["set-active-boot-slot"])
        self.assertNotEqual(self.board.backend("set-primary", "B").returncode, 0)
        self.board.is_now(current=1)
        self.refuses("slot B is new", "trusted")

    def test_what_rauc_never_says_is_refused(self):
        for arguments in [(), ("get-state",), ("get-state", "C"), ("set-state", "A", "fine"), ("set-primary",), ("set-primary", "C"),
                          ("get-current", "A"), ("reboot",)]:
            with self.subTest(arguments):
                self.assertNotEqual(self.board.backend(*arguments).returncode, 0)

    def test_an_update_is_let_through_on_a_board_that_can_roll_back(self):
        self.does("preflight")

    def test_an_update_is_refused_where_the_firmware_would_never_start_the_other_slot(self):
        for level in (None, 0):
            with self.subTest(level):
                if level is None:
                    self.board.path("RootfsRedundancyLevel").unlink()
                else:
                    self.board.set_variable("RootfsRedundancyLevel", level)
                self.refuses("RootfsRedundancyLevel is not set", "preflight")

    def test_an_update_is_refused_while_the_running_slot_could_not_be_come_back_to(self):
        self.board.set_variable("RootfsStatusSlotA", UNBOOTABLE)
        self.refuses("could not come back to it", "preflight")

    def test_the_way_out_that_the_refusal_names_is_one(self):
        self.board.set_variable("RootfsStatusSlotA", UNBOOTABLE)
        self.does("set-state", "A", "good")
        self.does("preflight")

    def test_after_a_bad_update_the_next_one_gets_its_chance(self):
        self.board.set_variable("RootfsStatusSlotB", UNBOOTABLE)
        self.does("preflight")
        self.assertEqual(self.board.variable("RootfsStatusSlotB")[4], 0)

    def test_the_handler_that_rauc_calls_without_arguments_is_the_same_check(self):
        handler = BACKEND.with_name("headwater-nvbootctrl-preflight")
        self.assertEqual(self.board.backend(program=handler).returncode, 0)
        self.board.path("RootfsRedundancyLevel").unlink()
        self.refuses("RootfsRedundancyLevel is not set", program=handler)


if __name__ == "__main__":
    unittest.main()
