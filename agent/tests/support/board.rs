//! A board with two slots, or with packages: programs of the system that note what they were asked, root's helper, and
//! boots. The state is in files that a test reads and writes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::{User, geteuid};
use openssl::sha::sha256;
use serde_json::{Value, json};

use super::{Fleet, Running, order, until};

/// Like RAUC 1.8: the bundle of these tests is its manifest in a line, and bytes.
const RAUC: &str = r#"
case "$1" in
info)
    head -n 1 "$3" | grep -q compatible || { echo 'signature verification failed: Verify error: self-signed certificate' >&2; exit 1; }
    head -n 1 "$3" ;;
install)
    [ -e install-fails ] && { echo 'LastError: Installation error: Failed to write to device: No space left'; exit 1; }
    while [ -e install-waits ]; do sleep 0.05; done
    echo ' 20% Checking bundle'; echo '100% Installing done.'
    other=A; [ "$(cat booted)" = A ] && other=B
    head -n 1 "$2" | sed 's/.*"version":"\([^"]*\)".*/\1/' > "version-$other"
    echo good > "state-$other"; echo "$other" > primary ;;
status)
    case "$2" in
    mark-good) echo good > "state-$(cat booted)" ;;
    mark-bad)
        slot=$(cat booted)
        [ "$3" = booted ] || { [ "$slot" = A ] && slot=B || slot=A; }
        echo bad > "state-$slot" ;;
    *)
        slot() { printf '{"rootfs.%s":{"class":"rootfs","bootname":"%s","slot_status":{"bundle":{"version":"%s"}}}}' "$1" "$1" "$(cat "version-$1")"; }
        printf '{"compatible":"board","booted":"%s","boot_primary":"rootfs.%s","slots":[%s,%s]}' "$(cat booted)" "$(cat primary)" "$(slot A)" "$(slot B)" ;;
    esac ;;
esac
"#;

const SYSTEMCTL: &str = r#"
cd ..
[ "$1" = start ] && setsid "$AGENT" --config system.toml system guard >> system.log 2>&1 < /dev/null &
exit 0
"#;

const DPKG: &str = r#"
case "$1" in
--compare-versions) exec /usr/bin/dpkg "$@" ;;
--print-architecture) echo board ;;
esac
"#;

const DPKG_QUERY: &str = r#"
for package; do :; done
[ "$package" = headwater-agent ] && [ -e installed ] && printf 'ii %s' "$(cat installed)"
"#;

/// Like 1.52: into the folder that it is called in.
const DPKG_REPACK: &str = r#"
for package; do :; done
[ -e repack-fails ] && { echo "dpkg-repack: error: not to be packed" >&2; exit 2; }
mkdir -p repack/DEBIAN
printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: t\nDescription: t\n' "$package" "$(cat installed)" > repack/DEBIAN/control
dpkg-deb --root-owner-group --build repack "$from/${package}_$(cat installed)_all.deb" > /dev/null
"#;

const APT_GET: &str = r#"
for file; do :; done
[ -e apt-fails ] && { echo 'E: Unmet dependencies' >&2; exit 100; }
dpkg-deb -f "$file" Version > installed
"#;

/// The system's own, on a system in a folder.
const REAL: [(&str, &str); 4] = [
    (
        "dpkg",
        r#"
case "$1" in
--print-architecture) echo board ;;
*) PATH=$PATH:/usr/sbin:/sbin exec /usr/bin/dpkg --log=/dev/null --force-not-root --root="$PWD/root" "$@" ;;
esac
"#,
    ),
    ("dpkg-query", "exec /usr/bin/dpkg-query --admindir=root/var/lib/dpkg \"$@\"\n"),
    (
        "dpkg-repack",
        "[ -e repack-fails ] && exit 2; root=$PWD/root; cd \"$from\"; exec /usr/bin/dpkg-repack --root=\"$root\" \"$@\"\n",
    ),
    (
        "apt-get",
        r#"
debs=; for file; do case "$file" in *.deb) debs="$debs $file" ;; esac; done
PATH=$PATH:/usr/sbin:/sbin exec /usr/bin/dpkg --log=/dev/null --force-not-root --force-confold --root="$PWD/root" --install $debs
"#,
    ),
];

pub(crate) struct Board<'a> {
    fleet: &'a Fleet,
}

