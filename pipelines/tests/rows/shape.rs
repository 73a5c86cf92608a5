//! Pictures that are turned, woven, odd, or of another kind from one frame to the next.

use headwater_protocol::{Codec, Container, FrameRate};

use crate::PLAIN;
use crate::rig::{Rig, engine, rendition, run, run_as};

/// Brightness of the four corners: top left, top right, bottom left, bottom right.
fn corners(rig: &Rig, bytes: &[u8], width: usize, height: usize) -> [bool; 4] {
    rig.write("corners.ts", bytes);
    let grey = rig.ffmpeg("-i corners.ts -frames:v 1 -pix_fmt gray -f rawvideo corners.raw");
    assert_eq!(grey.len(), width * height);
    let at = |x: usize, y: usize| grey[y * width + x] > 128;
    let (right, bottom) = (width - 9, height - 9);
    [at(8, 8), at(right, 8), at(8, bottom), at(right, bottom)]
}

#[test]
fn a_picture_turned_by_a_phone_stands_upright_whichever_way_it_was_held() {
    let rig = Rig::new();
    // White in the top left corner.
    rig.ffmpeg(&format!(
        "-f lavfi -i color=black:s=640x360:r=30 -t 0.2 -vf drawbox=0:0:160:90:white:fill -pix_fmt yuv420p {PLAIN} up.mp4"
    ));
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    // ffmpeg counts against the clock.
    let cases = [
        (0, (320, 180), [true, false, false, false]),
        (270, (180, 320), [false, true, false, false]),
        (180, (320, 180), [false, false, false, true]),
        (90, (180, 320), [false, false, true, false]),
    ];
    for (degrees, (width, height), wanted) in cases {
        let input = rig.ffmpeg(&format!("-i up.mp4 -c copy -metadata:s:v:0 rotate={degrees} turned.mp4"));
        let done = run_as(&mut engine, Container::Mp4, &input).unwrap();
        let report = &done.report.renditions[0];
        assert_eq!((report.width.0, report.height.0), (width, height), "{degrees}");
        assert_eq!(report.frames, 6, "{degrees}");
        assert_eq!(corners(&rig, &done.outputs[0], width as usize, height as usize), wanted, "{degrees}");
    }
}

#[test]
fn woven_fields_of_either_order_become_progressive_pictures_of_the_same_number() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180), rendition("b", 160, 90)]);
    for (scan, flag) in [("tff", "tff=1"), ("bff", "bff=1")] {
        let input = rig.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=640x360:r=50 -t 1 -vf interlace=scan={scan} -pix_fmt yuv420p -c:v libx264 \
             -preset ultrafast -flags +ilme+ildct -x264opts {flag} -bf 0 in.ts"
        ));
        let done = run(&mut engine, &input).unwrap();
        let wanted = rig.times(&input);
        assert_eq!(wanted.len(), 25);
        for bytes in &done.outputs {
            assert_eq!(rig.times(bytes), wanted, "{scan}");
        }
        rig.write("out.ts", &done.outputs[0]);
        rig.ffmpeg("-i out.ts -vf idet,metadata=print:file=idet.txt -f null idet.txt");
        let text = std::fs::read_to_string(rig.path("idet.txt")).unwrap();
        let count = |kind: &str| -> f64 {
            let name = format!("lavfi.idet.multiple.{kind}=");
            let last = text.lines().rev().find_map(|line| line.strip_prefix(&name)).unwrap();
            last.parse().unwrap()
        };
        assert!(count("tff") + count("bff") <= 1.0, "{scan}: the output is still woven");
    }
}

/// A square that moves to the right in each of 50 fields a second, woven into 25 frames.
fn moving(rig: &Rig, scan: &str, flag: &str) -> Vec<u8> {
    rig.ffmpeg(&format!(
        "-f lavfi -i color=black:s=640x360:r=50 -f lavfi -i color=white:s=80x80:r=50 -filter_complex \
         [0][1]overlay=x=n*10:y=140:shortest=1,interlace=scan={scan}:lowpass=0 -t 1 -pix_fmt yuv420p -c:v libx264 \
         -preset ultrafast -flags +ilme+ildct -x264opts {flag} -bf 0 in.ts"
    ))
}

/// In each picture, where the right edge of what is bright in the middle row is.
fn edges(rig: &Rig, bytes: &[u8], width: usize, height: usize) -> Vec<usize> {
    rig.write("edges.ts", bytes);
    let grey = rig.ffmpeg("-i edges.ts -pix_fmt gray -f rawvideo edges.raw");
    let row = |picture: &[u8]| {
        let row = &picture[height / 2 * width..][..width];
        row.iter().rposition(|luma| *luma > 128).map_or(0, |at| at + 1)
    };
    grey.chunks_exact(width * height).map(row).collect()
}

#[test]
fn each_field_becomes_a_picture_where_twice_the_rate_is_asked_for() {
    let rig = Rig::new();
    let mut smooth = rendition("smooth", 640, 360);
    smooth.fps = Some(FrameRate::new(50, 1).unwrap());
    let mut engine = engine(vec![smooth, rendition("frames", 320, 180)]);
    for (scan, flag) in [("tff", "tff=1"), ("bff", "bff=1")] {
        let input = moving(&rig, scan, flag);
        let frames = rig.times(&input);
        assert_eq!(frames.len(), 25);
        let done = run(&mut engine, &input).unwrap();
        let video = done.report.input.video.unwrap();
        assert_eq!((video.frames, video.decoded, video.pixels), (25, 25, 25 * 640 * 360), "{scan}");
        let times: Vec<i64> = (0..50).map(|at| frames[0] + at * 1800).collect();
        assert_eq!(rig.times(&done.outputs[0]), times, "{scan}");
        assert_eq!(rig.times(&done.outputs[1]), frames, "{scan}: the source's frames stay what they are");
        let edges = edges(&rig, &done.outputs[0], 640, 360);
        let moved = |pair: &[usize]| (8..=12).contains(&(pair[1].saturating_sub(pair[0])));
        assert!(edges.windows(2).all(moved), "{scan}: it moves in each picture: {edges:?}");
    }
}

