//! What a machine says of the power it draws. Every reading says what it covers, because a sensor on a chip and a
//! meter at the wall are not the same.
//!
//! ```text
//! hwmon ina3221   VDD_IN, volts times amperes       the module (Jetson)
//! hwmon ina2xx    power1_input                      what its maker put behind it
//! iio ina3221x    in_powerN_input by rail name      the module (Jetson, JetPack 4)
//! powercap        psys, else all packages           the platform, or the processor
//! vcgencmd        pmic_read_adc, all rails          the processor and its memory (Raspberry Pi 5)
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;

/// What a sensor's figure is the power of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// All behind the board's supply.
    Board,
    /// The compute module without the board that carries it.
    Module,
    /// The processor, on some machines with its memory; no disk, network, USB or loss of the power supply.
    Processor,
}

impl Covers {
    pub fn words(self) -> &'static str {
        match self {
            Covers::Board => "the board",
            Covers::Module => "the module without its carrier board",
            Covers::Processor => "the processor only, not the board",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// Millivolts and milliamperes.
    Product(PathBuf, PathBuf),
    /// Power, and how many microwatts its unit is.
    Power(PathBuf, u32),
    /// Counters of microjoules, each with the value after which it begins again.
    Energy(Vec<(PathBuf, u64)>),
    /// The answer of `vcgencmd pmic_read_adc`.
    Pmic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sensor {
    pub name: String,
    pub covers: Covers,
    source: Source,
}

/// One look at a sensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    Watts(f64),
    /// Counters in microjoules, each with its limit.
    Counters(Vec<(u64, u64)>),
}

/// Inputs of Jetson modules, over all their generations.
const JETSON_INPUTS: [&str; 5] = ["VDD_IN", "POM_5V_IN", "VIN", "VIN_SYS_5V0", "SYS_VIN"];

fn text(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// The folders in a folder, in the order of their names, so that two looks find the same.
fn folders(path: PathBuf) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// The widest sensor below `sys` that can be read.
pub fn find(sys: &Path) -> Option<Sensor> {
    let chips = folders(sys.join("class/hwmon"));
    let rails = folders(sys.join("bus/i2c/drivers/ina3221x"));
    let found = chips
        .iter()
        .find_map(|chip| jetson(chip))
        .or_else(|| rails.into_iter().flat_map(folders).find_map(|rail| old_jetson(&rail)))
        .or_else(|| chips.iter().find_map(|chip| ina2xx(chip)))
        .or_else(|| powercap(&folders(sys.join("class/powercap"))))?;
    // A counter may be there and closed to all but root.
    found.read().map(|_| found)
}

/// The sensor of the machine whose files are below `root`.
pub fn here(root: &Path) -> Option<Sensor> {
    let pmic =
        Sensor { name: "vcgencmd pmic_read_adc".to_owned(), covers: Covers::Processor, source: Source::Pmic };
    // The command speaks of the real machine, whatever tree a test has made.
    let pmic = || (root == Path::new("/")).then_some(pmic).filter(|pmic| pmic.read().is_some());
    find(&root.join("sys")).or_else(pmic)
}

fn jetson(chip: &Path) -> Option<Sensor> {
    text(chip.join("name")).filter(|name| name.starts_with("ina3221"))?;
    (1..=3).find_map(|rail| {
        let label = text(chip.join(format!("in{rail}_label")))?;
        JETSON_INPUTS.contains(&label.as_str()).then(|| Sensor {
            name: format!("ina3221 {label}"),
            covers: Covers::Module,
            source: Source::Product(
                chip.join(format!("in{rail}_input")),
                chip.join(format!("curr{rail}_input")),
            ),
        })
    })
}

fn old_jetson(device: &Path) -> Option<Sensor> {
    (0..=2).find_map(|rail| {
        let label = text(device.join(format!("rail_name_{rail}")))?;
        JETSON_INPUTS.contains(&label.as_str()).then(|| Sensor {
            name: format!("ina3221x {label}"),
            covers: Covers::Module,
            source: Source::Power(device.join(format!("in_power{rail}_input")), 1000),
        })
    })
}

fn ina2xx(chip: &Path) -> Option<Sensor> {
    let name = text(chip.join("name")).filter(|name| name.starts_with("ina2"))?;
    let file = chip.join("power1_input");
    number(&file)?;
    Some(Sensor { name, covers: Covers::Board, source: Source::Power(file, 1) })
}

fn powercap(zones: &[PathBuf]) -> Option<Sensor> {
    // Zones inside a package have two colons in their names and are counted with it.
    let outer = |zone: &&PathBuf| {
        zone.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("intel-rapl:") && name.matches(':').count() == 1)
    };
    let counter = |zone: &PathBuf| {
        let limit = number(&zone.join("max_energy_range_uj"))?;
        Some((zone.join("energy_uj"), limit))
    };
    let named: Vec<(String, &PathBuf)> =
        zones.iter().filter(outer).filter_map(|zone| Some((text(zone.join("name"))?, zone))).collect();
    if let Some((_, platform)) = named.iter().find(|(name, _)| name == "psys") {
        let source = Source::Energy(vec![counter(platform)?]);
        return Some(Sensor { name: "RAPL psys".to_owned(), covers: Covers::Board, source });
    }
    let packages: Vec<_> = named.iter().filter(|(name, _)| name.starts_with("package")).collect();
    // One package that cannot be read makes the sum unknown, not smaller.
    let counters: Option<Vec<_>> = packages.iter().map(|(_, zone)| counter(zone)).collect();
    let counters = counters.filter(|counters| !counters.is_empty())?;
    let name = format!("RAPL of {} package(s)", counters.len());
    Some(Sensor { name, covers: Covers::Processor, source: Source::Energy(counters) })
}

impl Sensor {
    pub fn read(&self) -> Option<Reading> {
        match &self.source {
            Source::Product(volts, amperes) => {
                Some(Reading::Watts(number(volts)? as f64 * number(amperes)? as f64 / 1e6))
            }
            Source::Power(file, microwatts) => {
                Some(Reading::Watts(number(file)? as f64 * f64::from(*microwatts) / 1e6))
            }
            Source::Energy(files) => {
                let all: Option<Vec<_>> =
                    files.iter().map(|(file, limit)| Some((number(file)?, *limit))).collect();
                all.map(Reading::Counters)
            }
            Source::Pmic => {
                let output = Command::new("vcgencmd")
                    .arg("pmic_read_adc")
                    .stdin(Stdio::null())
                    .stderr(Stdio::null())
                    .output()
                    .ok()?;
                pmic(&String::from_utf8_lossy(&output.stdout)).map(Reading::Watts)
            }
        }
    }
}

/// Watts over all rails that the answer gives both amperes and volts of.
///
/// Lines read `3V3_SYS_A current(1)=0.05855400A` and `3V3_SYS_V volt(9)=3.31430500V`.
pub fn pmic(answer: &str) -> Option<f64> {
    let values: Vec<(&str, f64)> = answer
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once(' ')?;
            let value = rest.split_once('=')?.1.trim().trim_end_matches(['A', 'V']);
            Some((name, value.parse().ok()?))
        })
        .collect();
    let rails: Vec<f64> = values
        .iter()
        .filter_map(|(name, amperes)| {
            let rail = name.strip_suffix("_A")?;
            let volts = values.iter().find(|(name, _)| name.strip_suffix("_V") == Some(rail))?.1;
            Some(amperes * volts)
        })
        .collect();
    (!rails.is_empty()).then(|| rails.iter().sum())
}

