//! Numbers with their unit in the type.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty), $suffix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $suffix), self.0)
            }
        }
    };
}

unit!(
    /// Bits per second.
    BitsPerSecond(u32), " bit/s"
);
unit!(
    /// Samples of sound a second.
    Hertz(u32), " Hz"
);
unit!(
    /// A width or a height.
    Pixels(u32), " px"
);
unit!(
    /// A span in milliseconds, or a time since 1970-01-01 UTC where the field says so.
    Millis(u64), " ms"
);
unit!(
    /// Fencing number of an attempt: 1 for a task's first, one more for each next.
    Epoch(u32), ""
);

impl From<Millis> for std::time::Duration {
    fn from(span: Millis) -> Self {
        Self::from_millis(span.0)
    }
}

/// Frames per second as an exact fraction; written `30000/1001`, and `25` for `25/1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FrameRate {
    num: u32,
    den: u32,
}

/// Why a text or a pair is not a frame rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a frame rate; write 30, 25/1 or 30000/1001, at most 1000 frames a second")]
pub struct BadFrameRate {
    text: String,
}

impl FrameRate {
    /// At most 1000 frames a second; neither part may be zero.
    pub fn new(num: u32, den: u32) -> Result<Self, BadFrameRate> {
        if num == 0 || den == 0 || u64::from(num) > 1000 * u64::from(den) {
            return Err(BadFrameRate { text: format!("{num}/{den}") });
        }
        Ok(Self { num, den })
    }

    pub fn num(self) -> u32 {
        self.num
    }

    pub fn den(self) -> u32 {
        self.den
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.den {
            1 => write!(f, "{}", self.num),
            den => write!(f, "{}/{den}", self.num),
        }
    }
}

impl FromStr for FrameRate {
    type Err = BadFrameRate;

    fn from_str(text: &str) -> Result<Self, BadFrameRate> {
        let bad = || BadFrameRate { text: text.to_owned() };
        let (num, den) = text.split_once('/').unwrap_or((text, "1"));
        Self::new(num.parse().map_err(|_| bad())?, den.parse().map_err(|_| bad())?)
    }
}

impl TryFrom<String> for FrameRate {
    type Error = BadFrameRate;
    fn try_from(text: String) -> Result<Self, BadFrameRate> {
        text.parse()
    }
}

impl From<FrameRate> for String {
    fn from(rate: FrameRate) -> String {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_rate_is_written_and_read_as_the_same_fraction() {
        for text in ["25", "30000/1001", "1/2"] {
            assert_eq!(text.parse::<FrameRate>().unwrap().to_string(), text);
        }
        for text in ["", "0", "30/0", "-25", "1001", "x/y"] {
            assert!(text.parse::<FrameRate>().is_err(), "{text:?} was taken");
        }
    }
}
