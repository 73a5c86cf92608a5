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

/// Looks at an encoder's first frame. A fault where players would show other colours than those of the pictures; else
/// what a person should know.
pub(super) fn look(candidate: &Candidate, codec: Codec, first: &[u8]) -> Result<Option<String>, Fault> {
    let Some(sps) = nal::sps_of(codec, first) else { return Ok(None) };
    judge(sps.colours).map_err(|wrong| words::wrong(candidate, wrong))
}

fn judge(colours: Colours) -> Result<Option<String>, String> {
    let Colours { description, full_range } = colours;
    let said = || description.into_iter().zip(GIVEN);
    let range = full_range.then(|| "full range".to_owned());
    let wrong = said().filter(|(number, (_, given))| *number != UNSAID && !given.contains(number));
    let wrong: Vec<String> =
        wrong.map(|(number, (name, _))| format!("{name} {number}")).chain(range).collect();
    if !wrong.is_empty() {
        return Err(format!("writes into its stream that pictures in BT.709 have {}", wrong.join(", ")));
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
    fn colours_that_are_not_those_of_the_pictures_are_a_fault() {
        let wrong = "writes into its stream that pictures in BT.709 have primaries 6, matrix 6";
        assert_eq!(judged([6, 6, 6], false), Err(wrong.to_owned()));
        let wrong = "writes into its stream that pictures in BT.709 have transfer 16, full range";
        assert_eq!(judged([1, 16, UNSAID], true), Err(wrong.to_owned()));
    }
}
