//! Every board's elements by their names, through the real worker: exact frames, exact times, the vendor's units, and
//! pictures that stay where the board keeps them. See the crate's page for what this does not prove.

mod support;

use std::fs;

use serde_json::Value;
use support::{Rig, snapshots};

/// What the golden plans say that the machine's board is, and the elements it uses.
fn plan(machine: &str) -> Value {
    let path = format!("{}/../tests/golden/plans/{machine}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn check(machine: &str) {
    let rig = Rig::new(machine);
    let done = rig.transcode("");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{machine}: {error}\n{}", rig.whole_trace());
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((summary["segments"].as_u64(), summary["decoded"].as_u64()), (Some(3), Some(180)), "{machine}");

    let plan = plan(machine);
    let times: Vec<i64> = rig.frames(&rig.path("in.ts")).into_iter().map(|(pts, _)| pts).collect();
    for (at, (name, bitrate)) in [("272p", 600_000.0), ("180p", 300_000.0)].into_iter().enumerate() {
        let mut frames = Vec::new();
        let mut bytes = 0;
        for segment in 0..3 {
            let file = rig.path(&format!("out/{name}/{segment}.ts"));
            bytes += fs::metadata(&file).unwrap().len();
            frames.extend(rig.frames(&file));
        }
        let found: Vec<i64> = frames.iter().map(|(pts, _)| *pts).collect();
        assert_eq!(found, times, "{machine} {name}: not the input's frames at the input's times");
        let keys: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].1).collect();
        assert_eq!(keys, [0, 30, 60, 90, 120, 150], "{machine} {name}: keyframes");
        let ratio = bytes as f64 * 8.0 / 6.0 / bitrate;
        assert!((0.5..1.6).contains(&ratio), "{machine} {name}: {ratio:.2} of the bits it was told");
        let height = summary["renditions"][at]["height"].as_u64().unwrap();
        assert!(height.abs_diff(name.trim_end_matches('p').parse().unwrap()) < 8, "{machine} {name}: {height} high");
    }

    let encoder = plan["outputs"]["rungs"][0]["element"]["factory"].as_str().unwrap().to_owned();
    if plan["outputs"]["rungs"][0]["hardware"] == true {
        let trace = rig.trace(&encoder);
        let starts = trace.iter().filter(|line| line.starts_with("starts")).count();
        assert!(starts >= 2, "{machine}: {encoder} was not used:\n{}", rig.whole_trace());
    }
    if plan["decode"]["hardware"] == true {
        let decoder = plan["decode"]["elements"].as_array().unwrap().last().unwrap()["factory"].as_str().unwrap();
        assert!(!rig.trace(decoder).is_empty(), "{machine}: {decoder} was not used");
        let memory = plan["decode"]["memory"].as_str().unwrap();
        if plan["outputs"]["way"] == "native" && plan["outputs"]["rungs"][0]["hardware"] == true && memory != "system" {
            let taken = rig.trace(&encoder);
            let takes = taken.iter().filter(|line| line.starts_with("takes"));
            let decoded = rig.trace(decoder);
            let gave = decoded.iter().find(|line| line.starts_with("gives")).unwrap();
            if gave.contains("(memory:") {
                for line in takes {
                    assert!(line.contains("(memory:"), "{machine}: {encoder} got pictures from the processor: {line}");
                }
            }
        }
    }
}

#[test]
fn every_boards_elements_give_exact_segments_in_the_vendors_units() {
    let failures: Vec<String> = snapshots()
        .iter()
        .filter_map(|machine| {
            let run = std::panic::catch_unwind(|| check(machine));
            run.err().map(|panic| {
                panic.downcast_ref::<String>().cloned().unwrap_or_else(|| format!("{machine}: panicked"))
            })
        })
        .collect();
    assert!(failures.is_empty(), "{} of them fail:\n{}", failures.len(), failures.join("\n\n"));
}
