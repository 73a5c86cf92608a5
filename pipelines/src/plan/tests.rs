mod native;

use headwater_protocol::{
    Audio, BitsPerSecond, Container, Gop, Millis, Pixels, Profile, Rate, Rendition, RenditionName, Tiles,
};

use super::*;
use crate::board::{Boards, Encoder};
use crate::machine::{ElementFacts, PropertyFacts, PropertyKind};
use headwater_protocol::Code;
use headwater_protocol::worker::Sessions;

const H264: Input = Input { codec: Codec::H264, trust: Trust::Lossy, coded: None };

/// An element that has these properties, all numbers of any size.
fn element(properties: &[&str]) -> ElementFacts {
    let facts = |name: &&str| {
        ((*name).to_owned(), PropertyFacts { kind: PropertyKind::Int, ..PropertyFacts::default() })
    };
    ElementFacts { properties: properties.iter().map(facts).collect(), ..ElementFacts::default() }
}

const X264: &[&str] = &[
    "speed-preset",
    "bframes",
    "b-adapt",
    "byte-stream",
    "option-string",
    "threads",
    "bitrate",
    "pass",
    "vbv-buf-capacity",
    "quantizer",
    "key-int-max",
];
const OPENH264: &[&str] = &[
    "complexity",
    "scene-change-detection",
    "enable-frame-skip",
    "multi-thread",
    "bitrate",
    "rate-control",
    "gop-size",
];

fn machine(elements: &[(&str, &[&str])]) -> Machine {
    let elements = elements.iter().map(|(name, properties)| ((*name).to_owned(), element(properties)));
    Machine { elements: elements.collect(), cores: 2, ..Machine::default() }
}

fn software() -> Board {
    Boards::shipped().unwrap().get("software").unwrap().clone()
}

fn rendition(name: &str, width: u32, height: u32) -> Rendition {
    Rendition {
        name: RenditionName::new(name).unwrap(),
        codec: Codec::H264,
        width: Pixels(width),
        height: Pixels(height),
        fps: None,
        rate: Rate::Bitrate(BitsPerSecond(1_600_400)),
        gop: Gop::Segment,
        profile: Profile::Auto,
        container: Container::Ts,
        audio: Audio::Copy,
        tiles: None,
    }
}

fn picture() -> Picture {
    Picture {
        coded: Size::new(1920, 1080),
        aspect: (1, 1),
        rotation: Rotation::None,
        rate: Some(FrameRate::new(30_000, 1001).unwrap()),
        interlaced: false,
        format: "I420".to_owned(),
        mapped: false,
    }
}

fn plan_of(change: fn(&mut Rendition), elements: &[(&str, &[&str])]) -> Result<RungPlan, Fault> {
    let mut one = rendition("a", 1280, 720);
    change(&mut one);
    let ladder = Ladder::new(vec![one]).unwrap();
    outputs(&software(), &machine(elements), &ladder, &DecodePlan::nothing(), &picture())
        .map(|mut plan| plan.rungs.remove(0))
}

#[test]
fn units_and_gop_become_the_properties_of_the_encoder_at_hand() {
    let both: &[(&str, &[&str])] = &[("x264enc", X264), ("openh264enc", OPENH264)];
    let x264 = plan_of(|r| r.gop = Gop::Every(Millis(2000)), both).unwrap();
    assert_eq!(x264.element.factory, "x264enc");
    let property = |name: &str| x264.element.properties[name].as_str();
    assert_eq!([property("bitrate"), property("key-int-max"), property("pass")], ["1600", "60", "cbr"]);
    let open = plan_of(|_| (), &both[1..]).unwrap();
    assert_eq!(open.element.properties["bitrate"], "1600400");
    let intra = plan_of(|r| r.gop = Gop::Intra, both).unwrap();
    assert_eq!(intra.element.properties["key-int-max"], "1");
    let quality = plan_of(|r| r.rate = Rate::Quality(23), both).unwrap();
    assert_eq!(quality.element.properties["quantizer"], "23");
    assert!(!quality.element.properties.contains_key("bitrate"));
}

