//! JPEG renditions: the segment's first picture, and sheets of pictures, true to the source in place, size and colour.

use headwater_protocol::{Codec, Container, Millis, Pixels, Rate, Rendition, Tiles};

mod rig;
use rig::{Rig, engine, rendition, run};

const X264: &str =
    "-c:v libx264 -preset veryfast -crf 12 -g 60 -colorspace bt709 -color_primaries bt709 -color_trc bt709";
/// How alike a JPEG of good quality and the source's frame are that ffmpeg scales in its own way.
const ALIKE: f64 = 0.93;

fn picture(name: &str, width: u32, height: u32) -> Rendition {
    Rendition {
        codec: Codec::Jpeg,
        container: Container::Jpeg,
        rate: Rate::Quality(6),
        ..rendition(name, width, height)
    }
}

fn sheet(columns: u8, rows: u8, every: u64) -> Rendition {
    Rendition { tiles: Some(Tiles { columns, rows, every: Millis(every) }), ..picture("sheet", 160, 90) }
}

#[test]
fn a_thumbnail_is_the_first_picture_of_each_segment_beside_the_video() {
    let rig = Rig::new();
    let mut engine = engine(vec![rendition("video", 320, 180), picture("thumb", 320, 180)]);
    for start in [0, 1] {
        let input = rig.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=640x360:r=30,gblur=sigma=2 -ss {start} -t 1 -pix_fmt yuv420p {X264} in.ts"
        ));
        let done = run(&mut engine, &input).unwrap();
        assert_eq!(done.report.renditions[0].frames, 30);
        let report = &done.report.renditions[1];
        assert_eq!((report.frames, report.container), (1, Container::Jpeg));
        assert_eq!((report.width, report.height), (Pixels(320), Pixels(180)));
        assert_eq!(report.bytes as usize, done.outputs[1].len());
        assert_eq!(rig.image(&done.outputs[1]), ("mjpeg".to_owned(), 320, 180));
        let ssim = rig.still_ssim(&done.outputs[1], &input, 0.0, (320, 180), None);
        assert!(ssim > ALIKE, "SSIM {ssim}");
        assert_eq!(done.report.warm, start > 0);
    }
}

#[test]
fn a_picture_has_the_colours_of_the_source() {
    let rig = Rig::new();
    // A red and a white that would be others with BT.709's matrix or limited range. Codes of eight bits in limited range
    // and ffmpeg's way to them leave five in blue; the wrong matrix alone is 23 off in red.
    for (colour, want) in
        [("0xc02040", [192, 32, 64]), ("0x808080", [128, 128, 128]), ("white", [255, 255, 255])]
    {
        let input = rig.ffmpeg(&format!(
            "-f lavfi -i color={colour}:s=320x180:r=30 -t 0.2 -vf scale=out_color_matrix=bt709:out_range=tv -pix_fmt \
             yuv420p {X264} in.ts"
        ));
        let done = run(&mut engine(vec![picture("a", 160, 90)]), &input).unwrap();
        let got = rig.pixel(&done.outputs[0]);
        for (got, want) in got.into_iter().zip(want) {
            assert!(i32::from(got).abs_diff(want) <= 6, "{colour}: {got} is not {want}");
        }
    }
}

#[test]
fn a_sheet_shows_a_picture_at_each_step() {
    let rig = Rig::new();
    let input = rig.clip("640x360", 2.0, X264, "in.ts");
    let done = run(&mut engine(vec![sheet(2, 2, 500)]), &input).unwrap();
    assert_eq!(rig.image(&done.outputs[0]), ("mjpeg".to_owned(), 320, 180));
    assert_eq!(done.report.renditions[0].frames, 1);
    for (place, seconds) in [0.0, 0.5, 1.0, 1.5].into_iter().enumerate() {
        let corner = (place as u32 % 2 * 160, place as u32 / 2 * 90);
        let ssim = rig.still_ssim(&done.outputs[0], &input, seconds, (160, 90), Some(corner));
        assert!(ssim > ALIKE, "tile {place}: SSIM {ssim}");
        let other = rig.still_ssim(&done.outputs[0], &input, (seconds + 1.0) % 2.0, (160, 90), Some(corner));
        assert!(other < ssim, "tile {place} is as like the picture of another second");
    }
}

#[test]
fn a_long_segment_fills_further_sheets_and_a_short_one_leaves_black() {
    let rig = Rig::new();
    let input = rig.clip("640x360", 2.0, X264, "in.ts");
    let done = run(&mut engine(vec![sheet(3, 1, 500), picture("one", 320, 180)]), &input).unwrap();
    assert_eq!(done.report.renditions[0].frames, 2);
    let sheets = headwater_pipelines::jpeg::pictures(&done.outputs[0]);
    assert_eq!(sheets.len(), 2);
    for sheet in &sheets {
        assert_eq!(rig.image(sheet), ("mjpeg".to_owned(), 480, 90));
    }
    let ssim = rig.still_ssim(sheets[1], &input, 1.5, (160, 90), Some((0, 0)));
    assert!(ssim > ALIKE, "SSIM {ssim}");
    // Of the second sheet only the first tile has a picture.
    assert!(rig.row(sheets[1], 480)[170..].iter().all(|luma| *luma <= 2));
}

#[test]
fn portraits_and_high_dynamic_range_make_pictures_too() {
    let rig = Rig::new();
    let portrait = rig.clip("360x640", 0.3, X264, "portrait.ts");
    let done = run(&mut engine(vec![picture("a", 320, 180)]), &portrait).unwrap();
    assert_eq!(rig.image(&done.outputs[0]), ("mjpeg".to_owned(), 180, 320));
    let pq = rig.ffmpeg(
        "-f lavfi -i color=white:s=640x360:r=30 -t 0.2 -vf format=yuv444p,zscale=tin=bt709:min=bt709:pin=bt709:rin=tv:\
         t=smpte2084:p=bt2020:m=bt2020nc:r=tv:npl=203,format=yuv420p10le -c:v libx265 -preset ultrafast -x265-params \
         log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc pq.ts",
    );
    let done = run(&mut engine(vec![picture("a", 320, 180)]), &pq).unwrap();
    // Diffuse white is nine tenths of SDR's signal.
    assert!(rig.pixel(&done.outputs[0]).into_iter().all(|part| (225..=235).contains(&part)));
}

#[test]
fn a_segment_of_sound_alone_has_no_picture() {
    let rig = Rig::new();
    let input = rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=320x180:r=30 -f lavfi -i sine=440 -t 0.5 -pix_fmt yuv420p {X264} -c:a aac in.ts"
    ));
    // Without the packets of the video.
    let sound: Vec<u8> = input
        .chunks(188)
        .filter(|packet| (packet[1] & 0x1f, packet[2]) != (1, 0))
        .flatten()
        .copied()
        .collect();
    let done =
        run(&mut engine(vec![rendition("video", 320, 180), picture("thumb", 320, 180)]), &sound).unwrap();
    assert_eq!(done.outputs[0], sound);
    assert!(done.outputs[1].is_empty() && done.report.renditions[1].copied);
}
