//! What each board would do with the standard ladder, from snapshots of machines. A plan that changes on purpose is
//! written anew with `UPDATE_GOLDEN=1 cargo test -p headwater-pipelines --test golden_plans`, and read in the diff.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use headwater_pipelines::board::{Board, Boards, Status};
use headwater_pipelines::doctor::{Report, Verdict};
use headwater_pipelines::es::Rotation;
use headwater_pipelines::fit::Size;
use headwater_pipelines::machine::Machine;
use headwater_pipelines::plan::{self, Chroma, Coded, Element, Explanation, Input, Picture, Trust, Way};
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

fn picture(format: &str) -> Picture {
    Picture {
        coded: Size::new(1920, 1080),
        aspect: (1, 1),
        rotation: Rotation::None,
        rate: Some(FrameRate::new(30, 1).unwrap()),
        interlaced: false,
        format: format.to_owned(),
        mapped: false,
    }
}

fn explained(boards: &Boards, machine: &Machine) -> Explanation {
    let board = boards.board(None, machine).unwrap();
    let decoder =
        board.decoders.iter().find(|one| one.codec == Codec::H264 && machine.first(&one.factory).is_some());
    let picture = picture(decoder.map_or("I420", |one| one.out.formats[0].as_str()));
    plan::explain(&board, machine, &ladder(), Input::any(Codec::H264, Trust::Lossy), &picture)
        .unwrap_or_else(|fault| panic!("{}: {fault}\n{}", board.id, fault.detail))
}

/// Compares what is made of each machine with its file in `folder`, or writes it there.
fn written_down(folder: &str, extension: &str, make: impl Fn(&Machine) -> String) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (name, machine) in machines() {
        let made = make(&machine);
        let file = golden().join(folder).join(format!("{name}.{extension}"));
        if update {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &made).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != made {
            wrong.push(name);
        }
    }
    assert!(
        wrong.is_empty(),
        "other plans than written down for {wrong:?}; look with UPDATE_GOLDEN=1 and git diff"
    );
}

#[test]
fn every_machine_gets_the_plan_that_is_written_down() {
    let boards = Boards::shipped().unwrap();
    let plan = |machine: &Machine| serde_json::to_string_pretty(&explained(&boards, machine)).unwrap() + "\n";
    written_down("plans", "json", plan);
}

/// One rung of `codec`, in the container that carries it alone.
fn rung(codec: Codec) -> Ladder {
    let (rate, gop, container) = match codec {
        Codec::Jpeg => (json!({"quality": 11}), json!("segment"), "jpeg"),
        Codec::Fwht => (json!({"quality": 30}), json!("segment"), "ts"),
        Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9 | Codec::Vp8 => {
            (json!({"bitrate": 2_000_000}), json!({"every": 2000}), "mp4")
        }
    };
    serde_json::from_value(json!([{
        "name": "a", "codec": codec, "width": 1280, "height": 720, "rate": rate, "gop": gop, "container": container
    }]))
    .unwrap()
}

/// The elements that make `to` of 1080p in `from`, or why there are none.
fn line(board: &Board, machine: &Machine, from: Codec, trust: Trust, to: Codec) -> String {
    let coded = Some(Coded { size: Size::new(1920, 1080), depth: 8, chroma: Chroma::Quarter });
    let chosen = plan::decoder(board, machine, Input { codec: from, trust, coded }).and_then(|decode| {
        let element = &decode.elements.last().unwrap().factory;
        let entry = board.decoders.iter().find(|one| {
            one.codec == from && one.out.memory == decode.memory && one.factory.contains(element)
        });
        let picture = picture(&entry.unwrap().out.formats[0]);
        Ok((plan::outputs(board, machine, &rung(to), &decode, &picture)?, decode))
    });
    let (plan, decode) = match chosen {
        Ok(chosen) => chosen,
        Err(fault) => return fault.to_string(),
    };
    let one = &plan.rungs[0];
    let ours = match plan.way {
        Way::Native => Vec::new(),
        Way::Software => {
            decode.download.iter().map(|one| one.factory.as_str()).chain(["headwater"]).collect()
        }
    };
    let named = |elements: &[Element]| elements.iter().map(|one| one.factory.clone()).collect::<Vec<_>>();
    let mut all = named(&decode.elements);
    all.extend(ours.into_iter().map(str::to_owned));
    all.extend(named(&plan.splits));
    all.extend(named(&one.before));
    all.push(one.element.factory.clone());
    all.extend(named(&one.after));
    all.retain(|name| name != "capsfilter");
    all.join(" ! ")
}