#[test]
fn a_device_is_told_the_first_control_that_it_has() {
    let board = Boards::shipped().unwrap().get("v4l2-m2m").unwrap().clone();
    let ladder = Ladder::new(vec![rendition("a", 1280, 720)]).unwrap();
    let told = |controls: Option<&[&str]>| {
        let mut machine = machine(&[("v4l2h264enc", &["extra-controls"])]);
        let facts = machine.elements.get_mut("v4l2h264enc").unwrap();
        facts.controls = controls.map(|all| all.iter().map(|name| ((*name).to_owned(), None)).collect());
        outputs(&board, &machine, &ladder, &DecodePlan::nothing(), &picture())
            .map(|plan| plan.rungs[0].element.properties["extra-controls"].clone())
    };
    let raspberry = told(Some(&["h264_i_frame_period", "repeat_sequence_header", "video_bitrate"])).unwrap();
    assert_eq!(
        raspberry,
        "controls,h264_i_frame_period=(int)65535,repeat_sequence_header=(int)1,video_bitrate=(int)1600400"
    );
    let unread = told(None).unwrap();
    assert!(unread.contains("video_gop_size=(int)65535") && !unread.contains("i_frame_period"), "{unread}");
    let why = told(Some(&[])).unwrap_err();
    assert!(why.detail.contains("it cannot be told a bitrate"), "{}", why.detail);
}

#[test]
fn a_sheet_has_the_size_of_its_tiles_and_a_quality_on_the_encoders_scale() {
    let sheet = |r: &mut Rendition| {
        (r.codec, r.container, r.rate) = (Codec::Jpeg, Container::Jpeg, Rate::Quality(11));
        (r.width, r.height) = (Pixels(160), Pixels(90));
        r.tiles = Some(Tiles { columns: 5, rows: 4, every: Millis(2000) });
    };
    let plan = plan_of(sheet, &[("jpegenc", &["quality"])]).unwrap();
    assert_eq!((plan.width, plan.height), (800, 360));
    assert_eq!(plan.still, Some(Grid { columns: 5, rows: 4, every: Some(180_000) }));
    assert_eq!(plan.element.properties["quality"], "85", "100 to 25");
    let fault = plan_of(sheet, &[("x264enc", X264)]).unwrap_err();
    assert!(fault.text.contains("gstreamer1.0-plugins-good"), "{}", fault.text);
}

#[test]
fn fwht_is_told_its_quality_for_both_kinds_of_picture_and_its_greatest_distance_of_keyframes() {
    let mut one = rendition("a", 1280, 720);
    (one.codec, one.rate) = (Codec::Fwht, Rate::Quality(26));
    let ladder = Ladder::new(vec![one]).unwrap();
    let board = Boards::shipped().unwrap().get("v4l2-m2m").unwrap().clone();
    let machine = machine(&[("v4l2fwhtenc", &["extra-controls"])]);
    let plan = outputs(&board, &machine, &ladder, &DecodePlan::nothing(), &picture()).unwrap();
    let controls =
        "controls,fwht_i_frame_qp_value=(int)16,fwht_p_frame_qp_value=(int)16,video_gop_size=(int)16";
    assert_eq!(plan.rungs[0].element.properties["extra-controls"], controls);
    assert!(plan.rungs[0].by_ready, "it begins with a keyframe only after its queues were stopped");
}

#[test]
fn what_is_missing_is_said_with_the_package_that_brings_it() {
    let fault = plan_of(|_| (), &[]).unwrap_err();
    assert_eq!(fault.code, Code::NoEncoder);
    assert!(fault.text.contains("gstreamer1.0-plugins-ugly"), "{}", fault.text);
    let fault = plan_of(|r| r.rate = Rate::Quality(23), &[("openh264enc", OPENH264)]).unwrap_err();
    assert_eq!(fault.code, Code::NoEncoder, "openh264enc has no constant quality");
    let decoder =
        |codec| decoder(&software(), &machine(&[]), Input::any(codec, Trust::Lossy)).unwrap_err().code;
    assert_eq!(decoder(Codec::Hevc), Code::NoDecoder);
    assert_eq!(decoder(Codec::Jpeg), Code::UnsupportedCodec);
}

