//! A machine that is not this one: the snapshot's files, its elements as stand-ins, and the real worker on it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use headwater_pipelines::machine::Machine;
use headwater_protocol::ProbeReport;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Far more than any run here takes; what reaches it hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The rungs of the rig's ladder, and bit/s of each.
pub const BITRATES: [(&str, u32); 2] = [("272p", 600_000), ("180p", 300_000)];

/// The last resort without its slow codecs, for probes.
const SMALL: &str = r#"
schema = 1
id = "software"
title = "Software, a little"
status = "verified"
priority = -100
[[decoder]]
codec = "h264"
factory = ["avdec_h264"]
package = "gstreamer1.0-libav"
out = { formats = ["I420"] }
[[encoder]]
codec = "h264"
factory = ["x264enc"]
package = "gstreamer1.0-plugins-ugly"
in = { formats = ["I420"] }
set = { speed-preset = "ultrafast", bframes = "0", b-adapt = "false", byte-stream = "true", option-string = "scenecut=0:open-gop=0" }
[encoder.map]
bitrate = { prop = "bitrate", unit = "kbit/s", with = { pass = "cbr", vbv-buf-capacity = "1000" } }
gop = { prop = "key-int-max", unit = "frames", never = 1000000 }
"#;

pub struct Rig {
    pub folder: TempDir,
    pub snapshot: PathBuf,
}

/// The snapshots of the golden plans.
pub fn snapshots() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/machines");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = names
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Where cargo put the binaries of this build.
fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}

fn built(name: &str, how: &str) -> PathBuf {
    let path = target().join(name);
    assert!(path.exists(), "{} is not there; build it with `{how}`", path.display());
    path
}

impl Rig {
    /// The machine after a probe that proved all but what its snapshot refuses.
    pub fn new(machine: &str) -> Self {
        let rig = Self::unproved(machine);
        let refused = serde_json::to_string(&rig.machine().refused).unwrap();
        fs::write(rig.path("root/headwater-all-is-proved"), refused).unwrap();
        rig
    }

    pub fn machine(&self) -> Machine {
        serde_json::from_str(&fs::read_to_string(&self.snapshot).unwrap()).unwrap()
    }

    /// The machine before any probe.
    pub fn unproved(machine: &str) -> Self {
        Self::changed(machine, |_| ())
    }