/// Adds readings up to joules.
#[derive(Debug, Default)]
pub struct Meter {
    last: Option<(Duration, Reading)>,
    joules: f64,
    span: Duration,
}

impl Meter {
    /// A reading, `at` that time after a common start. Between two readings of power the mean of both counts.
    pub fn add(&mut self, at: Duration, reading: Reading) {
        if let Some((then, before)) = self.last.take() {
            let span = at.saturating_sub(then);
            let joules = match (&before, &reading) {
                (Reading::Watts(from), Reading::Watts(to)) => Some((from + to) / 2.0 * span.as_secs_f64()),
                (Reading::Counters(from), Reading::Counters(to)) if from.len() == to.len() => {
                    let steps = from.iter().zip(to).map(|((from, _), (to, limit))| {
                        let step = if to >= from { to - from } else { limit.saturating_sub(*from) + to };
                        step as f64 / 1e6
                    });
                    Some(steps.sum())
                }
                (Reading::Watts(_) | Reading::Counters(_), Reading::Watts(_) | Reading::Counters(_)) => None,
            };
            if let Some(joules) = joules {
                self.joules += joules;
                self.span += span;
            }
        }
        self.last = Some((at, reading));
    }

    /// Mean power so far; None before the second reading.
    pub fn watts(&self) -> Option<f64> {
        (self.span > Duration::ZERO).then(|| self.joules / self.span.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{content}\n")).unwrap();
        }
        root
    }

