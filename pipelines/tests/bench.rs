//! `headwater-worker bench` and `part`, as a person and `make bench` run them.

use std::process::Command;

use serde_json::Value;

mod rig;
use rig::Rig;

fn worker(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_headwater-worker")).args(arguments).output().unwrap();
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
