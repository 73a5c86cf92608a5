//! A plan and how it was come to, for people and for golden files.

use headwater_protocol::{Fault, Ladder};
use serde::Serialize;

use super::decode::decode_input;
use super::encode::{Wanted, candidates, largest_first};
use super::route::{self, Costed};
use super::sessions::Taken;
use super::{DecodePlan, Input, OutputPlan, Picture, decoder, outputs};
use crate::board::{Board, Status};
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

/// The plan for `input` and its first `picture`, with its reasons.
pub fn explain(
    board: &Board,
    machine: &Machine,
    ladder: &Ladder,
    input: Input,
    picture: &Picture,
) -> Result<Explanation, Fault> {
    let decode = decoder(board, machine, input)?;
    let plan = outputs(board, machine, ladder, &decode, picture)?;
    let native = route::native(board, machine, ladder, &decode, picture);
    let software =
        route::software(board, machine, ladder, &decode, picture).map_err(|fault| fault.to_string());
    let chosen = [&native, &software].into_iter().flatten().find(|one| one.plan == plan);
    let notes = chosen.map(|one| one.notes.clone()).unwrap_or_default();
    let mut verdicts = decoders(board, machine, input, &decode);
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

fn decoders(board: &Board, machine: &Machine, input: Input, used: &DecodePlan) -> Vec<Verdict> {
    let codec = input.codec;
    let of_codec = board.decoders.iter().filter(|one| one.codec == codec);
    let used = used.elements.last();
    of_codec
        .map(|one| {
            let plan = decode_input(board, machine, one, input);
            let named = plan.as_ref().ok().and_then(|plan| plan.elements.last());
            let element = named.map_or_else(|| one.factory.join(" or "), |named| named.factory.clone());
            let verdict = match &plan {
                Err(why) => why.to_string(),
                Ok(_) if named.map(|one| &one.factory) == used.map(|one| &one.factory) => "used".to_owned(),
                Ok(_) => "could".to_owned(),
            };
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
    let fitted = route::fitted(ladder, picture);
    let mut taken = Taken::default();
    let mut verdicts: Vec<Vec<Verdict>> = fitted.iter().map(|_| Vec::new()).collect();
    for at in largest_first(&fitted) {
        let (Some(rendition), Some(rung)) = (ladder.renditions().get(at), plan.rungs.get(at)) else {
            continue;
        };
        let source_rate = picture.rate;
        let wanted = Wanted { rendition, fitted: fitted[at], source_rate, threads: 1, taken: &taken };
        let mut used = None;
        for (encoder, said) in candidates(board, machine, wanted) {
            let (element, verdict) = match said {
                Err(why) => (encoder.factory.join(" or "), why.to_string()),
                Ok(said) if said.element.factory == rung.element.factory => {
                    let said = used.get_or_insert(said);
                    (said.element.factory.clone(), "used".to_owned())
                }
                Ok(said) => (said.element.factory, "could".to_owned()),
            };
            verdicts[at].push(Verdict { for_what: rendition.name.to_string(), element, verdict });
        }
        if let Some(said) = &used {
            taken.take(said);
        }
    }
    verdicts.into_iter().flatten().collect()
}
