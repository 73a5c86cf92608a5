//! Colours: high dynamic range and wide gamut become BT.709, everything else stays what it is, and outputs say so.
//!
//! References are made by ffmpeg's `zscale`, which has no tone curve: pictures of at most 80 nits lie below the curve's
//! knee, so both must agree on them.

use headwater_protocol::Rate;
use headwater_protocol::media::Hdr;

mod rig;
use rig::{Done, Rig, engine, rendition, run};

/// Soft edges, for at hard ones two chroma filters are compared; and no primary near zero, which ten bits do not resolve.
const PICTURE: &str = "-f lavfi -i testsrc2=s=640x360:r=30,gblur=sigma=3,hue=s=0.6 -t 0.5";
/// The picture as BT.709 in limited range.
const SDR: &str = "scale=out_color_matrix=bt709:out_range=tv,format=yuv444p";
const BT709: [&str; 5] = ["yuv420p", "tv", "bt709", "bt709", "bt709"];
/// A PSNR no worse than this is a picture that is the same: x264 at quantizer 8 alone is at 50 dB, and the rest are
/// roundings to eight bits and another filter for chroma.
const SAME: f64 = 42.0;

/// The test picture with `nits` of white, in BT.2020 with `transfer`.
fn wide(rig: &Rig, transfer: &str, nits: u32, format: &str, name: &str) -> Vec<u8> {
    rig.ffmpeg(&format!(
        "{PICTURE} -vf {SDR},zscale=tin=bt709:min=bt709:pin=bt709:rin=tv:t={transfer}:p=bt2020:m=bt2020nc:r=tv:\
         npl={nits}:agamma=0,format={format} -c:v libx265 -preset ultrafast -crf 8 -x265-params \
         log-level=error:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=limited {name}"
    ))
}

/// What such a picture is in BT.709.
fn reference(transfer: &str) -> String {
    format!(
        "zscale=tin={transfer}:min=bt2020nc:pin=bt2020:rin=tv:t=bt709:m=bt709:p=bt709:r=tv:npl=203:\
         agamma=0,format=yuv420p"
    )
}

/// One rendition at the input's size, near lossless.
fn transcode(input: &[u8]) -> Done {
    let mut one = rendition("a", 640, 360);
    one.rate = Rate::Quality(8);
    let done = run(&mut engine(vec![one]), input).unwrap();
    let video = done.report.input.video.clone().unwrap();
    assert_eq!((video.frames, done.report.renditions[0].frames), (15, 15));
    done
}

fn hdr(done: &Done) -> Option<Hdr> {
    done.report.input.video.as_ref().unwrap().hdr
}

fn assert_same(rig: &Rig, done: &Done, input: &[u8], filter: &str) {
    let psnr = rig.psnr(&done.outputs[0], input, filter);
    assert!(psnr > SAME, "PSNR {psnr}");
}

#[test]
fn pq_becomes_bt709_and_looks_like_the_reference() {
    let rig = Rig::new();
    let input = wide(&rig, "smpte2084", 80, "yuv420p10le", "pq.ts");
    let done = transcode(&input);
    assert_eq!(rig.colour(&done.outputs[0]), BT709);
    assert_eq!(hdr(&done), Some(Hdr::Pq));
    assert_same(&rig, &done, &input, &reference("smpte2084"));
}

#[test]
fn hlg_becomes_bt709_and_looks_like_the_reference() {
    let rig = Rig::new();
    let input = wide(&rig, "arib-std-b67", 80, "yuv420p10le", "hlg.ts");
    let done = transcode(&input);
    assert_eq!(rig.colour(&done.outputs[0]), BT709);
    assert_eq!(hdr(&done), Some(Hdr::Hlg));
    assert_same(&rig, &done, &input, &reference("arib-std-b67"));
}

#[test]
fn bt2020_without_high_dynamic_range_becomes_bt709_too() {
    let rig = Rig::new();
    let input = wide(&rig, "bt2020-10", 203, "yuv420p10le", "wide.ts");
    let done = transcode(&input);
    assert_eq!(rig.colour(&done.outputs[0]), BT709);
    assert_eq!(hdr(&done), None);
    assert_same(&rig, &done, &input, &reference("bt2020-10"));
}

#[test]
fn pq_with_more_chroma_and_more_bits_is_read() {
    let rig = Rig::new();
    for format in ["yuv422p10le", "yuv444p10le", "yuv420p12le"] {
        let input = wide(&rig, "smpte2084", 80, format, "pq.ts");
        let done = transcode(&input);
        assert_eq!(rig.colour(&done.outputs[0]), BT709, "{format}");
        assert_same(&rig, &done, &input, &reference("smpte2084"));
    }
}

