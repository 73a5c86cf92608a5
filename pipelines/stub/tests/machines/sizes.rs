//! Sizes that an encoder's own caps take or refuse, here TI's: steps of 8, from 256x128.

use std::fs;
use std::path::PathBuf;

use crate::boards::plan;
use crate::support::Rig;
use serde_json::{Value, json};

const TI: &str = "am62a";

/// The second rung is smaller than the encoder takes.
fn ladder(rig: &Rig) -> PathBuf {
    let rung = |name: &str, width: u32, height: u32| {
        json!({"name": name, "codec": "h264", "width": width, "height": height, "rate": {"bitrate": 300_000},
               "gop": "segment", "container": "ts"})
    };
    let path = rig.path("sizes.json");
    fs::write(&path, Value::from(vec![rung("large", 426, 240), rung("small", 192, 108)]).to_string())
        .unwrap();
    path
}

#[test]
fn a_rendition_smaller_than_an_encoder_takes_goes_to_software_and_the_plan_says_why() {
    let rig = Rig::new(TI);
    let ladder = ladder(&rig);
    let plan = plan(&rig, &ladder);
    let verdict = |rung: &str| {
        let mut all = plan.candidates.iter();
        all.find(|one| one.for_what == rung && one.element == "v4l2h264enc").unwrap().verdict.as_str()
    };
    assert_eq!(verdict("large"), "used");
    assert!(verdict("small").contains("192x108 is outside"), "{}", verdict("small"));
    let done = rig.transcode_of(&rig.clip(), &ladder, "");
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), rig.whole_trace());
    assert_eq!(rig.size(&rig.path("out/large/0.ts")), (424, 240));
    assert_eq!(rig.size(&rig.path("out/small/0.ts")), (192, 108));
    let lines = rig.trace("v4l2h264enc");
    let mut taken = lines.iter().filter(|line| line.starts_with("takes")).peekable();
    assert!(taken.peek().is_some() && taken.all(|line| line.contains("width=(int)424")), "{lines:?}");
}

#[test]
fn a_size_that_only_the_profile_allows_is_refused_by_the_element() {
    let rig = Rig::new(TI);
    let profile = "schema = 1\nid = 'mine'\ntitle = 'Mine'\nextends = 'ti-am62a'\npriority = 99\n\
                   [[encoder]]\ncodec = 'h264'\nfactory = ['v4l2h264enc']\nsize = { min = [16, 16], align = [2, 2] }\n";
    fs::create_dir(rig.path("boards")).unwrap();
    fs::write(rig.path("boards/mine.toml"), profile).unwrap();
    let mut command = rig.worker("");
    command.env("HEADWATER_BOARDS", rig.path("boards")).arg("transcode").arg(rig.clip());
    command.arg("-o").arg(rig.path("out")).arg("--ladder").arg(ladder(&rig));
    let done = rig.run(&mut command);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("Failed to link"), "{said}\n{}", rig.whole_trace());
}
