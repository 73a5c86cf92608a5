//! Sound encoded anew over a whole file, judged by ffmpeg.

use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_pipelines::transcode::{Cut, Summary, transcode};
use headwater_protocol::{Aac, Audio, BitsPerSecond, Container, Hertz, Ladder, Opus, Rendition};

mod ear;
mod rig;
use ear::{hear, lag, snr};
use rig::{Rig, rendition};

const PICTURE: &str = "-f lavfi -i testsrc2=s=320x180:r=30";
/// Noise with a click each half second, which no two places have alike.
const NOISE: &str = "-f lavfi -i anoisesrc=c=pink:r=48000:a=0.5:seed=7";
const VIDEO: &str = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -bf 0 -g 30";

fn aac(rate: u32) -> Audio {
    Audio::Aac(Aac { bitrate: BitsPerSecond(160_000), rate: Hertz(rate), channels: 2 })
}

fn opus() -> Audio {
    Audio::Opus(Opus { bitrate: BitsPerSecond(160_000), channels: 2 })
}

fn rung(name: &str, audio: Audio, container: Container) -> Rendition {
    Rendition { audio, container, ..rendition(name, 160, 90) }
}

fn make(rig: &Rig, name: &str, options: &str) -> PathBuf {
    rig.ffmpeg(&format!("{PICTURE} {NOISE} -t 4 {VIDEO} {options} {name}"));
    rig.path(name)
}

fn work(rig: &Rig, input: &Path, rungs: &[Rendition], cut: Cut) -> Summary {
    transcode(input, &rig.path("out"), &Ladder::new(rungs.to_vec()).unwrap(), cut).unwrap()
}

const SECOND: Cut = Cut::Segments(Duration::from_secs(1));

#[test]
fn sound_is_heard_where_it_was_in_every_container_and_codec() {
    let rig = Rig::new();
    let input = make(&rig, "in.ts", "-c:a aac -b:a 192k");
    let rungs = [
        rung("aac-ts", aac(48_000), Container::Ts),
        rung("aac-mp4", aac(48_000), Container::Mp4),
        rung("opus-ts", opus(), Container::Ts),
        rung("opus-mp4", opus(), Container::Mp4),
    ];
    work(&rig, &input, &rungs, Cut::Whole);
    let source = hear(&input, 0);
    for one in &rungs {
        let out = rig.path(&format!("out/{}.{}", one.name, one.container.extension()));
        let heard = hear(&out, 0);
        let (a, b) = (source.at(2.0, 48_000, 0), heard.at(2.0, 48_000, 0));
        eprintln!(
            "{}: lag {} snr {:.1} start {} / {} end {} / {}",
            one.name, lag(&source, &heard, 2.0), snr(&a, &b), source.start, heard.start, source.end(), heard.end()
        );
    }
    panic!();
}
