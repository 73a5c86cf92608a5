"""Each check of `make yocto-check` is seen failing on a layer that is broken the way it is there for."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]
RECIPES = "recipes-headwater/headwater"
AGENT = f"{RECIPES}/headwater-agent_0.1.0.bb"
LISTS = ("headwater-agent-crates.inc", "headwater-worker-crates.inc")


class Broken(unittest.TestCase):
    """A copy of the layer in a tree of its own; what is not changed there is linked."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tree = pathlib.Path(folder.name)
        self.layer = self.tree / "yocto/meta-headwater"
        shutil.copytree(TREE / "yocto/meta-headwater", self.layer)
        for name in ("protocol", "pipelines", "cross", "LICENSE-MIT", "LICENSE-APACHE"):
            (self.tree / name).symlink_to(TREE / name)
        shutil.copytree(TREE / "agent/dist", self.tree / "agent/dist")
        for name in ("Cargo.toml", "Cargo.lock"):
            shutil.copy(TREE / name, self.tree)

    def change(self, path, old, new):
        text = (self.tree / path).read_text()
        self.assertIn(old, text)
        (self.tree / path).write_text(text.replace(old, new, 1))

    def run_check(self, *command):
        return subprocess.run(command, env={**os.environ, "HEADWATER_LAYER": str(self.layer)}, capture_output=True, text=True, timeout=240)

    def holds(self, *command):
        done = self.run_check(*command)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def fails(self, reason, *command):
        done = self.run_check(*command)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn(reason, done.stdout + done.stderr)


class Parse(Broken):
    # One of the combinations, in which every recipe but Jetson's takes part.
    command = (sys.executable, TREE / "yocto/check/parse.py", "wrynose", "qemuarm64", "core,rauc")

    def broken(self, reason, path, old, new):
        self.change(f"yocto/meta-headwater/{path}", old, new)
        self.fails(reason, *self.command)

    def test_an_untouched_layer_holds(self):
        self.holds(*self.command)

    def test_a_tree_by_git_in_place_of_the_one_around_the_layer_holds(self):
        with open(self.layer / "conf/templates/headwater/local.conf.sample", "a") as file:
            file.write('HEADWATER_SRC = "git://example.invalid/headwater;protocol=https;branch=main;destsuffix=headwater"\n')
            for name in ("agent", "worker"):
                file.write(f'SRCREV:pn-headwater-{name} = "{"0" * 39}1"\n')
        self.holds(*self.command)

    def test_a_quote_too_few(self):
        self.broken("ParseError", AGENT, 'SECTION = "multimedia"', 'SECTION = "multimedia')

    def test_a_class_that_does_not_exist(self):
        self.broken("no-such-class", AGENT, "inherit systemd", "inherit no-such-class systemd")

    def test_an_included_file_that_does_not_exist(self):
        self.broken("no-such-file.inc", AGENT, "require headwater.inc", "require no-such-file.inc")

    def test_a_task_that_is_not_shell(self):
        self.broken("ShellSyntaxError", AGENT, "        esac\n", "")

    def test_a_function_beside_the_tasks_that_is_not_shell(self):
        self.broken("headwater_mount_data is not shell", "recipes-core/images/headwater-image.bb", "    done\n", "")

    def test_python_that_raises(self):
        self.broken("no-such-key", AGENT, 'PN}"', 'PN}${@{}["no-such-key"]}"')

    def test_a_source_that_is_not_in_the_tree(self):
        self.broken("no-such-folder", AGENT, '"protocol agent"', '"protocol agent no-such-folder"')

    def test_a_crate_without_checksum(self):
        text = (self.layer / RECIPES / LISTS[0]).read_text()
        first = next(line for line in text.splitlines() if line.startswith("SRC_URI["))
        self.broken("has no sha256sum", f"{RECIPES}/{LISTS[0]}", first + "\n", "")

    def test_a_registry_that_is_unknown(self):
        (self.tree / "Cargo.lock").unlink()
        self.fails("please-set-HEADWATER_CRATES", *self.command)

    def test_a_series_that_is_not_named(self):
        self.broken("not compatible with the core layer", "conf/layer.conf", "scarthgap wrynose", "scarthgap")

    def test_an_append_without_its_recipe(self):
        folder = self.layer / "dynamic-layers/rauc/recipes-core/images"
        (folder / "headwater-image.bbappend").rename(folder / "no-such-image.bbappend")
        self.fails("no-such-image.bbappend has no recipe", *self.command)

    def test_a_package_of_ours_that_nothing_makes(self):
        self.broken("wants headwater-agnet", "recipes-core/images/headwater-image.bb", "    headwater-agent \\", "    headwater-agnet \\")

    def test_a_disk_layout_that_is_where_wrynose_does_not_look(self):
        (self.layer / "files/wic").rename(self.layer / "wic")
        self.fails("No kickstart files", *self.command)

    def test_a_task_that_empties_the_folder_of_its_sources(self):
        self.broken("where the sources are", "recipes-bsp/headwater-esp/headwater-esp_0.1.0.bb", 'B = "${WORKDIR}/build"\n', "")

    def test_a_template_that_does_not_parse(self):
        self.broken("ParseError", "conf/templates/headwater/local.conf.sample", 'DISTRO ?= "headwater"', "DISTRO ?= headwater")

    def test_a_variable_that_bitbake_has_renamed(self):
        self.broken("has been renamed", "conf/distro/headwater.conf", "INIT_MANAGER", 'BB_ENV_WHITELIST = "HOME"\nINIT_MANAGER')


