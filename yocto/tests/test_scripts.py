"""The scripts around the layer: where crates come from, and keys that are not made twice."""
import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / "scripts"


@contextlib.contextmanager
def index(download):
    """An index of crates that says they are at `download`."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/index/config.json" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"dl": download}).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index/"
        finally:
            server.shutdown()


class Registry(unittest.TestCase):
    def ask(self, configuration):
        with tempfile.TemporaryDirectory() as home:
            if configuration is not None:
                pathlib.Path(home, "config.toml").write_text(configuration)
            return subprocess.run([sys.executable, SCRIPTS / "registry.py"], env={**os.environ, "CARGO_HOME": home, "no_proxy": "127.0.0.1"},
                                  capture_output=True, text=True, timeout=60)

    def mirrored(self, download):
        with index(download) as url:
            return self.ask(f'[source.crates-io]\nreplace-with = "ours"\n[source.ours]\nregistry = "sparse+{url}"\n')

    def test_a_machine_without_a_mirror_needs_no_line(self):
        for configuration in (None, "", '[net]\nretry = 3\n'):
            self.assertEqual(self.ask(configuration).stdout, "")

    def test_a_mirror_is_where_its_index_says(self):
        for download in ("https://mirror.example/api/crates", "https://mirror.example/api/crates/", "https://mirror.example/api/crates/{crate}/{version}/download"):
            with self.subTest(download):
                self.assertEqual(self.mirrored(download).stdout, 'HEADWATER_CRATES = "mirror.example/api/crates"\n')

    def test_a_mirror_that_bitbake_cannot_fetch_from_is_said_so(self):
        for download, reason in (("https://mirror.example/{sha256-checksum}", "PREMIRRORS"), ("http://mirror.example/crates", "by http")):
            with self.subTest(download):
                done = self.mirrored(download)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(reason, done.stderr)

    def test_a_source_that_replaces_itself_ends(self):
        done = self.ask('[source.crates-io]\nreplace-with = "a"\n[source.a]\nreplace-with = "crates-io"\n')
        self.assertIn("with itself", done.stderr)


class Keys(unittest.TestCase):
    def test_keys_that_boards_trust_are_never_overwritten(self):
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder, "keys")
            self.assertEqual(subprocess.run([SCRIPTS / "keys.sh", keys], capture_output=True, timeout=120).returncode, 0)
            before = (keys / "ca.cert.pem").read_bytes()
            self.assertNotEqual(subprocess.run([SCRIPTS / "keys.sh", keys], capture_output=True, timeout=120).returncode, 0)
            self.assertEqual((keys / "ca.cert.pem").read_bytes(), before)

    def test_keys_are_for_their_owner_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder, "keys")
            subprocess.run([SCRIPTS / "keys.sh", keys], check=True, capture_output=True, timeout=120)
            for path in (keys, *keys.iterdir()):
                self.assertEqual(path.stat().st_mode & 0o077, 0, path)


if __name__ == "__main__":
    unittest.main()
