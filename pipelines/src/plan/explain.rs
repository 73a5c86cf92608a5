//! A plan and how it was come to, for people and for golden files.

use headwater_protocol::{Codec, Fault, Ladder};
use serde::Serialize;

use super::encode::{Wanted, candidates};
use super::route::{self, Costed};
use super::{DecodePlan, OutputPlan, Picture, Trust, decode_with, decoder, outputs};
use crate::board::{Board, LossyInput, Status};
use crate::fit::Size;
use crate::machine::Machine;

/// What a board would do with one input.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    pub board: String,
    pub status: Status,
    pub picture: Picture,
    pub decode: DecodePlan,
    pub outputs: OutputPlan,
    /// Both ways, with their cost per picture in pixels copied, or why there is none.
    pub ways: Vec<WayCost>,
    /// Every candidate that was looked at, in order.
    pub candidates: Vec<Verdict>,
    /// What could not be said to an encoder exactly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WayCost {
    pub way: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `decode hevc`, `720p`.
    pub for_what: String,
    pub element: String,
    /// `used`, `could`, or why not.
    pub verdict: String,
}

/// The plan for `codec` and `picture`, with its reasons.
pub fn explain(
    board: &Board,
    machine: &Machine,
    ladder: &Ladder,
    codec: Codec,
    trust: Trust,
    picture: &Picture,
) -> Result<Explanation, Fault> {
    let decode = decoder(board, machine, codec, trust)?;
    let plan = outputs(board, machine, ladder, &decode, picture)?;
    let native = route::native(board, machine, ladder, &decode, picture);
    let software =
        route::software(board, machine, ladder, &decode, picture).map_err(|fault| fault.to_string());
    let chosen = [&native, &software].into_iter().flatten().find(|one| one.plan == plan);
    let notes = chosen.map(|one| one.notes.clone()).unwrap_or_default();
    let mut verdicts = decoders(board, machine, codec, trust, &decode);
    verdicts.extend(encoders(board, machine, ladder, picture, &plan));
    Ok(Explanation {
        board: board.id.clone(),
        status: board.status,
        picture: picture.clone(),
        ways: vec![way("native", native), way("software", software)],
        decode,
        outputs: plan,
        candidates: verdicts,
        notes,
    })
}

fn way(name: &'static str, costed: Result<Costed, String>) -> WayCost {
    match costed {
        Ok(costed) => WayCost { way: name, cost: Some(costed.cost.round() as u64), why_not: None },
        Err(why) => WayCost { way: name, cost: None, why_not: Some(why) },
    }
}

fn decoders(board: &Board, machine: &Machine, codec: Codec, trust: Trust, used: &DecodePlan) -> Vec<Verdict> {
    let of_codec = board.decoders.iter().filter(|one| one.codec == codec);
    let used = used.elements.last().map(|element| element.factory.as_str());
    of_codec
        .map(|one| {
            let plan = decode_with(board, machine, one);
            let named =
                plan.as_ref().ok().and_then(|plan| plan.elements.last()).map(|last| last.factory.clone());
            let verdict = match plan {
                Err(why) => why,
                Ok(_) if named.as_deref() == used => "used".to_owned(),
                Ok(_) if one.lossy_input == LossyInput::Avoid && trust == Trust::Lossy => {
                    "a lost picture can hang it, and this input may have lost some".to_owned()
                }
                Ok(_) => "could".to_owned(),
            };
            let element = named.unwrap_or_else(|| one.factory.join(" or "));
            Verdict { for_what: format!("decode {codec:?}").to_lowercase(), element, verdict }
        })
        .collect()
}

fn encoders(
    board: &Board,
    machine: &Machine,
    ladder: &Ladder,
    picture: &Picture,
    plan: &OutputPlan,
) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (rendition, rung) in ladder.renditions().iter().zip(&plan.rungs) {
        let fitted = Size::new(rung.width, rung.height);
        let wanted = Wanted { rendition, fitted, source_rate: picture.rate, threads: 1 };
        for (encoder, said) in candidates(board, machine, wanted) {
            let (element, verdict) = match said {
                Err(why) => (encoder.factory.join(" or "), why),
                Ok(said) if said.element.factory == rung.element.factory => {
                    (said.element.factory, "used".to_owned())
                }
                Ok(said) => (said.element.factory, "could".to_owned()),
            };
            verdicts.push(Verdict { for_what: rendition.name.to_string(), element, verdict });
        }
    }
    verdicts
}