#[test]
fn a_turned_picture_that_is_not_woven_is_doubled_where_twice_the_rate_is_asked_for() {
    let rig = Rig::new();
    let mut double = rendition("a", 320, 180);
    double.fps = Some(FrameRate::new(60, 1).unwrap());
    rig.clip("320x180", 0.5, PLAIN, "flat.mp4");
    let input = rig.ffmpeg("-i flat.mp4 -c copy -metadata:s:v:0 rotate=90 turned.mp4");
    let done = run_as(&mut engine(vec![double]), Container::Mp4, &input).unwrap();
    let first = rig.times(&input)[0];
    assert_eq!(rig.times(&done.outputs[0]), (0..30).map(|at| first + at * 1500).collect::<Vec<_>>());
    assert_eq!(done.report.input.video.unwrap().decoded, 15);
}

#[test]
fn another_kind_of_pixels_in_the_middle_costs_no_frame() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180), rendition("b", 160, 90)]);
    let part = |format: &str, at: f64| {
        rig.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=320x180:r=30 -t 0.3 -pix_fmt {format} {PLAIN} -output_ts_offset {at} part.ts"
        ))
    };
    for kinds in [["yuv420p", "yuv422p", "yuv444p"], ["yuv444p", "yuv420p", "yuv420p10le"]] {
        let input: Vec<u8> = (0..3).flat_map(|at| part(kinds[at], at as f64 * 0.3)).collect();
        let done = run(&mut engine, &input).unwrap();
        let wanted: Vec<i64> = (0..27).map(|at| rig.times(&input)[0] + at * 3000).collect();
        for bytes in &done.outputs {
            assert_eq!(rig.times(bytes), wanted, "{kinds:?}");
        }
        assert_eq!(done.report.input.video.unwrap().decoded, 27, "{kinds:?}");
    }
}

#[test]
fn another_size_and_shape_of_pixels_in_the_middle_keeps_output_and_frames() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("a", 320, 180), rendition("b", 160, 90)]);
    let sizes = [("320x180", "1"), ("1280x720", "1"), ("360x240", "40/33"), ("160x90", "1")];
    let mut input = Vec::new();
    for (at, (size, aspect)) in sizes.into_iter().enumerate() {
        let options = format!("-vf setsar={aspect} {PLAIN} -output_ts_offset {}", at as f64 * 0.2);
        input.extend(rig.clip(size, 0.2, &options, "part.ts"));
    }
    let done = run(&mut engine, &input).unwrap();
    for (bytes, size) in done.outputs.iter().zip([(320, 180), (160, 90)]) {
        let frames = rig.frames(bytes);
        assert_eq!(frames.len(), 24);
        assert!(frames.iter().all(|frame| (frame.width, frame.height) == size));
    }
}

#[test]
fn odd_sides_and_wide_pixels_become_even_sizes_with_square_ones() {
    let rig = Rig::new();
    let cases = [
        ("crop=641:361,format=yuv444p", "642x362", (320, 180)),
        ("crop=353:289,setsar=1,format=yuv444p", "354x290", (320, 262)),
        ("setsar=16/15", "720x576", (320, 240)),
        ("setsar=64/45", "720x576", (320, 180)),
        ("setsar=10/11", "704x480", (320, 240)),
    ];
    let mut engine = engine(vec![rendition("a", 320, 180)]);
    for (filter, size, wanted) in cases {
        let input = rig.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s={size}:r=30 -t 0.2 -vf {filter} -c:v libx264 -preset ultrafast in.ts"
        ));
        let done = run(&mut engine, &input).unwrap();
        let frames = rig.frames(&done.outputs[0]);
        assert_eq!(frames.len(), 6, "{filter}");
        let (width, height) = (frames[0].width, frames[0].height);
        assert_eq!((width % 2, height % 2), (0, 0), "{filter}");
        // The longer side goes to the longer side of the box.
        assert!(
            width.abs_diff(wanted.0) <= 2 && height.abs_diff(wanted.1) <= 2,
            "{filter}: {width}x{height}"
        );
    }
}

#[test]
fn a_rendition_larger_than_the_source_is_made_if_it_is_asked_for() {
    let rig = Rig::new();
    let input = rig.clip("320x180", 0.3, PLAIN, "in.ts");
    let mut hevc = rendition("hevc", 960, 540);
    hevc.codec = Codec::Hevc;
    let done = run(&mut engine(vec![rendition("big", 1280, 720), hevc, rendition("small", 160, 90)]), &input)
        .unwrap();
    let sizes: Vec<(u32, u32)> = done.report.renditions.iter().map(|r| (r.width.0, r.height.0)).collect();
    assert_eq!(sizes, [(1280, 720), (960, 540), (160, 90)]);
    for bytes in &done.outputs {
        assert_eq!(rig.times(bytes), rig.times(&input));
    }
}