impl<'a> Board<'a> {
    fn new(fleet: &'a Fleet, rauc: bool) -> Self {
        let board = Self { fleet };
        for folder in ["bin", "board", "proc/sys/kernel/random"] {
            fs::create_dir_all(fleet.home.path().join(folder)).unwrap();
        }
        for (name, script) in [
            ("rauc", RAUC),
            ("systemctl", SYSTEMCTL),
            ("dpkg", DPKG),
            ("dpkg-query", DPKG_QUERY),
            ("dpkg-repack", DPKG_REPACK),
            ("apt-get", APT_GET),
        ] {
            board.program(name, script);
        }
        let own = User::from_uid(geteuid()).unwrap().unwrap();
        board.serves(&own.name);
        if rauc {
            fs::write(fleet.home.path().join("rauc.conf"), "").unwrap();
        }
        board.time("first boot", 100);
        board
    }

    /// Whom the helper serves besides root.
    pub(crate) fn serves(&self, user: &str) {
        let home = self.fleet.home.path().display();
        let text = format!(
            "state_dir = \"{home}/root\"\nbundles = \"{home}/state/update\"\nrauc_config = \"{home}/rauc.conf\"\n\
             update_keyring = \"{home}/keyring.pem\"\nuser = \"{user}\"\n"
        );
        fs::write(self.fleet.home.path().join("system.toml"), text).unwrap();
    }

