//! Which of two versions is newer: Debian's order, which also orders `0.2.0` and `2026.11.3` as people mean it.

use std::cmp::Ordering;

/// As `dpkg --compare-versions`: epoch, then upstream, then revision; `~` comes before everything, even the end.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    let epochs = a.0.cmp(&b.0);
    epochs.then_with(|| piecewise(a.1, b.1)).then_with(|| piecewise(a.2, b.2))
}

/// Whether `wanted` is older than what `runs`. What was flashed may not say what it is, and then nothing is.
pub fn takes_back(wanted: &str, runs: &str) -> bool {
    !runs.is_empty() && compare(wanted, runs).is_lt()
}

fn parts(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
    (epoch, upstream, revision)
}

/// By turns what is no digit, letter for letter, and numbers.
fn piecewise(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (words_a, words_b) = (take(&mut a, false), take(&mut b, false));
        let by_words = words(words_a, words_b);
        let (number_a, number_b) = (take(&mut a, true), take(&mut b, true));
        let order = by_words.then_with(|| numbers(number_a, number_b));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn take<'a>(text: &mut &'a str, digits: bool) -> &'a str {
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

fn words(a: &str, b: &str) -> Ordering {
    // The end sorts before letters and letters before signs, but `~` before the end.
    let weight = |c: Option<char>| match c {
        Some('~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        Some(c) => i64::from(u32::from(c)) + 256,
    };
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        let (x, y) = (a.next(), b.next());
        if x.is_none() && y.is_none() {
            return Ordering::Equal;
        }
        let order = weight(x).cmp(&weight(y));
        if order.is_ne() {
            return order;
        }
    }
}

fn numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let rising = [
            "0.1.0~rc1",
            "0.1.0",
            "0.1.0-1",
            "0.1.0-1+b1",
            "0.1.0-2",
            "0.1.1",
            "0.2.0",
            "0.10.0",
            "1.0",
            "2026.9.1",
            "2026.11.3",
            "1:0.1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("0.1.00", "0.1.0"), Ordering::Equal);
    }
}
