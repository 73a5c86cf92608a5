//! What an encoder of H.264 or HEVC writes of its pictures' colours into its stream. No container says it in its place,
//! and players believe it, or guess where it says nothing. (Of the times that may stand beside it nothing is asked for:
//! those of the container are what counts.)

use headwater_protocol::{Codec, Fault};

use super::candidate::Candidate;
use super::words;
use crate::nal::{self, Colours, UNSAID};

/// What the drawn pictures are, BT.709 in limited range, in the numbers of ISO/IEC 23091-2. BT.601 and BT.2020 have the
/// same transfer under other numbers.
const GIVEN: [(&str, &[u8]); 3] = [("primaries", &[1]), ("transfer", &[1, 6, 14, 15]), ("matrix", &[1])];

/// Looks at an encoder's first frame: what a person should know of it. A fault where it claims the wrong range, for
/// players would show black as grey, or crush it; a wrong description tints them a little, and no software is worth that
/// on a board.
pub(super) fn look(candidate: &Candidate, codec: Codec, first: &[u8]) -> Result<Option<String>, Fault> {
    let Some(sps) = nal::sps_of(codec, first) else { return Ok(None) };
    judge(sps.colours).map_err(|wrong| words::wrong(candidate, wrong))
}

fn judge(colours: Colours) -> Result<Option<String>, String> {
    let Colours { description, full_range } = colours;
    if full_range {
        return Err("writes into its stream that pictures in limited range have the full one".to_owned());
    }
    let said = || description.into_iter().zip(GIVEN);
    let wrong = said().filter(|(number, (_, given))| *number != UNSAID && !given.contains(number));
    let wrong: Vec<String> = wrong.map(|(number, (name, _))| format!("{name} {number}")).collect();
    if !wrong.is_empty() {
        let wrong = wrong.join(", ");
        return Ok(Some(format!(
            "writes that pictures in BT.709 have {wrong}, so players show their colours a little wrong"
        )));
    }
    let open: Vec<&str> = said().filter(|(number, _)| *number == UNSAID).map(|(_, (name, _))| name).collect();
    Ok((!open.is_empty()).then(|| {
        format!("does not write the colours of its pictures ({}), so players guess them", open.join(", "))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(description: [u8; 3], full_range: bool) -> Result<Option<String>, String> {
        judge(Colours { description, full_range })
    }

    #[test]
    fn colours_that_are_true_need_no_word() {
        assert_eq!(judged([1, 1, 1], false), Ok(None));
        assert_eq!(judged([1, 6, 1], false), Ok(None), "the same curve");
    }

    #[test]
    fn colours_that_are_left_open_are_told_and_do_no_harm() {
        let all =
            "does not write the colours of its pictures (primaries, transfer, matrix), so players guess them";
        assert_eq!(judge(Colours::default()), Ok(Some(all.to_owned())));
        let one = "does not write the colours of its pictures (transfer), so players guess them";
        assert_eq!(judged([1, UNSAID, 1], false), Ok(Some(one.to_owned())));
    }

    #[test]
    fn colours_that_are_not_those_of_the_pictures_are_told_and_a_wrong_range_is_a_fault() {
        let told = "writes that pictures in BT.709 have primaries 6, matrix 6, so players show their colours a little wrong";
        assert_eq!(judged([6, 6, 6], false), Ok(Some(told.to_owned())));
        let wrong = "writes into its stream that pictures in limited range have the full one";
        assert_eq!(judged([1, 16, UNSAID], true), Err(wrong.to_owned()));
    }
}