#[test]
fn renditions_of_one_size_share_a_picture() {
    let ladder = Ladder::new(vec![
        rendition("small", 640, 360),
        rendition("big", 1280, 720),
        rendition("cheap", 1280, 720),
    ])
    .unwrap();
    let machine = machine(&[("x264enc", X264)]);
    let plan = outputs(&software(), &machine, &ladder, &DecodePlan::nothing(), &picture()).unwrap();
    assert_eq!(plan.sizes, [Size::new(1280, 720), Size::new(640, 360)]);
    assert_eq!(plan.origins, [Origin::Decoded, Origin::Size(0)]);
    let feeds: Vec<Feed> = plan.rungs.iter().map(|rung| rung.feed).collect();
    assert_eq!(feeds, [Feed::Canvas(1), Feed::Canvas(0), Feed::Canvas(0)]);
}

#[test]
fn a_turned_picture_is_fitted_as_it_stands() {
    let ladder = Ladder::new(vec![rendition("a", 1280, 720)]).unwrap();
    let turned = Picture { rotation: Rotation::Clockwise90, ..picture() };
    let machine = machine(&[("x264enc", X264)]);
    let plan = outputs(&software(), &machine, &ladder, &DecodePlan::nothing(), &turned).unwrap();
    assert_eq!(plan.sizes, [Size::new(720, 1280)]);
}

/// A board with memory of its own, a scaler with four outputs and one with one.
const BOARD: &str = r#"
    schema = 1
    id = "toy"
    title = "Toy"
    status = "experimental"
    [memory.chip]
    feature = "memory:Chip"
    from_system = ["chipupload"]
    to_system = ["chipdownload"]
    [[decoder]]
    codec = "h264"
    factory = ["chipdec"]
    package = "chip"
    out = { memory = "chip", formats = ["NV12"] }
    [[scaler]]
    factory = ["chipscale"]
    package = "chip"
    in = ["chip"]
    out = ["chip", "system"]
    formats = ["NV12", "I420"]
    can = ["scale", "convert"]
    [[scaler]]
    factory = ["chipsplit"]
    package = "chip"
    in = ["chip"]
    out = ["chip"]
    formats = ["NV12"]
    can = ["scale"]
    outputs = 4
    [[encoder]]
    codec = "h264"
    factory = ["chipenc"]
    package = "chip"
    in = { memory = "chip", formats = ["NV12"] }
    size = { min = [64, 64], max = [4096, 4096], align = [8, 8] }
    [encoder.map]
    bitrate = [{ prop = ["bps", "bitrate"], unit = "bit/s" }]
    gop = { prop = ["gop", "idr"], all = true, unit = "frames", never = 9999 }
    width = { prop = "width" }
    height = { prop = "height" }
"#;

fn toy(elements: &[(&str, &[&str])], sizes: &[(u32, u32)], picture: &Picture) -> (Vec<String>, OutputPlan) {
    let board = board();
    let mut all = vec![("chipdec", &[][..]), ("x264enc", X264)];
    all.extend(elements);
    let machine = machine(&all);
    let renditions = sizes.iter().enumerate().map(|(at, &(w, h))| rendition(&format!("r{at}"), w, h));
    let ladder = Ladder::new(renditions.collect()).unwrap();
    let decode = decoder(&board, &machine, H264).unwrap();
    let plan = outputs(&board, &machine, &ladder, &decode, picture).unwrap();
    let line = |rung: &RungPlan| {
        let mut words: Vec<&str> = rung.before.iter().map(|one| one.factory.as_str()).collect();
        words.push(&rung.element.factory);
        format!("{:?} {}", rung.feed, words.join(" "))
    };
    (plan.rungs.iter().map(line).collect(), plan)
}

const LADDER: &[(u32, u32)] = &[(1280, 720), (854, 480), (640, 360)];

fn chip() -> Picture {
    Picture { format: "NV12".to_owned(), ..picture() }
}

