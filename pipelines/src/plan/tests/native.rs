//! What makes a picture leave the board's memory, and what does not.

use super::*;

/// The plan of the toy board with `profile` for a ladder.
fn plan(profile: &str, ladder: Vec<Rendition>, picture: &Picture) -> OutputPlan {
    let text = toml::from_str::<toml::Table>(profile).unwrap();
    let board: Board = serde::Deserialize::deserialize(text).unwrap();
    let board = board.with_last_resort(&software());
    let machine = machine(&[
        ("chipdec", &[]),
        ("chipscale", &[]),
        ("chipdownload", &[]),
        ("chipupload", &[]),
        ("chipenc", &["bps", "gop"]),
        ("jpegenc", &["quality"]),
    ]);
    let ladder = Ladder::new(ladder).unwrap();
    let decode = decoder(&board, &machine, Input::any(Codec::H264, Trust::Lossy)).unwrap();
    outputs(&board, &machine, &ladder, &decode, picture).unwrap()
}

#[test]
fn a_picture_of_each_field_is_made_in_software_where_it_is_asked_for() {
    let board =
        BOARD.replace(r#"can = ["scale", "convert"]"#, r#"can = ["scale", "convert", "deinterlace"]"#);
    let woven = Picture { interlaced: true, ..chip() };
    let way = |fps: Option<(u32, u32)>, picture: &Picture| {
        let fps = fps.map(|(num, den)| FrameRate::new(num, den).unwrap());
        let ladder = vec![rendition("frames", 640, 360), Rendition { fps, ..rendition("a", 1280, 720) }];
        plan(&board, ladder, picture).way
    };
    assert_eq!(way(Some((60_000, 1001)), &woven), Way::Software);
    assert_eq!(way(Some((30, 1)), &woven), Way::Native);
    assert_eq!(way(None, &woven), Way::Native);
    assert_eq!(way(Some((60_000, 1001)), &chip()), Way::Native, "progressive pictures have no fields");
}

#[test]
fn still_pictures_leave_the_others_in_the_chips_memory() {
    let still = |name: &str, width: u32, height: u32| {
        let mut still = rendition(name, width, height);
        (still.codec, still.container, still.rate) = (Codec::Jpeg, Container::Jpeg, Rate::Quality(11));
        still
    };
    let ladder = vec![still("small", 160, 90), rendition("a", 1280, 720), still("large", 640, 360)];
    let planned = plan(BOARD, ladder, &chip());
    assert_eq!(planned.way, Way::Native);
    assert_eq!(planned.sizes, [Size::new(640, 360), Size::new(160, 90)]);
    assert_eq!(planned.origins, [Origin::Decoded, Origin::Size(0)]);
    let feeds: Vec<Feed> = planned.rungs.iter().map(|rung| rung.feed).collect();
    assert_eq!(feeds, [Feed::Canvas(1), Feed::Decoded, Feed::Canvas(0)]);
    assert_eq!(planned.rungs[1].before[0].factory, "chipscale");
    let planned = plan(BOARD, vec![still("alone", 160, 90)], &chip());
    assert_eq!(planned.way, Way::Software);
}