    #[test]
    fn a_jetson_is_read_at_its_input_and_not_at_the_rails_behind_it() {
        let root = tree(&[
            ("class/hwmon/hwmon0/name", "cpu_thermal"),
            ("class/hwmon/hwmon1/name", "ina3221"),
            ("class/hwmon/hwmon1/in1_label", "VDD_CPU_GPU_CV"),
            ("class/hwmon/hwmon1/in2_label", "VDD_IN"),
            ("class/hwmon/hwmon1/in1_input", "5000"),
            ("class/hwmon/hwmon1/curr1_input", "300"),
            ("class/hwmon/hwmon1/in2_input", "5080"),
            ("class/hwmon/hwmon1/curr2_input", "1200"),
        ]);
        let sensor = find(root.path()).unwrap();
        assert_eq!((sensor.name.as_str(), sensor.covers), ("ina3221 VDD_IN", Covers::Module));
        assert_eq!(sensor.read(), Some(Reading::Watts(6.096)));
    }

    #[test]
    fn an_old_jetson_and_a_board_with_one_meter_are_read_too() {
        let root = tree(&[
            ("bus/i2c/drivers/ina3221x/1-0040/iio:device0/rail_name_0", "POM_5V_IN"),
            ("bus/i2c/drivers/ina3221x/1-0040/iio:device0/in_power0_input", "2345"),
        ]);
        assert_eq!(find(root.path()).unwrap().read(), Some(Reading::Watts(2.345)));
        let root =
            tree(&[("class/hwmon/hwmon3/name", "ina226"), ("class/hwmon/hwmon3/power1_input", "4250000")]);
        let sensor = find(root.path()).unwrap();
        assert_eq!((sensor.covers, sensor.read()), (Covers::Board, Some(Reading::Watts(4.25))));
    }

    #[test]
    fn packages_are_summed_their_parts_are_not_and_the_platform_is_preferred() {
        let package = |number: u8, joules: &'static str| {
            [
                ("name", format!("package-{number}")),
                ("energy_uj", joules.to_owned()),
                ("max_energy_range_uj", "1000".to_owned()),
            ]
            .map(|(file, content)| (format!("class/powercap/intel-rapl:{number}/{file}"), content))
        };
        let mut files: Vec<(String, String)> = package(0, "10").into_iter().chain(package(1, "20")).collect();
        files.push(("class/powercap/intel-rapl:0:0/name".into(), "core".into()));
        let list: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let root = tree(&list);
        assert_eq!(find(root.path()).unwrap().read(), Some(Reading::Counters(vec![(10, 1000), (20, 1000)])));
        fs::create_dir_all(root.path().join("class/powercap/intel-rapl:2")).unwrap();
        for (file, content) in [("name", "psys"), ("energy_uj", "7"), ("max_energy_range_uj", "9")] {
            fs::write(root.path().join("class/powercap/intel-rapl:2").join(file), content).unwrap();
        }
        let sensor = find(root.path()).unwrap();
        assert_eq!((sensor.covers, sensor.read()), (Covers::Board, Some(Reading::Counters(vec![(7, 9)]))));
    }

    #[test]
    fn no_sensor_and_one_that_may_not_be_read_are_none() {
        assert_eq!(find(tree(&[]).path()), None);
        let closed = tree(&[
            ("class/powercap/intel-rapl:0/name", "package-0"),
            ("class/powercap/intel-rapl:0/max_energy_range_uj", "1000"),
        ]);
        assert_eq!(find(closed.path()), None);
    }

    #[test]
    fn a_raspberry_pi_is_summed_over_rails_that_have_both_figures() {
        let answer = " 3V7_WL_SW_A current(0)=0.10000000A\n   3V3_SYS_A current(1)=0.20000000A\n     \
                      3V7_WL_SW_V volt(8)=3.70000000V\n   3V3_SYS_V volt(9)=3.30000000V\n  EXT5V_V volt(24)=5.1V\n";
        let watts = pmic(answer).unwrap();
        assert!((watts - (0.37 + 0.66)).abs() < 1e-9, "{watts}");
        assert_eq!(pmic("Command not registered"), None);
    }

    #[test]
    fn a_meter_takes_the_mean_between_readings_and_survives_a_counter_that_begins_again() {
        let mut meter = Meter::default();
        assert_eq!(meter.watts(), None);
        meter.add(Duration::ZERO, Reading::Watts(2.0));
        meter.add(Duration::from_secs(2), Reading::Watts(4.0));
        assert_eq!(meter.watts(), Some(3.0));
        let mut meter = Meter::default();
        meter.add(Duration::ZERO, Reading::Counters(vec![(9_000_000, 10_000_000)]));
        meter.add(Duration::from_secs(1), Reading::Counters(vec![(2_000_000, 10_000_000)]));
        assert_eq!(meter.watts(), Some(3.0));
    }
}
