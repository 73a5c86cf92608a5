//! Signals and light: the published curves, in double precision. Only tables are made with them.
//!
//! Light is in nits (cd/m²) on the reference display.

/// Diffuse white in HDR production, and what SDR's white stands for here (ITU-R BT.2408-7, 2.2).
pub(super) const WHITE: f64 = 203.0;

/// Peak of a PQ picture that does not say its own; most are graded for it. HLG's nominal peak (BT.2100-2, note 5e).
pub(super) const PEAK: f64 = 1000.0;

/// What PQ's largest signal stands for.
const PQ_PEAK: f64 = 10_000.0;
// SMPTE ST 2084, as in BT.2100-2 table 4.
const M1: f64 = 2610.0 / 16384.0;
const M2: f64 = 2523.0 / 4096.0 * 128.0;
const C1: f64 = 3424.0 / 4096.0;
const C2: f64 = 2413.0 / 4096.0 * 32.0;
const C3: f64 = 2392.0 / 4096.0 * 32.0;

pub(super) fn pq_to_nits(signal: f64) -> f64 {
    let root = signal.clamp(0.0, 1.0).powf(1.0 / M2);
    PQ_PEAK * ((root - C1).max(0.0) / (C2 - C3 * root)).powf(1.0 / M1)
}

pub(super) fn nits_to_pq(nits: f64) -> f64 {
    let power = (nits / PQ_PEAK).clamp(0.0, 1.0).powf(M1);
    ((C1 + C2 * power) / (1.0 + C3 * power)).powf(M2)
}

/// HLG's inverse OETF: light of the scene, 1 at the largest signal (BT.2100-2 table 5).
pub(super) fn hlg_to_scene(signal: f64) -> f64 {
    const A: f64 = 0.178_832_77;
    const B: f64 = 1.0 - 4.0 * A;
    const C: f64 = 0.559_910_73;
    let signal = signal.clamp(0.0, 1.0);
    if signal <= 0.5 { signal * signal / 3.0 } else { (((signal - C) / A).exp() + B) / 12.0 }
}

/// HLG's OOTF on a display of [`PEAK`], whose gamma is 1.2: nits for each unit of the scene's light where the scene
/// has this luminance.
pub(super) fn hlg_ootf(luminance: f64) -> f64 {
    PEAK * luminance.max(0.0).powf(0.2)
}

/// SDR's EOTF is BT.1886 with black at zero: a pure power.
pub(super) fn sdr_to_nits(signal: f64) -> f64 {
    WHITE * signal.clamp(0.0, 1.0).powf(2.4)
}

pub(super) fn nits_to_sdr(nits: f64) -> f64 {
    (nits / WHITE).clamp(0.0, 1.0).powf(1.0 / 2.4)
}

/// The EETF of ITU-R BT.2390-11, 5.4.1, without its black level lift: light of a picture that goes up to `peak` as a
/// display shows it that goes up to [`WHITE`]. The lower part stays as it is, the upper is bent below white.
pub(super) fn eetf(nits: f64, peak: f64) -> f64 {
    if peak <= WHITE {
        return nits.min(WHITE);
    }
    let whole = nits_to_pq(peak);
    let signal = (nits_to_pq(nits) / whole).min(1.0);
    let top = nits_to_pq(WHITE) / whole;
    let knee = 1.5 * top - 0.5;
    if signal < knee {
        return nits;
    }
    let t = (signal - knee) / (1.0 - knee);
    let (square, cube) = (t * t, t * t * t);
    let bent = (2.0 * cube - 3.0 * square + 1.0) * knee
        + (cube - 2.0 * square + t) * (1.0 - knee)
        + (3.0 * square - 2.0 * cube) * top;
    pq_to_nits(bent * whole)
}

/// Light of other primaries as light of BT.709's.
pub(super) type Gamut = [[f64; 3]; 3];

pub(super) const SAME: Gamut = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// ITU-R BT.2407-0, 2, with the digits that it rounds: worked out from the chromaticities of both.
pub(super) const BT2020: Gamut =
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]];

/// P3 with white D65 (SMPTE EG 432-1), worked out from the chromaticities of both.
pub(super) const P3: Gamut =
    [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]];

#[cfg(test)]
pub(super) fn convert(gamut: &Gamut, light: [f64; 3]) -> [f64; 3] {
    gamut.map(|row| row.iter().zip(light).map(|(share, light)| share * light).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64, by: f64) {
        assert!((got - want).abs() <= by, "{got} is not {want}");
    }

    #[test]
    fn signals_stand_for_the_light_that_the_reports_print() {
        // BT.2408-7 table 1: diffuse white, 18 % grey, and the HLG signal of white.
        near(nits_to_pq(203.0), 0.58, 0.005);
        near(nits_to_pq(26.0), 0.38, 0.005);
        let hlg = |signal| hlg_to_scene(signal) * hlg_ootf(hlg_to_scene(signal));
        near(hlg(0.75), 203.0, 1.0);
        near(hlg(0.38), 26.0, 0.6);
        near(hlg(1.0), 1000.0, 1.0);
        // ST 2084: half the signal.
        near(pq_to_nits(0.5), 92.25, 0.01);
        for nits in [0.01, 1.0, 100.0, 4000.0] {
            near(pq_to_nits(nits_to_pq(nits)), nits, nits * 1e-6);
        }
    }

    #[test]
    fn the_tone_curve_keeps_what_is_dark_bends_what_is_bright_and_never_turns() {
        near(eetf(26.0, PEAK), 26.0, 1e-9);
        near(eetf(PEAK, PEAK), WHITE, 0.01);
        near(eetf(4000.0, PEAK), WHITE, 0.01);
        near(eetf(150.0, WHITE), 150.0, 1e-9);
        let steps: Vec<f64> = (0..=1000).map(|nits| eetf(f64::from(nits), PEAK)).collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1] + 1e-9));
        // Diffuse white keeps most of SDR's range, and highlights have the rest.
        near(nits_to_sdr(eetf(WHITE, PEAK)), 0.90, 0.01);
    }

    #[test]
    fn white_is_white_in_all_primaries() {
        for gamut in [SAME, BT2020, P3] {
            for light in convert(&gamut, [WHITE; 3]) {
                near(light, WHITE, 0.1);
            }
        }
    }
}
