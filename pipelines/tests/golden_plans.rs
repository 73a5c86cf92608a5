//! What each board would do with the standard ladder, from snapshots of machines. A plan that changes on purpose is
//! written anew with `UPDATE_GOLDEN=1 cargo test -p headwater-pipelines --test golden_plans`, and read in the diff.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use headwater_pipelines::board::{Boards, Status};
use headwater_pipelines::es::Rotation;
use headwater_pipelines::fit::Size;
use headwater_pipelines::machine::Machine;
use headwater_pipelines::plan::{self, Coded, Explanation, Input, Picture, Trust, Way};
use headwater_protocol::{Codec, FrameRate, Ladder};
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn machines() -> Vec<(String, Machine)> {
    let files = fs::read_dir(golden().join("machines")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<(String, Machine)> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let machine = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), machine)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn ladder() -> Ladder {
    let rung = |(width, height, bitrate): (u32, u32, u32)| {
        json!({"name": format!("{height}p"), "codec": "h264", "width": width, "height": height,
               "rate": {"bitrate": bitrate}, "gop": {"every": 2000}, "container": "ts"})
    };
    let rungs = [(1280, 720, 3_000_000), (854, 480, 1_600_000), (640, 360, 800_000), (426, 240, 250_000)];
    serde_json::from_value(Value::from(rungs.map(rung).to_vec())).unwrap()
}

fn explained(boards: &Boards, machine: &Machine) -> Explanation {
    let board = boards.board(None, machine).unwrap();
    let decoder =
        board.decoders.iter().find(|one| one.codec == Codec::H264 && machine.first(&one.factory).is_some());
    let picture = Picture {
        coded: Size::new(1920, 1080),
        aspect: (1, 1),
        rotation: Rotation::None,
        rate: Some(FrameRate::new(30, 1).unwrap()),
        interlaced: false,
        format: decoder.map_or("I420", |one| one.out.formats[0].as_str()).to_owned(),
        mapped: false,
    };
    plan::explain(&board, machine, &ladder(), Input::any(Codec::H264, Trust::Lossy), &picture)
        .unwrap_or_else(|fault| panic!("{}: {fault}\n{}", board.id, fault.detail))
}

#[test]
fn every_machine_gets_the_plan_that_is_written_down() {
    let boards = Boards::shipped().unwrap();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (name, machine) in machines() {
        let plan = serde_json::to_string_pretty(&explained(&boards, &machine)).unwrap() + "\n";
        let file = golden().join("plans").join(format!("{name}.json"));
        if update {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &plan).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != plan {
            wrong.push(name);
        }
    }
    assert!(
        wrong.is_empty(),
        "other plans than written down for {wrong:?}; look with UPDATE_GOLDEN=1 and git diff"
    );
}

#[test]
fn every_profile_that_can_be_chosen_is_chosen_for_some_machine() {
    let boards = Boards::shipped().unwrap();
    let chosen: BTreeSet<String> =
        machines().iter().map(|(_, machine)| boards.board(None, machine).unwrap().id).collect();
    let all = boards.all().filter(|profile| !profile.board.is_abstract);
    let never: Vec<&str> =
        all.map(|profile| profile.board.id.as_str()).filter(|id| !chosen.contains(*id)).collect();
    assert!(never.is_empty(), "no machine's snapshot makes use of {never:?}");
}

#[test]
fn nothing_but_software_is_called_verified_without_a_report() {
    for profile in Boards::shipped().unwrap().all() {
        let verified = profile.board.status == Status::Verified;
        assert_eq!(verified, profile.board.id == "software", "{}", profile.board.id);
    }
}

#[test]
fn a_board_with_hardware_for_all_of_it_keeps_the_pictures_out_of_the_processor() {
    let boards = Boards::shipped().unwrap();
    for (name, machine) in machines() {
        let explained = explained(&boards, &machine);
        let plan = explained.outputs;
        let apart = explained.decode.memory != "system";
        if apart && plan.way == Way::Native && plan.rungs.iter().all(|rung| rung.hardware) {
            let caps =
                plan.rungs.iter().flat_map(|rung| &rung.before).filter_map(|one| one.properties.get("caps"));
            let carried =
                plan.rungs.iter().flat_map(|rung| &rung.before).any(|one| one.factory == "videoconvert");
            assert!(!carried, "{name}: {:?}", caps.collect::<Vec<_>>());
        }
    }
}

#[test]
fn deep_and_large_pictures_go_to_the_decoder_that_takes_them() {
    let boards = Boards::shipped().unwrap();
    let machines: std::collections::BTreeMap<String, Machine> = machines().into_iter().collect();
    let decoder = |name: &str, codec, width, height, depth| {
        let machine = &machines[name];
        let board = boards.board(None, machine).unwrap();
        let coded = Some(Coded { size: Size::new(width, height), depth });
        let plan = plan::decoder(&board, machine, Input { codec, trust: Trust::Lossy, coded });
        plan.map_or_else(|fault| fault.text, |plan| plan.elements.last().unwrap().factory.clone())
    };
    assert_eq!(decoder("orin-nx-jp6", Codec::Hevc, 3840, 2160, 10), "nvv4l2decoder");
    assert_eq!(decoder("orin-nx-jp6", Codec::H264, 3840, 2160, 8), "nvv4l2decoder");
    assert_eq!(decoder("orin-nx-jp6", Codec::H264, 1920, 1080, 10), "avdec_h264");
    assert_eq!(decoder("imx8mp", Codec::H264, 1920, 1080, 8), "vpudec");
    assert_eq!(decoder("imx8mp", Codec::H264, 3840, 2160, 8), "avdec_h264");
}
