//! The audio tracks of a segment over all its program tables: one that comes, goes or comes back keeps its place.

use crate::es::{AudioFormat, Tracks};

/// Tracks seen so far, and where those of the table in force are among them.
#[derive(Debug, Default)]
pub(crate) struct Known {
    audio: Vec<AudioFormat>,
    places: Vec<usize>,
}

impl Known {
    /// Takes a table over; gives all tracks there were.
    pub(crate) fn take(&mut self, tracks: Tracks) -> Tracks {
        self.places.clear();
        for format in tracks.audio {
            let free = |at: &usize| !self.places.contains(at) && self.audio[*at] == format;
            let place = (0..self.audio.len()).find(free).unwrap_or_else(|| {
                self.audio.push(format);
                self.audio.len() - 1
            });
            self.places.push(place);
        }
        Tracks { video: tracks.video, audio: self.audio.clone() }
    }

    /// The place of a track of the table in force.
    pub(crate) fn place(&self, track: usize) -> Option<usize> {
        self.places.get(track).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_that_comes_back_has_its_old_place() {
        let tracks = |audio: &[AudioFormat]| Tracks { video: None, audio: audio.to_vec() };
        let mut known = Known::default();
        assert_eq!(known.take(tracks(&[AudioFormat::Ac3, AudioFormat::Adts])).audio.len(), 2);
        assert_eq!(known.take(tracks(&[])).audio.len(), 2);
        assert_eq!(known.place(0), None);
        let all = known.take(tracks(&[AudioFormat::Adts, AudioFormat::Adts]));
        assert_eq!(all.audio, [AudioFormat::Ac3, AudioFormat::Adts, AudioFormat::Adts]);
        assert_eq!([known.place(0), known.place(1)], [Some(1), Some(2)]);
    }
}