#[test]
fn pictures_stay_in_the_chips_memory_where_its_elements_allow() {
    let elements: &[(&str, &[&str])] = &[("chipscale", &[]), ("chipenc", &["bps", "gop", "idr"])];
    let (lines, plan) = toy(elements, LADDER, &chip());
    assert_eq!(plan.way, Way::Native);
    assert_eq!(lines, ["Decoded chipscale capsfilter chipenc"; 3]);
    let caps = &plan.rungs[1].before[1].properties["caps"];
    assert_eq!(caps, "video/x-raw(memory:Chip),format=NV12,width=848,height=480,pixel-aspect-ratio=1/1");
    let properties = &plan.rungs[0].element.properties;
    assert_eq!([&properties["bps"], &properties["gop"], &properties["idr"]], ["1600400", "9999", "9999"]);
}

#[test]
fn one_pass_of_a_scaler_with_several_outputs_serves_several_rungs() {
    let elements: &[(&str, &[&str])] =
        &[("chipscale", &[]), ("chipsplit", &[]), ("chipenc", &["bitrate", "gop"])];
    let (lines, plan) = toy(elements, LADDER, &chip());
    assert_eq!(lines, ["Split(0) capsfilter chipenc"; 3]);
    assert_eq!(plan.splits[0].factory, "chipsplit");
    let one = &[(1280, 720)][..];
    assert_eq!(toy(elements, one, &chip()).0.len(), 1);
    let (lines, plan) = toy(elements, &[LADDER, &[(426, 240), (320, 180)]].concat(), &chip());
    assert!(
        plan.splits.is_empty() && lines.iter().all(|line| line.contains("chipscale")),
        "it has four outputs"
    );
}

#[test]
fn an_encoder_that_scales_needs_nothing_before_it() {
    let (lines, plan) = toy(&[("chipenc", &["bps", "gop", "width", "height"])], LADDER, &chip());
    assert_eq!(lines, ["Decoded chipenc"; 3]);
    assert_eq!(plan.rungs[2].element.properties["width"], "640");
}

#[test]
fn without_an_encoder_on_the_chip_its_scaler_still_makes_the_small_pictures() {
    let (lines, plan) = toy(&[("chipscale", &[]), ("chipdownload", &[])], LADDER, &chip());
    assert_eq!(lines, ["Decoded chipscale capsfilter x264enc"; 3]);
    let caps = &plan.rungs[0].before[1].properties["caps"];
    assert!(caps.starts_with("video/x-raw,format=I420,width=1280"), "{caps}");
    assert!(!plan.rungs[0].hardware);
}

#[test]
fn what_the_chip_cannot_do_to_a_picture_is_done_in_software() {
    let elements: &[(&str, &[&str])] =
        &[("chipscale", &[]), ("chipupload", &[]), ("chipdownload", &[]), ("chipenc", &["bps", "gop"])];
    for picture in [
        Picture { interlaced: true, ..chip() },
        Picture { rotation: Rotation::Half, ..chip() },
        Picture { mapped: true, ..chip() },
    ] {
        let (lines, plan) = toy(elements, LADDER, &picture);
        assert_eq!(plan.way, Way::Software);
        assert_eq!(lines[0], "Canvas(0) videoconvert capsfilter chipupload capsfilter chipenc");
    }
}

#[test]
fn a_refused_element_is_planned_around() {
    let board = board();
    let mut machine =
        machine(&[("chipdec", &[]), ("chipenc", &["bps", "gop"]), ("x264enc", X264), ("avdec_h264", &[])]);
    for refused in ["chipdec", "chipenc"] {
        machine.refused.insert(refused.to_owned(), "it hung".to_owned());
    }
    let ladder = Ladder::new(vec![rendition("a", 1280, 720)]).unwrap();
    let explained = explain(&board, &machine, &ladder, H264, &picture()).unwrap();
    assert_eq!(explained.decode.elements[0].factory, "avdec_h264");
    assert_eq!(explained.outputs.rungs[0].element.factory, "x264enc");
    let said: Vec<&str> = explained.candidates.iter().map(|one| one.verdict.as_str()).collect();
    assert_eq!(
        said,
        [
            "chipdec: it hung",
            "used",
            "openh264dec is not installed",
            "chipenc: it hung",
            "used",
            "openh264enc is not installed"
        ]
    );
}

