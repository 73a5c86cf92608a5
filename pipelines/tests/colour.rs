//! Colours: high dynamic range and wide gamut become BT.709, everything else stays what it is, and outputs say so.
//!
//! References are made by ffmpeg's `zscale`, which knows no tone curve: pictures of at most 80 nits lie below the curve's
//! knee, so both must agree on them.

use headwater_protocol::media::Hdr;

mod rig;
use rig::{Rig, engine, rendition, run};

/// A test picture of BT.709 whose white is `nits`, in another colour space.
fn hdr(rig: &Rig, transfer: &str, nits: u32, name: &str) -> Vec<u8> {
    rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=640x360:r=30 -t 0.5 -vf {SDR},zscale=tin=bt709:min=bt709:pin=bt709:rin=tv:\
         t={transfer}:p=bt2020:m=bt2020nc:r=tv:npl={nits},format=yuv420p10le -c:v libx265 -preset ultrafast -crf 8 \
         -x265-params log-level=error:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=limited {name}"
    ))
}

const SDR: &str = "scale=out_color_matrix=bt709:out_range=tv,format=yuv444p";

/// One rendition at the input's size, near lossless.
fn transcode(input: &[u8]) -> rig::Done {
    let mut one = rendition("a", 640, 360);
    one.rate = headwater_protocol::Rate::Quality(8);
    run(&mut engine(vec![one]), input).unwrap()
}

const BT709: [&str; 5] = ["yuv420p", "tv", "bt709", "bt709", "bt709"];

#[test]
fn pq_becomes_bt709_and_looks_like_the_reference() {
    let rig = Rig::new();
    let input = hdr(&rig, "smpte2084", 80, "pq.ts");
    let done = transcode(&input);
    assert_eq!(rig.colour(&done.outputs[0]), BT709);
    let video = done.report.input.video.clone().unwrap();
    assert_eq!((video.hdr, video.frames, done.report.renditions[0].frames), (Some(Hdr::Pq), 15, 15));
    let filter = "zscale=tin=smpte2084:min=bt2020nc:pin=bt2020:rin=tv:t=bt709:m=bt709:p=bt709:r=tv:npl=203,\
                  format=yuv420p";
    let psnr = rig.psnr(&done.outputs[0], &input, filter);
    // x264 at quantizer 8 alone is at 48 dB; chroma of saturated edges is filtered in another way.
    assert!(psnr > 40.0, "PSNR {psnr}");
}
