"""The real RAUC with the configuration of a Jetson and keys of keys.sh: it signs, checks, writes the other slot and switches.
The slots are files, and nvbootctrl and UEFI's variables stand-ins. Mounting a bundle needs root and loop devices."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

from test_nvbootctrl import BACKEND, UNBOOTABLE, YOCTO, Board

SYSTEM_CONF = YOCTO / "meta-headwater/dynamic-layers/rauc/recipes-core/headwater-rauc-conf/files/tegra/system.conf"
SERVICE_DEADLINE_SECONDS = 60
COMPATIBLE = "headwater-jetson-orin-nano-devkit"


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def why_not():
    missing = [name for name in ("rauc", "dbus-daemon", "mksquashfs", "mke2fs") if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} is not installed"
    if os.getuid() != 0:
        return "only root may mount a bundle"
    if run("losetup", "--find").returncode:
        return "this kernel has no loop device to spare"
    return None


@unittest.skipIf(why_not(), why_not())
class Rauc(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.shared = pathlib.Path(folder.name)
        made = run(YOCTO / "scripts/keys.sh", cls.shared / "keys")
        if made.returncode:
            raise AssertionError(made.stderr)
        cls.bundle = cls.make_bundle("good", COMPATIBLE, "keys")

    @classmethod
    def make_bundle(cls, name, compatible, keys):
        content = cls.shared / f"{name}.content"
        content.mkdir()
        (content / "seed").write_bytes(os.urandom(2 << 20))
        made = run("mke2fs", "-q", "-t", "ext4", "-d", content, content / "rootfs.ext4", "8M")
        (content / "seed").unlink()
        # Plain: verity asks for the kernel's device mapper, which not every machine has.
        (content / "manifest.raucm").write_text(f"[update]\ncompatible={compatible}\nversion=1\n\n[image.rootfs]\nfilename=rootfs.ext4\n")
        bundle = cls.shared / f"{name}.raucb"
        key = cls.shared / keys
        made = run("rauc", "bundle", "--cert", key / "release.cert.pem", "--key", key / "release.key.pem", content, bundle)
        if made.returncode:
            raise AssertionError(made.stderr)
        return bundle

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.board = Board(self.folder)
        self.slots = {"APP": self.folder / "a.img", "APP_b": self.folder / "b.img"}
        for slot in self.slots.values():
            slot.write_bytes(bytes(8 << 20))
        (self.folder / "mount").mkdir()
        conf = SYSTEM_CONF.read_text().replace("@COMPATIBLE@", COMPATIBLE).replace("/usr/libexec", str(BACKEND.parent))
        # RAUC 1.8 of Debian 12 does not know the folder, and takes a file.
        conf = conf.replace("data-directory=/data/rauc", f"statusfile={self.folder}/status\nmountprefix={self.folder}/mount")
        conf = conf.replace("bundle-formats=verity\n", "").replace("/etc/rauc/ca.cert.pem", str(self.shared / "keys/ca.cert.pem"))
        for name in ("APP_b", "APP"):
            conf = conf.replace(f"device=/dev/disk/by-partlabel/{name}\n", f"device={self.slots[name]}\n")
        (self.folder / "system.conf").write_text(conf)
        self.start()

    def start(self):
        """A message bus of our own, and RAUC's service on it."""
        bus = subprocess.Popen(["dbus-daemon", "--session", "--nofork", "--print-address=1"], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(self.stop, bus)
        self.environment = {**self.board.environment, "DBUS_SYSTEM_BUS_ADDRESS": bus.stdout.readline().strip()}
        self.log = self.folder / "service.log"
        with open(self.log, "w") as log:
            # 1.8 learns the running slot from the kernel's command line, which is not that of a board here.
            service = subprocess.Popen(["rauc", f"--conf={self.folder}/system.conf", "--override-boot-slot=A", "service"],
                                       env=self.environment, stdout=log, stderr=log)
        self.addCleanup(self.stop, service)
        until = time.monotonic() + SERVICE_DEADLINE_SECONDS
        while self.rauc("status").returncode:
            self.assertLess(time.monotonic(), until, self.log.read_text())
            self.assertIsNone(service.poll(), self.log.read_text())

    @staticmethod
    def stop(process):
        process.terminate()
        process.wait(30)
        if process.stdout:
            process.stdout.close()

    def rauc(self, *arguments):
        return run("rauc", *arguments, env=self.environment)

    def holds(self, slot):
        return self.slots[slot].read_bytes() == (self.shared / "good.content/rootfs.ext4").read_bytes()

    def is_refused(self, bundle, reason):
        done = self.rauc("install", bundle)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(reason.lower(), (done.stdout + done.stderr + self.log.read_text()).lower())
        self.assertEqual(self.slots["APP_b"].read_bytes(), bytes(8 << 20), "the other slot was written all the same")
        self.assertEqual(self.board.state["active"], 0)

    def test_an_update_is_written_to_the_other_slot_which_then_starts_next(self):
        done = self.rauc("install", self.bundle)
        self.assertEqual(done.returncode, 0, done.stderr + self.log.read_text())
        self.assertTrue(self.holds("APP_b"))
        self.assertFalse(self.holds("APP"))
        self.assertEqual(self.board.state["active"], 1)
        self.assertEqual(self.board.variable("RootfsStatusSlotB")[4], 0)

    def test_a_slot_that_failed_before_is_updated_again(self):
        self.board.set_variable("RootfsStatusSlotB", UNBOOTABLE)
        done = self.rauc("install", self.bundle)
        self.assertEqual(done.returncode, 0, done.stderr + self.log.read_text())
        self.assertEqual(self.board.variable("RootfsStatusSlotB")[4], 0)

    def test_marking_the_running_slot_good_reaches_nvbootctrl(self):
        self.assertEqual(self.rauc("status", "mark-good").returncode, 0)
        self.assertIn("verify", self.board.state["calls"])

    def test_nothing_is_written_where_the_firmware_would_not_start_it(self):
        self.board.path("RootfsRedundancyLevel").unlink()
        self.is_refused(self.bundle, "RootfsRedundancyLevel is not set")

    def test_nothing_is_written_while_the_running_slot_could_not_be_come_back_to(self):
        self.board.set_variable("RootfsStatusSlotA", UNBOOTABLE)
        self.is_refused(self.bundle, "could not come back to it")

    def test_a_bundle_for_another_board_is_refused(self):
        self.is_refused(self.make_bundle("other", "headwater-qemuarm64", "keys"), "ompatible")

    def test_a_bundle_that_somebody_else_signed_is_refused(self):
        self.assertEqual(run(YOCTO / "scripts/keys.sh", self.shared / "foreign").returncode, 0)
        self.is_refused(self.make_bundle("foreign-bundle", COMPATIBLE, "foreign"), "signature")

    def test_a_bundle_that_was_cut_off_is_refused(self):
        cut = self.folder / "cut.raucb"
        cut.write_bytes(self.bundle.read_bytes()[:-5000])
        self.is_refused(cut, "signature")


if __name__ == "__main__":
    unittest.main()