fn board() -> Board {
    let text = toml::from_str::<toml::Table>(BOARD).unwrap();
    let board: Board = serde::Deserialize::deserialize(text).unwrap();
    board.with_last_resort(&software())
}

/// With a chip whose encoder and decoder run only so many at once.
fn scarce(most: u32, ours: u32, software: bool) -> Machine {
    let chip =
        [("chipdec", &[][..]), ("chipscale", &[]), ("chipenc", &["bps", "gop"]), ("chipdownload", &[])];
    let soft = [("x264enc", X264), ("avdec_h264", &[][..])];
    let all: Vec<_> = chip.into_iter().chain(software.then_some(soft).into_iter().flatten()).collect();
    let mut machine = machine(&all);
    for element in ["chipdec", "chipenc"] {
        machine.sessions.insert(element.to_owned(), Sessions { most, ours });
    }
    machine
}

fn ladder(sizes: &[(u32, u32)]) -> Ladder {
    let renditions = sizes.iter().map(|&(width, height)| rendition(&format!("{height}p"), width, height));
    Ladder::new(renditions.collect()).unwrap()
}

#[test]
fn the_largest_renditions_have_what_runs_only_so_many_at_once_and_the_rest_goes_to_the_next() {
    let smallest_first: Vec<(u32, u32)> = LADDER.iter().rev().copied().collect();
    for (order, want) in [
        (LADDER, ["chipenc", "chipenc", "x264enc"]),
        (&smallest_first[..], ["x264enc", "chipenc", "chipenc"]),
    ] {
        let (board, machine, ladder) = (board(), scarce(2, 2, true), ladder(order));
        let explained = explain(&board, &machine, &ladder, H264, &chip()).unwrap();
        let encoders = explained.outputs.rungs.iter().map(|rung| rung.element.factory.as_str());
        assert_eq!(encoders.collect::<Vec<_>>(), want);
        let small = explained.candidates.iter().filter(|one| one.for_what == "360p");
        let small: Vec<&str> = small.map(|one| one.verdict.as_str()).collect();
        assert_eq!(
            small,
            ["chipenc runs 2 at once, 2 for larger renditions", "used", "openh264enc is not installed"]
        );
    }
}

#[test]
fn codecs_of_one_device_share_its_sessions() {
    let mut board = board();
    let own = board.encoders.iter().find(|one| one.factory == ["chipenc"]).unwrap().clone();
    let hevc = Encoder { codec: Codec::Hevc, factory: vec!["chipenc265".into()], ..own };
    board.encoders.push(hevc);
    let chips = board.encoders.iter_mut().filter(|one| one.factory[0].starts_with("chip"));
    chips.for_each(|one| one.block = "CHIP".into());
    let mut machine = scarce(2, 2, true);
    machine.elements.insert("chipenc265".into(), element(&["bps", "gop"]));
    machine.sessions = [("CHIP encoder".to_owned(), Sessions { most: 2, ours: 2 })].into();
    let mut ladder = ladder(LADDER).renditions().to_vec();
    ladder[0].codec = Codec::Hevc;
    let explained = explain(&board, &machine, &Ladder::new(ladder).unwrap(), H264, &chip()).unwrap();
    let encoders = explained.outputs.rungs.iter().map(|rung| rung.element.factory.as_str());
    assert_eq!(encoders.collect::<Vec<_>>(), ["chipenc265", "chipenc", "x264enc"]);
    let last = explained.candidates.iter().find(|one| one.for_what == "360p").unwrap();
    assert_eq!(last.verdict, "CHIP encoder runs 2 at once, 2 for larger renditions");
}

#[test]
fn what_other_streams_have_is_not_planned_with() {
    let explained = explain(&board(), &scarce(2, 0, true), &ladder(LADDER), H264, &chip()).unwrap();
    assert_eq!(explained.decode.elements[0].factory, "avdec_h264");
    assert!(explained.outputs.rungs.iter().all(|rung| rung.element.factory == "x264enc"));
    assert_eq!(explained.candidates[0].verdict, "chipdec runs 2 at once, 2 for other streams");
}

