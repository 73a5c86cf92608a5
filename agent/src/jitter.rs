//! Pauses before another try, so that a thousand nodes do not come at once.

use std::time::Duration;

/// Full jitter: anything from nothing to `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness every node would come at once, which is still better than not coming.
    let share = match openssl::rand::rand_bytes(&mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    };
    most.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_over_the_whole_span_and_never_longer() {
        let pauses: Vec<_> = (0..200).map(|_| jitter(Duration::from_secs(10))).collect();
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(10)));
        assert!(pauses.iter().any(|pause| *pause < Duration::from_secs(5)));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_secs(5)));
    }
}
