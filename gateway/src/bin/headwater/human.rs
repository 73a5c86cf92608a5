//! Spans, sizes and rates as people write and read them.

use std::time::Duration;

use headwater_protocol::update::Window;

/// `2s`, `500ms`, `1h30m`; a bare number is seconds.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a span; write 500ms, 2s, 90m, 24h or 7d");
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let seconds = match unit {
            "ms" => number / 1e3,
            "s" => number,
            "" if tail.is_empty() => number,
            "m" | "min" => number * 60.0,
            "h" => number * 3600.0,
            "d" => number * 86_400.0,
            _ => return Err(bad()),
        };
        total =
            Duration::try_from_secs_f64(seconds).ok().and_then(|s| total.checked_add(s)).ok_or_else(bad)?;
        rest = tail;
    }
    // Longer than anyone means; keeps sums of deadlines from overflowing.
    if total.is_zero() || total > Duration::from_secs(10 * 366 * 86_400) {
        return Err(bad());
    }
    Ok(total)
}

/// `3M`, `800k`, `2.5G`, decimal.
fn parse_scaled(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, factor) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1e3),
        'M' | 'm' => (&text[..text.len() - 1], 1e6),
        'G' | 'g' => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let value = number.trim().parse::<f64>().ok()? * factor;
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// `02:00-05:00`, each day.
pub(crate) fn parse_window(text: &str) -> Result<Window, String> {
    let bad = || format!("{text:?} is not a span of the day; write 02:00-05:00");
    let minutes = |text: &str| {
        let (hours, minutes) = text.trim().split_once(':')?;
        let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
    };
    let (from, until) = text.split_once('-').ok_or_else(bad)?;
    Ok(Window { from: minutes(from).ok_or_else(bad)?, until: minutes(until).ok_or_else(bad)? })
}

pub(crate) fn window(window: Window) -> String {
    let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    format!("{}-{} UTC", clock(window.from), clock(window.until))
}

pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let number = text.trim().trim_end_matches(['B', 'b']).trim_end_matches('i');
    match parse_scaled(number) {
        Some(value) if (1.0..1e18).contains(&value) => Ok(value as u64),
        Some(_) | None => Err(format!("{text:?} is not a size; write 500M or 16G")),
    }
}

pub(crate) fn parse_bitrate(text: &str) -> Result<u32, String> {
    let number = text.trim().trim_end_matches("bit/s").trim_end_matches("b/s").trim_end_matches("bps");
    match parse_scaled(number) {
        Some(value) if value <= f64::from(u32::MAX) => Ok(value.round() as u32),
        Some(_) | None => Err(format!("{text:?} is not a bitrate; write 3M, 800k or 250000")),
    }
}

pub(crate) fn bytes(count: u64) -> String {
    scaled(count as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// Bits per second.
pub(crate) fn bitrate(bits: f64) -> String {
    scaled(bits, &["b/s", "kb/s", "Mb/s", "Gb/s"])
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0)
        * if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
    format!("{value:.decimals$} {}", units[unit])
}

/// Frames per second: `25`, `29.97`.
pub(crate) fn rate(fps: f64) -> String {
    let text = format!("{fps:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How long something is valid, as it is asked for: `24 h`, `90 min`.
pub(crate) fn validity(span: Duration) -> String {
    match span.as_secs() {
        s if s > 0 && s % 86_400 == 0 && s > 86_400 => format!("{} days", s / 86_400),
        s if s > 0 && s % 3600 == 0 => format!("{} h", s / 3600),
        s if s > 0 && s % 60 == 0 => format!("{} min", s / 60),
        _ => self::span(span),
    }
}

/// A span of media or of waiting: `0.45 s`, `12.3 s`, `2:05`, `1:02:03`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    let whole = span.as_secs();
    if seconds < 9.995 {
        format!("{seconds:.2} s")
    } else if seconds < 99.95 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        format!("{}:{:02}", whole / 60, whole % 60)
    } else {
        format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
    }
}

pub(crate) fn ms(millis: u64) -> String {
    if millis < 1000 { format!("{millis} ms") } else { span(Duration::from_millis(millis)) }
}

/// How long ago, coarsely; times from a clock that runs ahead read as now.
pub(crate) fn ago(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..=1 => "now".to_owned(),
        2..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        172_800.. => format!("{} days ago", seconds / 86_400),
    }
}

/// `count` things, with an s where it needs one.
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Text from elsewhere for a terminal: one line, no control characters, not endless.
pub(crate) fn tame(text: &str) -> String {
    let mut tame: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    if text.trim().chars().count() > 400 {
        tame.push('…');
    }
    tame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        let ms = |text| parse_span(text).map(|span| span.as_millis());
        assert_eq!(ms("2s"), Ok(2000));
        assert_eq!(ms("2"), Ok(2000));
        assert_eq!(ms("1.5s"), Ok(1500));
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        for text in ["", "0", "0s", "-2s", "2x", "s", "1e9d", "5 parsecs", "99999999d"] {
            assert!(parse_span(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_span_of_the_day_may_pass_midnight() {
        assert_eq!(parse_window("22:30-4:00").map(window), Ok("22:30-04:00 UTC".to_owned()));
        for text in ["", "2-5", "24:00-01:00", "02:60-03:00", "02:00"] {
            assert!(parse_window(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn sizes_and_rates_go_both_ways() {
        assert_eq!(parse_bitrate("3M"), Ok(3_000_000));
        assert_eq!(parse_bitrate("1.6Mb/s"), Ok(1_600_000));
        assert_eq!(parse_bitrate("250kbps"), Ok(250_000));
        assert!(parse_bitrate("-1").is_err() && parse_bitrate("9G").is_err() && parse_bitrate("").is_err());
        assert_eq!(parse_bytes("16G"), Ok(16_000_000_000));
        assert!(parse_bytes("0").is_err());
        assert_eq!(bitrate(3_000_000.0), "3.00 Mb/s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_234_567), "1.23 MB");
        assert_eq!(span(Duration::from_millis(125_400)), "2:05");
        assert_eq!([25.0, 29.97, 60.0, 0.5].map(rate), ["25", "29.97", "60", "0.5"]);
        let valid = |seconds| validity(Duration::from_secs(seconds));
        assert_eq!([86_400, 604_800, 5400, 90].map(valid), ["24 h", "7 days", "90 min", "90.0 s"]);
        assert_eq!(ago(10_000, 12_000), "now");
        assert_eq!(tame("a\x1b[31m\nb"), "a [31m b");
    }
}
