//! What the snapshot says of the elements to stand in for.

use std::path::PathBuf;

use headwater_pipelines::machine::{ElementFacts, Machine};

use crate::kind::{self, Kind};

/// One element.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub name: String,
    pub kind: Kind,
    pub facts: ElementFacts,
    pub sink_caps: String,
    pub src_caps: String,
}

/// The specs of the snapshot that the environment names; none without one.
pub(crate) fn read() -> Result<Vec<Spec>, String> {
    let Some(path) = std::env::var_os("HEADWATER_STUB_MACHINE").map(PathBuf::from) else {
        return Ok(Vec::new());
    };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let machine: Machine =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(machine.elements.into_iter().filter_map(|(name, facts)| spec(name, facts)).collect())
}

const RAW: &str = "video/x-raw(ANY)";
const CODED: &str = "video/x-h264,stream-format=byte-stream,alignment=au; \
    video/x-h265,stream-format=byte-stream,alignment=au; video/x-av1; video/x-vp8; video/x-vp9; image/jpeg";

fn spec(name: String, facts: ElementFacts) -> Option<Spec> {
    let kind = kind::of(&name, &facts.sink, &facts.src)?;
    let or =
        |caps: &str, otherwise: &str| if caps.is_empty() { otherwise.to_owned() } else { caps.to_owned() };
    let (sink_caps, src_caps) = match kind {
        Kind::Decoder => (or(&facts.sink, CODED), or(&facts.src, RAW)),
        Kind::Scaler | Kind::Split => (or(&facts.sink, RAW), or(&facts.src, RAW)),
        Kind::Encoder(coder) => (or(&facts.sink, RAW), or(&facts.src, coder.caps())),
    };
    Some(Spec { name, kind, facts, sink_caps, src_caps })
}
