//! The kernel's virtual codec, scaler and their drivers in an emulated machine, driven by GStreamer's own V4L2
//! elements and by our worker. The one place where V4L2 is run for real without a board.
//!
//! `make vm-test` sets `HEADWATER_VM` to the folder that `tests/vm/build.sh` made. Without it, or without QEMU,
//! every case is ignored and the reason is printed. One boot serves all cases: the guest only records.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use headwater_protocol::worker::{HEADER, Header, Kind};
use headwater_tests::process::{binaries, binary};
use headwater_tests::{Process, media};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

/// The guest's steps have deadlines of their own; this is for a machine that hangs as a whole.
const BOOTED_AND_DONE: Duration = Duration::from_secs(900);
/// Pictures of each segment of `v4l2_chains`, with a keyframe every fifth.
const PICTURES: u64 = 12;
/// Of the clip that ships with Headwater: a keyframe each second, so many segments.
const SEGMENTS: usize = 6;
/// The greatest distance of keyframes that the device knows.
const DEVICE_GOP: usize = 16;

/// What the machine left in the shared folder.
struct Seen {
    folder: tempfile::TempDir,
    console: String,
}

impl Seen {
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn code(&self, step: &str) -> Result<i32> {
        let code = self.text(&format!("{step}.code"));
        code.trim().parse().with_context(|| format!("{step} never ended; the console:\n{}", self.console))
    }

    /// What a step printed, if it ended well.
    fn json(&self, step: &str) -> Result<Value> {
        let (code, errors) = (self.code(step)?, self.text(&format!("{step}.err")));
        ensure!(code == 0, "{step} ended with {code}:\n{errors}");
        serde_json::from_str(&self.text(&format!("{step}.out"))).with_context(|| step.to_owned())
    }
}