    /// A line in root's `system.toml`.
    pub(crate) fn root_says(&self, line: &str) {
        let path = self.fleet.home.path().join("system.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}{line}\n")).unwrap();
    }

    pub(crate) fn with_slots(fleet: &'a Fleet) -> Self {
        let board = Self::new(fleet, true);
        for (name, text) in
            [("booted", "A"), ("primary", "A"), ("version-A", "1"), ("version-B", "0"), ("state-B", "good")]
        {
            board.set(name, text);
        }
        board
    }

    pub(crate) fn with_packages(fleet: &'a Fleet) -> Self {
        let board = Self::new(fleet, false);
        board.set("installed", "1");
        board
    }

    /// The same by real tools: these are installed, of version 1.
    pub(crate) fn with_dpkg(fleet: &'a Fleet, packages: &[&str]) -> Self {
        let board = Self::new(fleet, false);
        for (name, script) in REAL {
            board.program(name, script);
        }
        for folder in ["info", "updates"] {
            fs::create_dir_all(board.path("root/var/lib/dpkg").join(folder)).unwrap();
        }
        board.set("root/var/lib/dpkg/status", "");
        board.deb_order_of(
            "by-hand",
            "1",
            &packages.iter().map(|package| (*package, "1")).collect::<Vec<_>>(),
        );
        let debs = packages.iter().map(|package| format!("make/bundle/{package}_all.deb"));
        let mut dpkg = Command::new(fleet.home.path().join("bin/dpkg"));
        let installed =
            dpkg.arg("--install").args(debs.map(|deb| fleet.home.path().join(deb))).output().unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        board
    }

    /// What real dpkg says of a package.
    pub(crate) fn installed(&self, package: &str) -> String {
        let mut query = Command::new("/usr/bin/dpkg-query");
        query.arg("--admindir").arg(self.path("root/var/lib/dpkg"));
        let said = query.args(["-W", "-f", "${db:Status-Abbrev}${Version}", package]).output().unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.fleet.home.path().join("bin").join(name);
        let folder = self.fleet.home.path().join("board");
        let head = format!("#!/bin/sh\nfrom=$PWD\ncd {}\necho \"{name} $*\" >> calls\n", folder.display());
        fs::write(&path, head + script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fleet.home.path().join("board").join(name)
    }

    pub(crate) fn set(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn get(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default().trim().to_owned()
    }

    pub(crate) fn was_asked(&self, call: &str) -> bool {
        self.get("calls").lines().any(|line| line == call)
    }

    pub(crate) fn time(&self, boot_id: &str, uptime: u32) {
        let proc = self.fleet.home.path().join("proc");
        fs::write(proc.join("sys/kernel/random/boot_id"), boot_id).unwrap();
        fs::write(proc.join("uptime"), format!("{uptime}.00 0.00\n")).unwrap();
    }

    /// As a bootloader: the slot that is next, unless it is bad.
    pub(crate) fn boot(&self, boot_id: &str) {
        let next = self.get("primary");
        let other = if next == "A" { "B" } else { "A" };
        let slot = if self.get(&format!("state-{next}")) == "bad" { other } else { &next };
        self.set("booted", slot);
        self.time(boot_id, 5);
    }

    pub(crate) fn system(&self, args: &[&str]) -> Command {
        let home = self.fleet.home.path();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-agent"));
        command.env("PATH", format!("{}:{path}", home.join("bin").display()));
        command.env("HEADWATER_PROC", home.join("proc")).env("AGENT", env!("CARGO_BIN_EXE_headwater-agent"));
        command.arg("--config").arg(home.join("system.toml")).arg("system").args(args).current_dir(home);
        command.stdin(Stdio::null()).env_remove("RUST_LOG");
        let log = fs::OpenOptions::new().create(true).append(true).open(home.join("system.log")).unwrap();
        command.stderr(log);
        command
    }

    pub(crate) fn helper(&self) -> Running {
        let socket = self.fleet.home.path().join("system.sock");
        let helper = Running(self.system(&["serve", "--socket"]).arg(&socket).spawn().unwrap());
        until("the helper listens", || UnixStream::connect(&socket).is_ok());
        helper
    }

    pub(crate) fn guard(&self) -> Running {
        Running(self.system(&["guard"]).spawn().unwrap())
    }

    /// What a guard that the helper started says; it ends by itself.
    pub(crate) fn no_guard_is_left(&self) {
        until("the guard ends", || {
            self.fleet.processes().iter().all(|process| !process.contains("system guard"))
        });
    }

    /// A bundle that the gateway has, and its order.
    pub(crate) fn rauc_order(&self, id: &str, version: &str) -> Value {
        let manifest = format!("{{\"compatible\":\"board\",\"version\":\"{version}\"}}\n");
        self.order(id, version, "rauc", [manifest.as_bytes(), &[7; 600_000]].concat())
    }

    pub(crate) fn order(&self, id: &str, version: &str, kind: &str, bytes: Vec<u8>) -> Value {
        let sha256: String = sha256(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("/v1/bundles/{sha256}");
        self.fleet.server.put_input(&path, &bytes);
        order(
            &format!("command-{id}"),
            json!({ "update": {
                "id": id, "health": 60_000,
                "bundle": { "kind": kind, "compatible": "board", "version": version, "bytes": bytes.len(),
                            "sha256": sha256, "path": path },
            }}),
        )
    }

    /// A signed bundle with one small package, made as an operator makes it.
    pub(crate) fn deb_order(&self, id: &str, version: &str) -> Value {
        self.deb_order_of(id, version, &[("headwater-agent", version)])
    }

    /// The same, with these packages of these versions.
    pub(crate) fn deb_order_of(&self, id: &str, version: &str, packages: &[(&str, &str)]) -> Value {
        let script = r#"
            set -e
            umask 022; rm -rf make; mkdir -p make/bundle
            bundle=$1 list= debs=; shift
            while [ $# != 0 ]; do
                root=make/$1 toml=/etc/headwater/${1#headwater-}.toml deb=$1_all.deb
                mkdir -p $root/DEBIAN $root/etc/headwater
                echo "of = $2" > $root$toml; echo $toml > $root/DEBIAN/conffiles
                printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: t\nDescription: t\n' $1 $2 > $root/DEBIAN/control
                dpkg-deb --build $root make/bundle/$deb > /dev/null
                sha=$(sha256sum make/bundle/$deb | cut -d ' ' -f 1) debs="$debs $deb"
                list="$list,{\"file\":\"$deb\",\"package\":\"$1\",\"version\":\"$2\",\"sha256\":\"$sha\"}"
                shift 2
            done
            [ -e keyring.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 \
                -subj /CN=release -keyout release.key -out keyring.pem 2> /dev/null
            printf '{"kind":"deb","architecture":"board","version":"%s","packages":[%s]}' $bundle "${list#,}" > make/bundle/manifest.json
            openssl cms -sign -binary -in make/bundle/manifest.json -signer keyring.pem -inkey release.key -outform DER -out make/bundle/manifest.p7s
            tar -C make/bundle -cf make/bundle.tar manifest.json manifest.p7s $debs
        "#;
        let home = self.fleet.home.path();
        let packages = packages.iter().flat_map(|(package, version)| [*package, *version]);
        let made = Command::new("sh")
            .args(["-c", script, "sh", version])
            .args(packages)
            .current_dir(home)
            .status()
            .unwrap();
        assert!(made.success());
        self.order(id, version, "deb", fs::read(home.join("make/bundle.tar")).unwrap())
    }

    /// Puts an order's bundle where the agent has what it fetched; the file.
    pub(crate) fn put_bundle(&self, order: &Value) -> PathBuf {
        let bundle = &order["command"]["update"]["bundle"];
        let folder = self.fleet.state_dir().join("update");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(bundle["sha256"].as_str().unwrap());
        let bytes = self.fleet.server.state.lock().unwrap().inputs[bundle["path"].as_str().unwrap()].clone();
        fs::write(&file, bytes).unwrap();
        file
    }

    /// Who speaks to the helper as the agent does.
    pub(crate) fn asks(&self, request: &Value) -> UnixStream {
        let mut stream = UnixStream::connect(self.fleet.home.path().join("system.sock")).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        stream
    }

    pub(crate) fn ask(&self, request: &Value) -> Value {
        answer(self.asks(request))
    }
}

/// The helper's last word.
pub(crate) fn answer(mut stream: UnixStream) -> Value {
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}