class Style(Broken):
    command = (TREE / "yocto/check/lint.sh", pathlib.Path(sys.executable).with_name("oelint-adv"))

    def test_an_untouched_layer_holds(self):
        self.holds(*self.command, self.layer)

    def test_a_finding(self):
        self.change(f"yocto/meta-headwater/{AGENT}", 'SECTION = "multimedia"', 'SECTION="multimedia"')
        self.fails("oelint.vars.spacesassignment", *self.command, self.layer)

    def test_every_suppressed_rule_has_a_reason_and_something_to_suppress(self):
        lines = [line.split(maxsplit=1) for line in (TREE / "yocto/check/suppressed").read_text().splitlines() if not line.startswith("#")]
        self.assertTrue(all(len(words) == 2 for words in lines))
        files = [path for kind in ("*.bb", "*.bbappend", "*.bbclass") for path in self.layer.rglob(kind)]
        said = self.run_check(*self.command[1:], "--release", "wrynose", "--quiet", *files)
        for rule, _ in lines:
            # homepageping speaks only where the network says no.
            if rule != "oelint.vars.homepageping":
                self.assertIn(rule, said.stdout + said.stderr)


class Lists(Broken):
    def write(self, *arguments):
        scripts = self.tree / "yocto/scripts"
        scripts.mkdir(exist_ok=True)
        shutil.copy(TREE / "yocto/scripts/crates.py", scripts)
        return (sys.executable, scripts / "crates.py", *arguments)

    def test_an_untouched_list_holds(self):
        self.holds(*self.write("--check"))

    def test_a_new_checksum_in_the_lock_file(self):
        text = (self.tree / "Cargo.lock").read_text()
        at = text.index('checksum = "', text.index('name = "tokio"')) + len('checksum = "')
        (self.tree / "Cargo.lock").write_text(text[:at] + "0" * 64 + text[at + 64:])
        self.fails("does not match Cargo.lock", *self.write("--check"))
        self.holds(*self.write())
        self.holds(*self.write("--check"))

    def test_a_list_that_was_changed_by_hand(self):
        self.change(f"yocto/meta-headwater/{RECIPES}/{LISTS[1]}", "crate://", "crate:///")
        self.fails(LISTS[1], *self.write("--check"))

    def test_a_crate_that_is_not_of_a_registry(self):
        text = (self.tree / "Cargo.lock").read_text()
        at = text.index("registry+", text.index('name = "tokio"'))
        (self.tree / "Cargo.lock").write_text(text[:at] + text[at:].replace("registry+", "git+", 1))
        self.fails("does not come from a registry", *self.write())

    def test_no_list_names_a_host(self):
        for name in LISTS:
            for line in (self.layer / RECIPES / name).read_text().splitlines():
                if "crate://" in line:
                    self.assertIn("crate://${HEADWATER_CRATES}/", line)


class Tree(Broken):
    command = (sys.executable, TREE / "yocto/check/tree.py")

    def test_an_untouched_tree_holds(self):
        self.holds(*self.command)

    def test_a_release_that_forgot_the_recipes(self):
        self.change("Cargo.toml", 'version = "0.1.0"', 'version = "0.2.0"')
        self.fails("rename the recipe", *self.command)

    def test_a_group_that_only_the_packages_give_the_agent(self):
        with open(self.tree / "agent/dist/headwater-agent.sysusers", "a") as file:
            file.write("m     headwater-agent  input\n")
        self.fails("USERADD_PARAM makes", *self.command)

    def test_a_new_unit_that_the_recipe_does_not_enable(self):
        (self.tree / "agent/dist/headwater-new.socket").write_text("[Socket]\nListenStream=/run/x\n[Install]\nWantedBy=sockets.target\n")
        self.fails("headwater-new.socket", *self.command)


if __name__ == "__main__":
    unittest.main()