/// Why the machine cannot be started here.
fn missing() -> Option<String> {
    if std::env::var_os("HEADWATER_VM").is_none() {
        return Some("HEADWATER_VM is not set; `make vm-test` builds the machine and runs this".to_owned());
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("the emulated machine is x86_64 and runs this host's programs".to_owned());
    }
    match Command::new("qemu-system-x86_64").arg("--version").output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("qemu-system-x86_64 does not run: {}", output.status)),
        Err(error) => Some(format!("qemu-system-x86_64: {error}; run `tests/setup.sh vm`")),
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn boot() -> Result<Seen> {
    let machine = PathBuf::from(std::env::var_os("HEADWATER_VM").context("HEADWATER_VM")?);
    let folder = tempfile::tempdir()?;
    let share = folder.path();
    let chains = binaries()?.join("examples/v4l2_chains");
    ensure!(chains.exists(), "{} is not built; run `make vm-test`", chains.display());
    let (worker, clip) = (quoted(&binary("headwater-worker")?), quoted(&media::clip()));
    fs::write(share.join("guest.sh"), include_str!("../vm/guest.sh"))?;
    let settings = format!("worker={worker}\nchains={}\nclip={clip}\nplugins=libav\n", quoted(&chains));
    fs::write(share.join("settings"), settings)?;
    let rung = json!({"name": "fwht", "codec": "fwht", "width": 1280, "height": 720, "quality": 40});
    fs::write(share.join("ladder.json"), json!([rung]).to_string())?;

    let mut command = Command::new("qemu-system-x86_64");
    // Emulation and no KVM: it is the same everywhere, and nested virtualisation may hang.
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(machine.join("vmlinuz")).arg("-initrd").arg(machine.join("initramfs"));
    // A kernel that broke ends the machine at once.
    let kernel = "console=ttyS0 quiet loglevel=4 oops=panic panic=-1 mitigations=off";
    command.args(["-append", kernel]);
    command.args(["-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"]);
    // A comma in a value is written twice.
    let path = share.display().to_string().replace(',', ",,");
    command.arg("-virtfs").arg(format!("local,path={path},mount_tag=share,security_model=none"));
    let log = share.join("console");
    let mut qemu = Process::start("qemu", command, &log)?;
    let deadline = std::time::Instant::now() + BOOTED_AND_DONE;
    while qemu.ended().is_none() {
        if std::time::Instant::now() > deadline {
            qemu.kill();
            bail!("the machine did not end within {BOOTED_AND_DONE:?}:\n{}", qemu.log_tail());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let console = qemu.log_tail();
    Ok(Seen { folder, console })
}

/// Every segment has all its pictures, at their times, and keyframes where the control asked for them.
fn whole(segments: &Value) -> Result<usize> {
    let segments = segments.as_array().context("a list of segments")?;
    for (number, segment) in segments.iter().enumerate() {
        let wanted = segment["frames"] == PICTURES
            && segment["keys"] == json!([0, 5, 10])
            && segment["times_kept"] == true;
        ensure!(wanted, "segment {number}: {segment}");
    }
    Ok(segments.len())
}

/// A coded picture, by the first bytes of its PES.
#[derive(Debug, PartialEq)]
struct Coded {
    pts: u64,
    /// Of FWHT: none where it is something else.
    key: Option<bool>,
}

/// The pictures of a transport stream that Headwater wrote.
fn pictures(stream: &[u8]) -> Vec<Coded> {
    let starts = stream.chunks_exact(188).filter(|packet| packet[1..3] == [0x41, 0x00]);
    let picture = |packet: &[u8]| {
        let adaptation = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
        let pes = packet.get(4 + adaptation..)?;
        let [a, b, c, d, e] = *pes.get(9..)?.first_chunk()?;
        let pts = u64::from(a >> 1 & 7) << 30
            | u64::from(b) << 22
            | u64::from(c >> 1) << 15
            | u64::from(d) << 7
            | u64::from(e >> 1);
        let data = pes.get(9 + usize::from(pes[8])..)?;
        let flags = data.starts_with(b"OOOO\xff\xff\xff\xff").then(|| data.get(20..)?.first_chunk().copied());
        let key = flags.flatten().map(|flags| u32::from_be_bytes(flags) & 1 << 10 != 0);
        Some(Coded { pts, key })
    };
    starts.filter_map(picture).collect()
}

/// When the clip's pictures are shown, by its segments as they are cut here.
fn shown() -> Result<Vec<u64>> {
    let mut split = Command::new(binary("headwater-worker")?);
    let output = split.arg("split").arg(media::clip()).args(["--segment", "1s"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut rest, mut stream) = (&output.stdout[..], Vec::new());
    while let Some((head, after)) = rest.split_first_chunk::<HEADER>() {
        let header = Header::decode(*head)?;
        let (payload, after) = after.split_at_checked(header.length as usize).context("half a frame")?;
        if header.kind == Kind::Data {
            stream.extend_from_slice(payload);
        }
        rest = after;
    }
    let mut times: Vec<u64> = pictures(&stream).iter().map(|coded| coded.pts).collect();
    times.sort_unstable();
    Ok(times)
}

/// The worker made all of the clip's segments in FWHT: every picture, at its time, each segment from a keyframe on.
fn all_in_fwht(seen: &Seen, step: &str) -> Result<()> {
    let (summary, times) = (seen.json(step)?, shown()?);
    let rung = &summary["renditions"][0];
    ensure!(summary["segments"] == SEGMENTS && summary["decoded"] == times.len(), "{summary}");
    ensure!(rung["frames"] == times.len() && rung["width"] == 1280 && rung["height"] == 720, "{summary}");
    let mut found = Vec::new();
    for number in 0..SEGMENTS {
        let file = seen.folder.path().join(format!("{step}/fwht/{number}.ts"));
        let coded = pictures(&fs::read(&file).with_context(|| file.display().to_string())?);
        let keys: Vec<usize> = (0..coded.len()).filter(|at| coded[*at].key == Some(true)).collect();
        let wanted: Vec<usize> = (0..coded.len()).step_by(DEVICE_GOP).collect();
        ensure!(keys == wanted, "segment {number} has keyframes at {keys:?}: {coded:?}");
        ensure!(
            coded.iter().all(|coded| coded.key.is_some()),
            "segment {number} has something else: {coded:?}"
        );
        found.extend(coded.into_iter().map(|coded| coded.pts));
    }
    ensure!(found == times, "other times than the clip's: {found:?}\n{times:?}");
    Ok(())
}

/// How many elements of a kind opened their device in a step.
fn opened(seen: &Seen, step: &str, element: &str) -> usize {
    let text = seen.text(&format!("{step}.err"));
    text.lines()
        .filter(|line| line.contains(&format!("<{element}")) && line.contains("Opened device"))
        .count()
}

type Case = fn(&Seen) -> Result<()>;

fn cases() -> Vec<(&'static str, Case)> {
    vec![
        ("the_machine_runs_every_step_and_ends_by_itself", |seen| {
            ensure!(seen.folder.path().join("finished").exists(), "{}", seen.console);
            Ok(())
        }),
        ("devices_and_their_drivers_are_read_from_sysfs", |seen| {
            let devices = seen.json("devices")?;
            let has = |driver: &str, card: &str| {
                let mut all = devices.as_array().into_iter().flatten();
                all.any(|device| device["driver"] == driver && device["card"] == card)
            };
            ensure!(has("vicodec", "stateful-encoder") && has("vicodec", "stateful-decoder"), "{devices}");
            ensure!(has("vim2m", "vim2m"), "{devices}");
            Ok(())
        }),
        ("gstreamer_registers_an_element_for_each_device", |seen| {
            let elements = seen.json("elements")?;
            let all = elements.as_array().context("a list")?;
            for wanted in ["v4l2fwhtenc", "v4l2fwhtdec", "v4l2convert"] {
                ensure!(all.contains(&json!(wanted)), "no {wanted}: {elements}");
            }
            Ok(())
        }),
        ("an_elements_controls_are_those_of_its_device", |seen| {
            let controls = seen.json("controls")?;
            let encoder = controls["encoder"].as_array().context("a list")?;
            for wanted in ["video_gop_size", "fwht_i_frame_qp_value", "fwht_p_frame_qp_value"] {
                ensure!(encoder.contains(&json!(wanted)), "no {wanted}: {controls}");
            }
            ensure!(
                !encoder.contains(&json!("video_bitrate")),
                "the virtual codec has no bitrate: {controls}"
            );
            Ok(())
        }),
        ("an_encoder_restarted_between_segments_gives_every_frame_of_twelve_with_its_gop", |seen| {
            let count = whole(&seen.json("recycle-ready")?["segments"])?;
            ensure!(count == 12, "{count} segments");
            Ok(())
        }),
        ("one_two_four_and_eight_encoders_work_at_once", |seen| {
            for wanted in [1, 2, 4, 8] {
                let step = format!("instances-{wanted}");
                let count = whole(&seen.json(&step)?["instances"]).context(step)?;
                ensure!(count == wanted, "{count} of {wanted} instances");
            }
            Ok(())
        }),
        ("the_virtual_scaler_makes_the_asked_size", |seen| {
            let scaled = seen.json("scale")?;
            let caps = scaled["caps"].as_str().unwrap_or_default();
            ensure!(scaled["frames"] == PICTURES, "{scaled}");
            ensure!(caps.contains("width=(int)320") && caps.contains("height=(int)180"), "{scaled}");
            Ok(())
        }),
        ("a_driver_in_use_is_not_taken_away", |seen| {
            let busy = seen.json("unplug-busy")?;
            ensure!(busy["removed"] == false, "{busy}");
            ensure!(busy["kernel"].as_str().is_some_and(|text| text.contains("in use")), "{busy}");
            whole(&json!([busy["before"], busy["after"]]))?;
            Ok(())
        }),
        ("an_unplugged_codec_is_told_in_words_and_works_again_when_it_is_back", |seen| {
            ensure!(seen.code("unplugged")? == 1);
            let words = seen.text("unplugged.err");
            ensure!(words.contains("there is no v4l2fwhtenc"), "{words}");
            ensure!(whole(&seen.json("plugged-again")?["segments"])? == 1);
            Ok(())
        }),
        ("the_worker_proves_the_encoder_by_the_profile_for_boards_with_v4l2", |seen| {
            let probe = seen.json("probe")?;
            ensure!(probe["profile"] == "v4l2-m2m", "{probe}");
            let all = probe["capabilities"].as_array().context("a list")?;
            let found = all.iter().find(|one| one["element"] == "v4l2fwhtenc");
            let found = found.with_context(|| format!("no v4l2fwhtenc: {probe}"))?;
            ensure!(found["kind"] == "encode" && found["codec"] == "fwht", "{found}");
            ensure!(found["instances"].as_u64().is_some_and(|count| count > 0), "{found}");
            Ok(())
        }),
        ("a_warm_worker_makes_every_picture_of_a_file_on_one_encoder", |seen| {
            all_in_fwht(seen, "into-fwht")?;
            ensure!(opened(seen, "into-fwht", "v4l2fwhtenc") == 1, "not one encoder for all segments");
            Ok(())
        }),
        ("the_decoder_gives_every_picture_or_is_refused_for_those_that_it_lost", |seen| {
            let probe = seen.json("probe")?;
            let refused = probe["unproved"].as_array().context("a list")?;
            let Some(refused) = refused.iter().find(|one| one["element"] == "v4l2fwhtdec") else {
                all_in_fwht(seen, "from-fwht")?;
                ensure!(opened(seen, "from-fwht", "v4l2fwhtdec") > 0, "it was decoded elsewhere");
                return Ok(());
            };
            // GStreamer 1.22 throws away what a decoder made before it told the size of its pictures.
            let why = refused["fault"]["text"].as_str().unwrap_or_default();
            ensure!(why.starts_with("v4l2fwhtdec decoded 5") && why.ends_with("of 60 frames"), "{refused}");
            let words = seen.text("from-fwht.err");
            ensure!(
                seen.code("from-fwht")? == 1 && words.contains(&format!("works here ({why})")),
                "{words}"
            );
            Ok(())
        }),
        ("what_the_probe_remembers_has_the_controls_of_each_device_that_it_opened", |seen| {
            let (remembered, controls) = (seen.json("remembered")?, seen.json("controls")?);
            let found = remembered["findings"]["found"].as_array().context("a list")?;
            let of = |element: &str| {
                let finding = found.iter().find(|one| one["element"] == element);
                finding.map(|one| one["controls"].clone())
            };
            let scaler = of("v4l2convert").context("the scaler was no candidate")?;
            ensure!(scaler == controls["scaler"], "{scaler}, not {}", controls["scaler"]);
            let encoder = of("v4l2fwhtenc");
            ensure!(encoder.iter().all(|one| *one == controls["encoder"]), "{encoder:?}");
            Ok(())
        }),
    ]
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let named = |ignored: bool| {
        let trials = cases().into_iter();
        trials.map(|(name, _)| Trial::test(name, || Ok(())).with_ignored_flag(ignored)).collect()
    };
    // Listing must not start a machine.
    if arguments.list {
        return libtest_mimic::run(&arguments, named(false)).exit_code();
    }
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return libtest_mimic::run(
            &Arguments { ignored: false, include_ignored: false, ..arguments },
            named(true),
        )
        .exit_code();
    }
    let seen = match boot() {
        Ok(seen) => Arc::new(seen),
        Err(error) => {
            eprintln!("the emulated machine: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases()
        .into_iter()
        .map(|(name, case)| {
            let seen = Arc::clone(&seen);
            Trial::test(name, move || case(&seen).map_err(|error| Failed::from(format!("{error:#}"))))
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
