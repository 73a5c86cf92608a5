//! Every board's elements by their names, through the real worker: exact frames, exact times, the vendor's units, and
//! pictures that stay where the board keeps them. See the crate's page for what this does not prove.

use std::fs;
use std::path::Path;

use crate::support::{BITRATES, Rig, snapshots};
use headwater_pipelines::board::Boards;
use headwater_pipelines::es::Rotation;
use headwater_pipelines::fit::Size;
use headwater_pipelines::plan::{self, Explanation, Input, Picture, Trust, Way};
use headwater_protocol::{Codec, FrameRate};
use serde_json::Value;

/// What the machine's board is to do with the rig's clip and a ladder.
pub fn plan(rig: &Rig, ladder: &Path) -> Explanation {
    let machine = rig.machine();
    let board = Boards::shipped().unwrap().board(None, &machine).unwrap();
    let ladder = serde_json::from_str(&fs::read_to_string(ladder).unwrap()).unwrap();
    let input = Input::any(Codec::H264, Trust::Lossy);
    let decode = plan::decoder(&board, &machine, input).unwrap();
    let picture = Picture {
        coded: Size::new(640, 360),
        aspect: (1, 1),
        rotation: Rotation::None,
        rate: Some(FrameRate::new(30, 1).unwrap()),
        interlaced: false,
        format: if decode.hardware { "NV12" } else { "I420" }.to_owned(),
        mapped: false,
    };
    plan::explain(&board, &machine, &ladder, input, &picture).unwrap()
}

fn check(machine: &str) {
    let rig = Rig::new(machine);
    let done = rig.transcode("");
    let error = String::from_utf8_lossy(&done.stderr);
    let trace = rig.whole_trace();
    assert!(done.status.success(), "{error}\n{trace}");
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((summary["segments"].as_u64(), summary["decoded"].as_u64()), (Some(3), Some(180)));

    let times: Vec<i64> = rig.frames(&rig.path("in.ts")).into_iter().map(|(pts, _)| pts).collect();
    let plan = plan(&rig, &rig.ladder());
    for (rung, (name, bitrate)) in plan.outputs.rungs.iter().zip(BITRATES) {
        let mut frames = Vec::new();
        let mut bytes = 0;
        for segment in 0..3 {
            let file = rig.path(&format!("out/{name}/{segment}.ts"));
            bytes += fs::metadata(&file).unwrap().len();
            frames.extend(rig.frames(&file));
            let wanted = (rung.width, rung.height);
            assert_eq!(rig.size(&file), wanted, "{name} {segment}: another size than planned");
        }
        let found: Vec<i64> = frames.iter().map(|(pts, _)| *pts).collect();
        assert_eq!(found, times, "{name}: not the input's frames at the input's times\n{trace}");
        let keys: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].1).collect();
        assert_eq!(keys, [0, 30, 60, 90, 120, 150], "{name}: keyframes\n{trace}");
        let ratio = bytes as f64 * 8.0 / 6.0 / f64::from(bitrate);
        assert!((0.6..1.6).contains(&ratio), "{name}: {ratio:.2} of the bits it was told\n{trace}");
    }
    goes_as_planned(&rig, &plan);
}

/// The planned elements were the ones that worked, and pictures came from one to the other without the processor.
fn goes_as_planned(rig: &Rig, plan: &Explanation) {
    let trace = rig.whole_trace();
    for refused in rig.machine().refused.keys() {
        let element = refused.split(':').nth(2).unwrap();
        assert!(rig.trace(element).is_empty(), "{element} is refused and was used\n{trace}");
    }
    if plan.decode.hardware {
        let decoder = &plan.decode.elements.last().unwrap().factory;
        assert!(!rig.trace(decoder).is_empty(), "{decoder} was not used\n{trace}");
        if let Some(feature) = plan.decode.feature.as_ref().filter(|_| plan.outputs.way == Way::Native) {
            let gives = rig.trace(decoder).into_iter().find(|line| line.starts_with("gives")).unwrap();
            assert!(gives.contains(feature), "{decoder} {gives}");
        }
    }
    for rung in plan.outputs.rungs.iter().filter(|rung| rung.hardware) {
        let encoder = &rung.element.factory;
        let lines = rig.trace(encoder);
        assert!(!lines.is_empty(), "{encoder} was not used\n{trace}");
        // One memory from end to end: what the encoder takes is what the decoder gave.
        if let Some(feature) = plan.decode.feature.as_ref().filter(|_| plan.outputs.way == Way::Native) {
            let mut takes = lines.iter().filter(|line| line.starts_with("takes"));
            assert!(takes.all(|line| line.contains(feature)), "{encoder} got copies\n{trace}");
        }
    }
}

macro_rules! boards {
    ($($test:ident = $machine:literal,)+) => {
        $(
            #[test]
            fn $test() {
                check($machine);
            }
        )+

        #[test]
        fn every_snapshot_has_its_test() {
            assert_eq!(snapshots(), [$($machine,)+]);
        }
    };
}

boards! {
    am62a = "am62a",
    am68a = "am68a",
    amlogic = "amlogic",
    debian_12_software = "debian12-software",
    genio = "genio",
    imx8mp = "imx8mp",
    imx95 = "imx95",
    intel_n100_1_22 = "intel-n100-1.22",
    intel_n100_1_26 = "intel-n100-1.26",
    nvidia_dgpu_1_22 = "nvidia-dgpu-1.22",
    nvidia_dgpu_1_26 = "nvidia-dgpu-1.26",
    orin_jp5 = "orin-jp5",
    orin_jp7 = "orin-jp7",
    orin_nano_jp5 = "orin-nano-jp5",
    orin_nano_jp6 = "orin-nano-jp6",
    orin_nano_jp7 = "orin-nano-jp7",
    orin_nx_jp6 = "orin-nx-jp6",
    pi4_bookworm = "pi4-bookworm",
    pi5_bookworm = "pi5-bookworm",
    qcs6490 = "qcs6490",
    rk3568 = "rk3568",
    rk3568_mainline = "rk3568-mainline",
    rk3588_bsp = "rk3588-bsp",
    rk3588_irlserver = "rk3588-irlserver",
    rk3588_mainline = "rk3588-mainline",
    thor = "thor",
    v4l2_generic = "v4l2-generic",
    vulkan_1_28 = "vulkan-1.28",
    xavier_jp5 = "xavier-jp5",
}
