//! What of an input is damaged or lost is counted, and moves nothing else.

use headwater_protocol::Container;

mod rig;
use rig::{Rig, engine, rendition, run};

const X264: &str = "-c:v libx264 -preset ultrafast -g 60";

#[test]
fn sound_that_begins_too_late_for_an_mp4_is_counted_as_lost() {
    let rig = Rig::new();
    // More frames than wait before the encoders and in them: the header is written by then.
    let silent = rig.clip("160x90", 8.0, &format!("{X264} -bf 0"), "silent.ts");
    let heard = rig.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=160x90:r=30 -f lavfi -i sine=r=48000 -t 1 -pix_fmt yuv420p {X264} -bf 0 -c:a aac \
         -output_ts_offset 8 heard.ts"
    ));
    let input = [silent, heard].concat();
    let errors = |container| {
        let mut one = rendition("a", 160, 90);
        one.container = container;
        let done = run(&mut engine(vec![one]), &input).unwrap();
        (rig.audio(&done.outputs[0]).len(), done.report.input.errors)
    };
    let (ts, mp4) = (errors(Container::Ts), errors(Container::Mp4));
    assert_eq!((ts.0, mp4.0), (1, 0));
    assert!(mp4.1 > ts.1, "{} errors where sound is lost, {} where it is not", mp4.1, ts.1);
}