#[test]
fn highlights_are_bent_and_not_cut() {
    let rig = Rig::new();
    // Grey from black to 1000 nits: in BT.709 as it is, everything above a fifth would be white.
    let input = rig.ffmpeg(
        "-f lavfi -i gradients=s=640x360:r=30:c0=black:c1=white:x0=0:y0=0:x1=639:y1=0:n=2:speed=0.00001 -t 0.5 -vf \
         format=gbrp,format=yuv444p,zscale=tin=bt709:min=bt709:pin=bt709:rin=tv:t=smpte2084:p=bt2020:m=bt2020nc:r=tv:\
         npl=1000:agamma=0,format=yuv420p10le -c:v libx265 -preset ultrafast -crf 8 -x265-params \
         log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited ramp.ts",
    );
    let done = transcode(&input);
    let row = rig.row(&done.outputs[0], 640);
    assert!(row[..440].iter().max().unwrap() < &235, "white before its time: {row:?}");
    assert!(row[100] > 30 && row[600] > 225, "{row:?}");
    // Never darker from left to right, but for the encoder's noise.
    assert!(row.chunks(40).zip(row.chunks(40).skip(1)).all(|(a, b)| a[20] <= b[20] + 1), "{row:?}");
}

#[test]
fn ten_bits_of_sdr_keep_their_levels() {
    let rig = Rig::new();
    let input = rig.ffmpeg(&format!(
        "{PICTURE} -vf {SDR},format=yuv420p10le -c:v libx265 -preset ultrafast -crf 8 -x265-params \
         log-level=error:colorprim=bt709:transfer=bt709:colormatrix=bt709:range=limited deep.ts"
    ));
    let done = transcode(&input);
    assert_eq!(rig.colour(&done.outputs[0]), BT709);
    assert_same(&rig, &done, &input, "format=yuv420p");
}

#[test]
fn colours_of_standard_definition_and_full_range_stay_what_they_are() {
    let rig = Rig::new();
    let x264 = "-c:v libx264 -preset ultrafast -crf 8 -x264-params";
    let input = rig.ffmpeg(&format!(
        "{PICTURE} -vf scale=out_color_matrix=bt601:out_range=tv,format=yuv420p {x264} \
         colorprim=smpte170m:transfer=smpte170m:colormatrix=smpte170m sd.ts"
    ));
    let done = transcode(&input);
    assert_eq!(rig.colour(&done.outputs[0]), ["yuv420p", "tv", "smpte170m", "smpte170m", "smpte170m"]);
    assert_same(&rig, &done, &input, "null");
    let input = rig.ffmpeg(&format!(
        "{PICTURE} -vf scale=out_color_matrix=bt709:out_range=pc,format=yuvj420p {x264} \
         colorprim=bt709:transfer=bt709:colormatrix=bt709:fullrange=on full.ts"
    ));
    let done = transcode(&input);
    assert_eq!(rig.colour(&done.outputs[0]), ["yuvj420p", "pc", "bt709", "bt709", "bt709"]);
    assert_same(&rig, &done, &input, "null");
}

#[test]
fn small_renditions_of_an_untagged_high_definition_picture_say_what_players_take_that_for() {
    let rig = Rig::new();
    let input = rig.clip("1920x1080", 0.2, "-c:v libx264 -preset ultrafast -bf 0", "in.ts");
    assert_eq!(rig.colour(&input)[2..], ["unknown"; 3]);
    let done = run(&mut engine(vec![rendition("a", 1280, 720), rendition("b", 426, 240)]), &input).unwrap();
    for bytes in &done.outputs {
        assert_eq!(rig.colour(bytes), BT709);
    }
}

#[test]
fn more_chroma_than_is_made_is_read_in_eight_and_ten_bits_and_interlaced() {
    let rig = Rig::new();
    let vui = "colorprim=bt709:transfer=bt709:colormatrix=bt709";
    for format in ["yuv422p", "yuv444p", "yuv422p10le", "yuv444p10le"] {
        let input = rig.ffmpeg(&format!(
            "{PICTURE} -vf {SDR},format={format} -c:v libx264 -preset ultrafast -crf 8 -x264-params {vui} in.ts"
        ));
        let done = transcode(&input);
        assert_eq!(rig.colour(&done.outputs[0]), BT709, "{format}");
        assert_same(&rig, &done, &input, "format=yuv420p");
    }
    let input = rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=640x360:r=60 -t 0.5 -vf {SDR},interlace,format=yuv422p10le -c:v libx264 -preset \
         ultrafast -flags +ilme+ildct -x264-params {vui}:tff=1 -bf 0 in.ts"
    ));
    assert_eq!(rig.colour(&transcode(&input).outputs[0]), BT709);
}