#[test]
fn a_ladder_too_long_for_the_only_encoder_is_refused_and_one_that_others_keep_from_it_is_asked_to_wait() {
    let refused = |machine: &Machine| {
        outputs(&board(), machine, &ladder(LADDER), &DecodePlan::nothing(), &picture()).unwrap_err()
    };
    let mut machine = scarce(2, 2, false);
    machine.elements.insert("chipupload".to_owned(), element(&[]));
    let fault = refused(&machine);
    assert_eq!(fault.code, Code::NoEncoder);
    let said =
        "rendition 360p: chipenc runs 2 at once, 2 for larger renditions, and nothing else here encodes H264";
    assert!(fault.text.starts_with(said), "{}", fault.text);
    machine.sessions.insert("chipenc".to_owned(), Sessions { most: 4, ours: 1 });
    let fault = refused(&machine);
    assert_eq!(fault.code, Code::Busy);
    let said = "rendition 480p: chipenc runs 4 at once, 3 for other streams, 1 for larger renditions";
    assert!(fault.text.starts_with(said), "{}", fault.text);
    machine.sessions.insert("chipdec".to_owned(), Sessions { most: 1, ours: 0 });
    let fault = decoder(&board(), &machine, H264).unwrap_err();
    assert_eq!(fault.code, Code::Busy);
    assert!(fault.text.starts_with("chipdec runs 1 at once, 1 for other streams"), "{}", fault.text);
}

#[test]
fn an_input_outside_of_a_decoders_limits_goes_to_the_next_one() {
    let mut board = board();
    board.decoders[0].size.max = (1920, 1920);
    let machine = scarce(1, 1, true);
    let of = |width, height, depth, chroma| {
        let coded = Some(Coded { size: Size::new(width, height), depth, chroma });
        let plan = decoder(&board, &machine, Input { coded, ..H264 }).unwrap();
        plan.elements.last().unwrap().factory.clone()
    };
    let chosen = |width, height, depth| of(width, height, depth, Chroma::Quarter);
    assert_eq!(chosen(1920, 1080, 8), "chipdec");
    assert_eq!(chosen(1080, 1920, 8), "chipdec", "turned");
    assert_eq!(chosen(853, 479, 8), "chipdec", "odd sides");
    assert_eq!(chosen(3840, 2160, 8), "avdec_h264");
    assert_eq!(chosen(1920, 1080, 10), "avdec_h264");
    assert_eq!(chosen(8, 8, 8), "avdec_h264");
    for finer in [Chroma::Grey, Chroma::Half, Chroma::Full] {
        assert_eq!(of(1920, 1080, 8, finer), "avdec_h264", "{finer}");
    }
}

#[test]
fn an_input_that_no_decoder_here_takes_is_refused_with_the_limits() {
    let mut board = board();
    board.decoders[0].size.max = (1920, 1920);
    // Full as well: with a free session it would not take it either.
    let machine = scarce(1, 0, false);
    let coded =
        |width, height, depth| Some(Coded { size: Size::new(width, height), depth, chroma: Chroma::Quarter });
    let fault = |coded| decoder(&board, &machine, Input { coded, ..H264 }).unwrap_err();
    assert_eq!(fault(coded(1920, 1080, 8)).code, Code::Busy);
    assert_eq!(fault(coded(3840, 2160, 8)).code, Code::NoDecoder);
    let machine = scarce(1, 1, false);
    let fault = |coded| decoder(&board, &machine, Input { coded, ..H264 }).unwrap_err();
    assert_eq!(
        fault(coded(3840, 2160, 8)).text,
        "no decoder for H264 of 3840x2160 with 8 bits a sample works here (chipdec: it decodes 16x16 to 1920x1920, \
         and this is 3840x2160); install gstreamer1.0-libav or gstreamer1.0-plugins-bad"
    );
    let deep = fault(coded(1920, 1080, 10)).text;
    assert!(deep.contains("(chipdec: it decodes 8 bits a sample, and this has 10)"), "{deep}");
}
