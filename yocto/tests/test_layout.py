"""The data partition that is added to the flash layouts of Jetsons. The layouts here are of the form of NVIDIA's."""
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

LAYOUT = (pathlib.Path(__file__).resolve().parents[1]
          / "meta-headwater/dynamic-layers/tegra/recipes-bsp/tegra-binaries/files/headwater-layout")


def partition(name, number="", kind="data"):
    number = f' id="{number}"' if number else ""
    return f'        <partition name="{name}"{number} type="{kind}">\n            <size> APPSIZE </size>\n        </partition>\n'


def device(kind, *partitions):
    return f'    <device type="{kind}" instance="0">\n{"".join(partitions)}    </device>\n'


def layout(*devices):
    return f'<?xml version="1.0"?>\n<!-- NVIDIA -->\n<partition_layout version="01.00.0000">\n{"".join(devices)}</partition_layout>\n'


FIRMWARE = device("spi", *(partition(f"firmware{number}") for number in range(60)))
TABLE = partition("primary_gpt", kind="GPT")
END = partition("secondary_gpt", kind="GPT")


class Layout(unittest.TestCase):
    def run_on(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "layout.xml")
            path.write_text(text)
            done = subprocess.run([sys.executable, LAYOUT, path], capture_output=True, text=True, timeout=30)
            return done, path.read_text()

    def becomes(self, text):
        done, after = self.run_on(text)
        self.assertEqual(done.returncode, 0, done.stderr)
        return after

    def drive(self, *partitions):
        return layout(device("nvme", TABLE, *partitions, END))

    def test_data_comes_behind_slot_b_and_before_the_end_of_the_table(self):
        after = self.becomes(self.drive(partition("UDA", 15), partition("APP", 1), partition("APP_b", 2)))
        names = [entry.get("name") for entry in xml.fromstring(after).iter("partition")]
        self.assertEqual(names, ["primary_gpt", "UDA", "APP", "APP_b", "data", "secondary_gpt"])

    def test_its_number_is_the_next_free_one_of_its_device(self):
        slots = partition("APP", 1) + partition("APP_b", 2)
        for others, number in (([partition("UDA", 15), partition("reserved", 16)], "17"), ([partition(f"p{n}") for n in range(14)], "17"), ([], "3")):
            with self.subTest(number):
                after = self.becomes(layout(FIRMWARE, device("sdcard", TABLE, *others, slots, END)))
                found = [entry for entry in xml.fromstring(after).iter("partition") if entry.get("name") == "data"]
                self.assertEqual([entry.get("id") for entry in found], [number])

    def test_nothing_else_is_changed(self):
        before = self.drive(partition("UDA", 15), partition("APP", 1), partition("APP_b", 2))
        after = self.becomes(before)
        start = after.index('        <partition name="data"')
        end = after.index("</partition>\n", start) + len("</partition>\n")
        self.assertEqual(after[:start] + after[end:], before)

    def test_a_layout_without_slot_b_stays_as_it_is(self):
        for text in (layout(FIRMWARE), self.drive(partition("APP", 1), partition("UDA", 15))):
            self.assertEqual(self.becomes(text), text)

    def test_it_is_added_once(self):
        once = self.becomes(self.drive(partition("APP", 1), partition("APP_b", 2)))
        self.assertEqual(self.becomes(once), once)

    def test_a_layout_that_is_not_understood_fails_the_build(self):
        slots = partition("APP", 1) + partition("APP_b", 2)
        for text in ("<partition_layout>", layout(device("nvme", slots), device("sdcard", slots))):
            done, after = self.run_on(text)
            self.assertNotEqual(done.returncode, 0)
            self.assertEqual(after, text)


if __name__ == "__main__":
    unittest.main()