    /// The machine before any probe, with something about it changed.
    pub fn changed(machine: &str, change: impl FnOnce(&mut Machine)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/golden/machines/{machine}.json"));
        let mut machine = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
        change(&mut machine);
        tree(&folder.path().join("root"), &machine);
        let snapshot = folder.path().join("machine.json");
        fs::write(&snapshot, serde_json::to_string(&machine).unwrap()).unwrap();
        let plugins = folder.path().join("plugins");
        fs::create_dir(&plugins).unwrap();
        let stub = built("libheadwater_stub.so", "cargo build -p headwater-stub");
        std::os::unix::fs::symlink(stub, plugins.join("libheadwater_stub.so")).unwrap();
        Self { folder, snapshot }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the worker proves on that machine, with little software.
    pub fn probe(&self, faults: &str) -> ProbeReport {
        let boards = self.path("boards");
        fs::create_dir_all(&boards).unwrap();
        fs::write(boards.join("software.toml"), SMALL).unwrap();
        let done = self.run(self.worker(faults).env("HEADWATER_BOARDS", boards).arg("probe"));
        serde_json::from_slice(&done.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)))
    }

    /// The worker on that machine.
    pub fn worker(&self, faults: &str) -> Command {
        let worker = built("headwater-worker", "cargo build -p headwater-pipelines --bins");
        let mut command = Command::new(worker);
        command
            .env("HEADWATER_ROOT", self.path("root"))
            .env("HEADWATER_STUB_MACHINE", &self.snapshot)
            .env("HEADWATER_STUB_FAULTS", faults)
            .env("HEADWATER_STUB_TRACE", self.path("trace"))
            .env("GST_PLUGIN_PATH", self.path("plugins"))
            // Other elements than the machine's own must not come into its registry.
            .env("GST_REGISTRY", self.path("registry.bin"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("HEADWATER_BOARD")
            .env_remove("HEADWATER_PROBE_CACHE")
            .env_remove("HEADWATER_BOARDS");
        command
    }

    /// Runs it to its end; a run that hangs is killed and fails the test.
    pub fn run(&self, command: &mut Command) -> Output {
        let out = fs::File::create(self.path("stdout")).unwrap();
        let err = fs::File::create(self.path("stderr")).unwrap();
        let mut child =
            command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{command:?} hangs:\n{}", fs::read_to_string(self.path("stderr")).unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let read = |name: &str| fs::read(self.path(name)).unwrap();
        Output { status, stdout: read("stdout"), stderr: read("stderr") }
    }

    pub fn ffmpeg(&self, arguments: &[&str]) {
        let mut command = Command::new("ffmpeg");
        command.current_dir(self.folder.path()).args(["-nostdin", "-v", "error", "-y"]).args(arguments);
        assert!(command.status().unwrap().success());
    }

    /// `seconds` of `size` at 30 fps from the time `at` on, with a keyframe each two seconds.
    pub fn clip_of(&self, name: &str, size: &str, at: &str, seconds: &str) -> PathBuf {
        let source = format!("testsrc2=size={size}:rate=30");
        let mut arguments = vec!["-f", "lavfi", "-i", &source, "-t", seconds, "-pix_fmt", "yuv420p"];
        arguments.extend(["-c:v", "libx264", "-preset", "ultrafast", "-g", "60", "-keyint_min", "60"]);
        arguments.extend(["-sc_threshold", "0", "-output_ts_offset", at, name]);
        self.ffmpeg(&arguments);
        self.path(name)
    }

    /// Six seconds in three GOPs, to be cut into three segments.
    pub fn clip(&self) -> PathBuf {
        self.clip_of("in.ts", "640x360", "0", "6")
    }

    /// Two rungs of H.264 with a keyframe each second.
    pub fn ladder(&self) -> PathBuf {
        self.ladder_of(1000)
    }

    /// Two rungs of H.264 with a keyframe each `gop` milliseconds.
    pub fn ladder_of(&self, gop: u32) -> PathBuf {
        let rung = |width: u32, height: u32, (name, bitrate): (&str, u32)| {
            json!({"name": name, "codec": "h264", "width": width, "height": height,
                   "rate": {"bitrate": bitrate}, "gop": {"every": gop}, "container": "ts"})
        };
        let path = self.path("ladder.json");
        let rungs = Value::from(vec![rung(480, 272, BITRATES[0]), rung(320, 180, BITRATES[1])]);
        fs::write(&path, rungs.to_string()).unwrap();
        path
    }

    /// The clip on the ladder.
    pub fn transcode(&self, faults: &str) -> Output {
        self.transcode_of(&self.clip(), &self.ladder(), faults)
    }

    pub fn transcode_of(&self, clip: &Path, ladder: &Path, faults: &str) -> Output {
        let mut command = self.worker(faults);
        command.arg("transcode").arg(clip).arg("-o").arg(self.path("out"));
        command.arg("--ladder").arg(ladder).args(["--segment", "2", "--json"]);
        self.run(&mut command)
    }

    /// Lines that `element` wrote.
    pub fn trace(&self, element: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path("trace")).unwrap_or_default();
        let mine = text.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| *name == element);
        mine.map(|(_, what)| what.to_owned()).collect()
    }

    pub fn whole_trace(&self) -> String {
        fs::read_to_string(self.path("trace")).unwrap_or_default()
    }

    /// Width and height of a file's video.
    pub fn size(&self, file: &Path) -> (u32, u32) {
        let done = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height"])
            .args(["-of", "csv=p=0"])
            .arg(file)
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let (width, height) = text.lines().next().unwrap().trim_end_matches(',').split_once(',').unwrap();
        (width.parse().unwrap(), height.parse().unwrap())
    }

    /// Presentation time in ticks and whether it is a keyframe, for each frame of a file.
    pub fn frames(&self, file: &Path) -> Vec<(i64, bool)> {
        let done = Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-select_streams",
                "v:0",
                "-show_entries",
                "packet=pts,flags",
                "-of",
                "csv=p=0",
            ])
            .arg(file)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = String::from_utf8(done.stdout).unwrap();
        let mut frames: Vec<(i64, bool)> = text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (pts, flags) = line.split_once(',').unwrap();
                (pts.parse().unwrap(), flags.starts_with('K'))
            })
            .collect();
        frames.sort_unstable();
        frames
    }
}

/// The files in which a machine says what it is.
fn tree(root: &Path, machine: &Machine) {
    let put = |path: &str, bytes: &[u8]| {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put("arch", machine.arch.as_bytes());
    put("gstreamer", machine.gstreamer.to_string().as_bytes());
    if !machine.device_tree.model.is_empty() {
        put("proc/device-tree/model", format!("{}\0", machine.device_tree.model).as_bytes());
        let names: String = machine.device_tree.compatible.iter().map(|name| format!("{name}\0")).collect();
        put("proc/device-tree/compatible", names.as_bytes());
    }
    for (path, text) in &machine.files {
        put(path, text.as_bytes());
    }
    for (number, device) in machine.video_devices.iter().enumerate() {
        let node = device.path.strip_prefix("/dev/").map_or_else(|| format!("video{number}"), str::to_owned);
        let folder = format!("sys/class/video4linux/{node}");
        put(&format!("{folder}/name"), device.name.as_bytes());
        let driver = root.join(format!("sys/bus/drivers/{}", device.driver));
        fs::create_dir_all(&driver).unwrap();
        fs::create_dir_all(root.join(format!("{folder}/device"))).unwrap();
        std::os::unix::fs::symlink(&driver, root.join(format!("{folder}/device/driver"))).unwrap();
    }
    for (number, device) in machine.pci.iter().enumerate() {
        let folder = format!("sys/bus/pci/devices/0000:00:{number:02x}.0");
        put(&format!("{folder}/vendor"), device.vendor.as_bytes());
        put(&format!("{folder}/class"), device.class.as_bytes());
    }
}
