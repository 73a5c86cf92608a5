"""What the layer puts on a board beside Headwater's programs: the EFI system partition, and a data partition that grows."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

YOCTO = pathlib.Path(__file__).resolve().parents[1]
TREE = YOCTO.parent
LAYER = YOCTO / "meta-headwater"
sys.path.insert(0, str(YOCTO / "check"))

MIB = 1 << 20


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def lacking(*programs):
    missing = [name for name in programs if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    return f"{', '.join(missing)} is not installed" if missing else None


# In a process of its own: BitBake's package changes the whole of it.
COMPILE = """
import pathlib, shutil, sys
import parse, crates
with parse.build("wrynose", "qemuarm64", ["core"]) as (bb, builder):
    d = builder.parseRecipeVariants(str(next(parse.LAYER.glob("recipes-bsp/headwater-esp/*.bb"))), [])[""]
    for name in ("B", "UNPACKDIR", "DEPLOY_DIR_IMAGE"):
        pathlib.Path(d.getVar(name)).mkdir(parents=True, exist_ok=True)
    pathlib.Path(d.getVar("DEPLOY_DIR_IMAGE"), "grub-efi-bootaa64.efi").write_bytes(b"GRUB")
    fetch = bb.fetch2.Fetch(d.getVar("SRC_URI").split(), d)
    fetch.unpack(d.getVar("UNPACKDIR"))
    failed = crates.run(d, bb, "do_compile")
    if failed:
        raise SystemExit(failed)
    shutil.copy(d.getVar("B") + "/headwater-esp.vfat", sys.argv[1])
