//! What the board says of itself: facts for the birth, figures for the telemetry. Reads, never writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_protocol::message::Board;

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    // The device tree ends its texts with a zero byte.
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(path: impl AsRef<Path>) -> Option<f64> {
    line(path)?.parse().ok()
}

/// Where the kernel says which boot this is and how long ago it was; tests put a board there that boots anew.
fn kernel(path: &str) -> PathBuf {
    Path::new(&std::env::var_os("HEADWATER_PROC").unwrap_or_else(|| "/proc".into())).join(path)
}

/// Changes with each boot of the kernel.
pub(crate) fn boot_id() -> String {
    line(kernel("sys/kernel/random/boot_id")).unwrap_or_default()
}

/// What the bootloader told the kernel: the value of `name=value` on its command line.
pub(crate) fn boot_option(name: &str) -> Option<String> {
    let line = line(kernel("cmdline"))?;
    line.split_whitespace().find_map(|option| option.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

pub(crate) fn board(profile: &str) -> Board {
    let model = line("/proc/device-tree/model").or_else(|| line("/sys/class/dmi/id/product_name"));
    Board {
        profile: profile.to_owned(),
        model: model.unwrap_or_default(),
        arch: std::env::consts::ARCH.to_owned(),
        os: os_name(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
        cpus: std::thread::available_parallelism()
            .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory("MemTotal:"),
    }
}

fn os_name(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches(['"', '\'']).to_owned()
}

/// A line of `/proc/meminfo` or a map, in bytes.
fn kib(text: &str, key: &str) -> u64 {
    let value =
        text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok());
    value.unwrap_or(0) * 1024
}

fn memory(key: &str) -> u64 {
    kib(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), key)
}

pub(crate) fn memory_available() -> u64 {
    memory("MemAvailable:")
}

/// This program's proportional set.
pub(crate) fn own_memory() -> u64 {
    kib(&fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default(), "Pss:")
}

pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

pub(crate) fn uptime() -> Duration {
    let text = fs::read_to_string(kernel("uptime")).unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn folders(path: &str) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// The hottest thermal zone, degrees Celsius.
pub(crate) fn temperature() -> Option<f64> {
    let zones = folders("/sys/class/thermal").filter_map(|zone| number(zone.join("temp")));
    // A zone that is off reads as nonsense far below zero.
    zones.map(|millis| millis / 1000.0).filter(|degrees| (-50.0..200.0).contains(degrees)).reduce(f64::max)
}

/// The board's input power in watts. Sensors of the INA family sit on the supply rails of most boards; where there
/// are several, the largest is the input.
pub(crate) fn power() -> Option<f64> {
    let sensors = folders("/sys/class/hwmon");
    let sensors =
        sensors.filter(|sensor| line(sensor.join("name")).is_some_and(|name| name.starts_with("ina")));
    let watts = sensors.filter_map(|sensor| {
        let micro = number(sensor.join("power1_input")).map(|microwatts| microwatts / 1e6);
        micro.or_else(|| {
            // The INA3221 gives no product: millivolts times milliamperes.
            let volts = number(sensor.join("in1_input"))? / 1e3;
            Some(volts * number(sensor.join("curr1_input"))? / 1e3)
        })
    });
    watts.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_kernels_texts() {
        assert_eq!(
            os_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(os_name(""), "Linux");
        assert_eq!(kib("MemTotal:       16 kB\nMemAvailable:    8 kB\n", "MemAvailable:"), 8192);
        let board = board("generic");
        assert!(board.cpus > 0 && board.memory_bytes > 0 && !board.kernel.is_empty());
        assert!(own_memory() > 0);
        assert!(!boot_id().is_empty());
    }
}