/// Every codec that the machine's board reads to each that it writes, a line each.
fn lines(boards: &Boards, machine: &Machine) -> String {
    let board = boards.board(None, machine).unwrap();
    let name = |codec: Codec| format!("{codec:?}").to_lowercase();
    let read: BTreeMap<String, Codec> =
        board.decoders.iter().map(|one| (name(one.codec), one.codec)).collect();
    let written: BTreeMap<String, Codec> =
        board.encoders.iter().map(|one| (name(one.codec), one.codec)).collect();
    let mut text = String::new();
    for (from, &decoded) in &read {
        for (to, &encoded) in &written {
            let lossy = line(&board, machine, decoded, Trust::Lossy, encoded);
            let whole = line(&board, machine, decoded, Trust::Whole, encoded);
            if whole != lossy {
                text += &format!("{from} to {to}, from a whole file: {whole}\n");
            }
            text += &format!("{from} to {to}: {lossy}\n");
        }
    }
    text
}

#[test]
fn every_codec_comes_from_and_goes_to_the_elements_that_are_written_down() {
    let boards = Boards::shipped().unwrap();
    written_down("codecs", "txt", |machine| lines(&boards, machine));
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
fn a_profile_is_called_verified_exactly_where_a_report_shows_that_it_works() {
    let boards = Boards::shipped().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/reports");
    let mut working = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let report: Report = serde_json::from_str(&fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let Report { machine, chosen, verdict, .. } = report;
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, format!("{}-{}.json", chosen.id, machine.arch));
        assert_eq!(
            boards.board(None, &machine).unwrap().id,
            chosen.id,
            "{name}: another profile is for it now"
        );
        if verdict == Verdict::Works {
            working.insert(chosen.id);
        }
    }
    let all = boards.all().filter(|profile| profile.board.status == Status::Verified);
    let verified: BTreeSet<String> = all.map(|profile| profile.board.id.clone()).collect();
    assert_eq!(verified, working);
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
        let coded = Some(Coded { size: Size::new(width, height), depth, chroma: Chroma::Quarter });
        let plan = plan::decoder(&board, machine, Input { codec, trust: Trust::Lossy, coded });
        plan.map_or_else(|fault| fault.text, |plan| plan.elements.last().unwrap().factory.clone())
    };
    assert_eq!(decoder("orin-nx-jp6", Codec::Hevc, 3840, 2160, 10), "nvv4l2decoder");
    assert_eq!(decoder("orin-nx-jp6", Codec::H264, 3840, 2160, 8), "nvv4l2decoder");
    assert_eq!(decoder("orin-nx-jp6", Codec::H264, 1920, 1080, 10), "avdec_h264");
    assert_eq!(decoder("rk3588-mainline", Codec::H264, 3840, 2160, 8), "v4l2slh264dec");
    assert_eq!(decoder("rk3568-mainline", Codec::H264, 1920, 1080, 8), "v4l2slh264dec");
    assert_eq!(decoder("rk3568-mainline", Codec::H264, 3840, 2160, 8), "avdec_h264");
    assert_eq!(decoder("imx8mp", Codec::H264, 1920, 1080, 8), "vpudec");
    assert_eq!(decoder("imx8mp", Codec::H264, 3840, 2160, 8), "avdec_h264");
}