"""


@unittest.skipIf(lacking("mcopy", "mkfs.vfat", "grub-editenv", "grub-script-check"), lacking("mcopy", "mkfs.vfat", "grub-editenv", "grub-script-check"))
class Esp(unittest.TestCase):
    """The EFI system partition as the recipe's own script makes it."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        made = run(sys.executable, "-c", COMPILE, cls.folder / "esp.vfat",
                   env={**os.environ, "PYTHONPATH": str(YOCTO / "check"), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        if made.returncode:
            raise AssertionError(made.stdout + made.stderr)

    def take(self, name):
        to = self.folder / pathlib.Path(name).name
        to.unlink(missing_ok=True)
        self.assertEqual(run("mcopy", "-i", self.folder / "esp.vfat", f"::{name}", to).returncode, 0, name)
        return to

    def test_the_firmware_finds_grub(self):
        self.assertEqual(self.take("/EFI/BOOT/bootaa64.efi").read_bytes(), b"GRUB")

    def test_grub_understands_its_configuration_and_nothing_is_left_to_fill_in(self):
        configuration = self.take("/EFI/BOOT/grub.cfg")
        self.assertEqual(run("grub-script-check", configuration).returncode, 0)
        self.assertNotIn("@", configuration.read_text())

    def test_the_variables_are_a_block_that_grub_can_change_in_place(self):
        self.assertEqual(self.take("/headwater/grubenv").stat().st_size, 1024)

    def test_the_backend_that_rauc_calls_reads_and_writes_the_same_variables(self):
        variables = self.take("/headwater/grubenv")

        def backend(*arguments):
            done = run(TREE / "cross/image/boot-slot.sh", *arguments, env={**os.environ, "HEADWATER_GRUBENV": str(variables)})
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.strip()

        self.assertEqual(backend("get-primary"), "A")
        self.assertEqual(backend("get-state", "B"), "bad")
        backend("set-state", "A", "good")
        backend("set-primary", "B")
        self.assertEqual(backend("get-primary"), "B")
        known = set((LAYER / "recipes-bsp/headwater-esp/files/grubenv").read_text().split("\n", 1)[1].replace("=", "\n").split())
        for line in run("grub-editenv", variables, "list").stdout.splitlines():
            self.assertIn(line.partition("=")[0], known)
        self.assertEqual(variables.stat().st_size, 1024)


@unittest.skipIf(os.getuid() != 0, "only root may change a partition table")
@unittest.skipIf(lacking("sfdisk", "losetup", "partx", "lsblk"), lacking("sfdisk", "losetup", "partx", "lsblk"))
class Data(unittest.TestCase):
    """The data partition of a disk image that was written to a larger disk."""

    def disk(self, layout, image_size=32 * MIB, disk_size=96 * MIB):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        image = pathlib.Path(folder.name, "disk.img")
        with open(image, "wb") as file:
            file.truncate(image_size)
        environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        made = run("sfdisk", "--quiet", image, input=layout, env=environment)
        self.assertEqual(made.returncode, 0, made.stderr)
        # As on a card: the spare copy of the table stays where the image ended.
        os.truncate(image, disk_size)
        attached = run("losetup", "--find", "--show", image, env=environment)
        if attached.returncode:
            self.skipTest(f"no loop device: {attached.stderr.strip()}")
        loop = attached.stdout.strip()
        self.addCleanup(run, "losetup", "--detach", loop, env=environment)
        if run("partx", "--add", loop, env=environment).returncode:
            self.skipTest("loop devices have no partitions on this machine")
        # Run last to first: partitions go before their disk.
        self.addCleanup(run, "partx", "--delete", loop, env=environment)
        script = pathlib.Path(folder.name, "headwater-grow-data")
        script.write_text((LAYER / "recipes-core/headwater-board/files/headwater-grow-data.in").read_text().replace("@PARTITION@", "data"))

        def grow(number):
            done = run("sh", script, f"{loop}p{number}", env=environment)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

        def size(number):
            name = pathlib.Path(loop).name
            return int(pathlib.Path(f"/sys/class/block/{name}p{number}/size").read_text()) * 512

        def check():
            done = run("sfdisk", "--verify", loop, env=environment)
            return done.stdout + done.stderr

        return grow, size, check

    def test_it_grows_to_the_end_of_the_disk_and_then_stays(self):
        grow, size, check = self.disk("label: gpt\nsize=16M, name=root-a\nsize=8M, name=data\n")
        self.assertIn("backup GPT table is not on the end", check())
        grow(2)
        self.assertGreater(size(2), 70 * MIB)
        self.assertEqual(size(1), 16 * MIB)
        self.assertIn("No errors detected", check(), "the spare copy is at the end of the disk now")
        grown = size(2)
        grow(2)
        self.assertEqual(size(2), grown)

    def test_it_stays_as_it_is_where_another_partition_follows(self):
        grow, size, _ = self.disk("label: gpt\nsize=8M, name=data\nsize=16M, name=other\n")
        self.assertIn("is not the last partition", grow(1))
        self.assertEqual(size(1), 8 * MIB)

    def test_a_disk_that_is_full_is_not_written(self):
        grow, size, _ = self.disk("label: gpt\nsize=16M, name=root-a\nname=data\n", 96 * MIB)
        before = size(2)
        self.assertEqual(grow(2), "")
        self.assertEqual(size(2), before)


# The configuration's line, what the image's own function writes, and what the bundle bears.
VERSION = """
import pathlib, sys
import parse, crates
with parse.build("wrynose", "qemuarm64", ["core", "rauc"]) as (bb, builder):
    builder.data.setVar("HEADWATER_VERSION", sys.argv[1])
    def recipe(name):
        return builder.parseRecipeVariants(str(next(parse.LAYER.rglob(name))), [])[""]
    image = recipe("headwater-image.bb")
    for folder in (image.getVar("B"), image.getVar("WORKDIR"), image.getVar("IMAGE_ROOTFS") + "/usr/lib"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    failed = crates.run(image, bb, "headwater_image_version")
    if failed:
        raise SystemExit(failed)
    print(pathlib.Path(image.getVar("IMAGE_ROOTFS"), "usr/lib/os-release").read_text(), end="")
    print(recipe("headwater-bundle_*.bb").getVar("RAUC_BUNDLE_VERSION"))
"""


class Version(unittest.TestCase):
    def test_an_image_says_the_version_of_the_bundle_that_is_made_with_it(self):
        told = run(sys.executable, "-c", VERSION, "0.1.0+7", env={**os.environ, "PYTHONPATH": str(YOCTO / "check")})
        self.assertEqual(told.stdout.splitlines(), ["IMAGE_VERSION=0.1.0+7", "0.1.0+7"], told.stderr)


if __name__ == "__main__":
    unittest.main()
