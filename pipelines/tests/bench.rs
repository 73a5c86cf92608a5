//! `headwater-worker bench` and `part`, as a person and `make bench` run them.

use std::fs;
use std::process::Command;

use serde_json::Value;

mod rig;
use rig::Rig;

fn worker(arguments: &[&str]) -> Value {
    said(Command::new(env!("CARGO_BIN_EXE_headwater-worker")).args(arguments))
}

fn said(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_machine_measures_itself_without_any_input() {
    let report = worker(&["bench", "--json", "--load", "1s"]);
    assert_eq!(report["encoders"].as_array().unwrap().len(), 4, "{report}");
    let loads = report["loads"].as_array().unwrap();
    assert_eq!(loads[0]["streams"], 1);
    for load in loads {
        assert!(
            load["fps"].as_f64().unwrap() > 0.0 && load["cpu_seconds_per_minute"].as_f64().unwrap() > 0.0
        );
        // No joules without a sensor, and none above idle without an idle figure.
        assert_eq!(load["watts"].is_null(), load["joules_per_minute"].is_null());
    }
}

/// A machine with a Jetson's meter, which always reads the same.
fn jetson(rig: &Rig) {
    let chip = rig.path("root/sys/class/hwmon/hwmon1");
    fs::create_dir_all(&chip).unwrap();
    for (file, content) in
        [("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5080"), ("curr1_input", "1200")]
    {
        fs::write(chip.join(file), format!("{content}\n")).unwrap();
    }
    fs::create_dir_all(rig.path("root/proc/device-tree")).unwrap();
    fs::write(rig.path("root/proc/device-tree/model"), "A board with a meter\0").unwrap();
}

#[test]
fn a_machine_with_a_meter_says_watts_and_joules_a_minute() {
    let rig = Rig::new();
    jetson(&rig);
    let report = said(
        Command::new(env!("CARGO_BIN_EXE_headwater-worker"))
            .args(["bench", "--json", "--load", "1s"])
            .env("HEADWATER_ROOT", rig.path("root")),
    );
    assert_eq!(report["machine"], "A board with a meter");
    let sensor = &report["sensor"];
    assert_eq!(
        (sensor["name"].as_str(), sensor["covers"].as_str()),
        (Some("ina3221 VDD_IN"), Some("module"))
    );
    let is = |value: &Value, wanted: f64| {
        let value = value.as_f64().unwrap_or_else(|| panic!("{report}"));
        assert!((value - wanted).abs() < 1e-6, "{value}, {wanted} wanted: {report}");
    };
    // 5.08 V times 1.2 A.
    let watts = 6.096;
    is(&sensor["idle_watts"], watts);
    for load in report["loads"].as_array().unwrap() {
        is(&load["watts"], watts);
        // A minute of video takes a minute divided by how many streams are carried in real time.
        is(&load["joules_per_minute"], watts * 60.0 / load["realtime"].as_f64().unwrap());
        is(&load["joules_per_minute_above_idle"], 0.0);
    }
}

#[test]
fn each_part_of_the_work_runs_alone_over_every_frame() {
    let rig = Rig::new();
    rig.clip("640x360", 1.0, "-c:v libx264 -preset ultrafast -f mpegts", "in.ts");
    let ladder = r#"[{"name": "a", "codec": "h264", "width": 320, "height": 180, "rate": {"bitrate": 200000}, "container": "ts"}]"#;
    let ladder = rig.write("ladder.json", ladder.as_bytes());
    let input = rig.path("in.ts");
    for part in ["decode", "scale", "0"] {
        let cost = worker(&["part", input.to_str().unwrap(), "--ladder", ladder.to_str().unwrap(), part]);
        assert_eq!(cost["frames"], 30, "{part}: {cost}");
        assert_eq!(cost["threads"].is_null(), part != "0", "{part}: {cost}");
    }
}
