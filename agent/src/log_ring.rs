//! The last lines of this program's log, kept in memory for whoever asks from afar; without secrets on their way out.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// One per process, as the log is.
static KEPT: OnceLock<Mutex<Ring>> = OnceLock::new();

/// Grows with what is said, so that a quiet agent pays nothing for it.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    most: usize,
}

impl Ring {
    pub(crate) fn new(most: usize) -> Self {
        Self { bytes: VecDeque::new(), most }
    }

    pub(crate) fn push(&mut self, line: &[u8]) {
        let line = &line[line.len().saturating_sub(self.most)..];
        let over = (self.bytes.len() + line.len()).saturating_sub(self.most);
        self.bytes.drain(..over);
        self.bytes.extend(line);
    }

    /// Whole lines.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes.iter().copied().collect::<Vec<_>>()).into_owned();
        // The first one may have lost its beginning.
        match text.split_once('\n') {
            Some((_, rest)) if self.bytes.len() == self.most => rest.to_owned(),
            Some(_) | None => text,
        }
    }
}

/// Standard error, and the ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tee;

pub(crate) fn keep(kib: u64) {
    // 256 at most, by the configuration's check. A second call changes nothing.
    let _ = KEPT.set(Mutex::new(Ring::new(usize::try_from(kib).unwrap_or(0) * 1024)));
}

impl io::Write for Tee {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(ring) = KEPT.get() {
            // Only whole lines are put in.
            ring.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        io::stderr().write_all(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Tee {
    type Writer = Tee;

    fn make_writer(&self) -> Tee {
        *self
    }
}

/// The end of the log, at most so many bytes of whole lines, without secrets.
pub(crate) fn text(most: usize) -> String {
    let ring = KEPT.get().map(|ring| ring.lock().unwrap_or_else(PoisonError::into_inner).text());
    end(&redact(&ring.unwrap_or_default()), most).to_owned()
}

/// The last whole lines of a text.
pub(crate) fn end(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let cut = text.len() - most;
    // Lines end in a byte that is never in the middle of a character.
    text.as_bytes()[cut - 1..].iter().position(|byte| *byte == b'\n').map_or("", |at| &text[cut + at..])
}

/// Replaces what must not leave the board: enrolment tokens, keys, passwords in addresses, and values of names that
/// say so. Rather too much than too little.
pub(crate) fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        in_key |= line.contains("-----BEGIN");
        if in_key {
            in_key = !line.contains("-----END");
            if !in_key {
                clean.push_str("(a key or certificate)\n");
            }
            continue;
        }
        let mut next = Next::Anything;
        for word in line.split_inclusive(|c: char| c.is_whitespace() || c == ',' || c == '&' || c == '?') {
            let bare = word.trim_end_matches(|c: char| c.is_whitespace() || c == ',' || c == '&' || c == '?');
            let rest = &word[bare.len()..];
            // Between two spaces there is no word.
            if !bare.is_empty() {
                let hidden;
                (hidden, next) = redact_word(bare, next);
                clean.push_str(&hidden);
            }
            clean.push_str(rest);
        }
    }
    clean
}

const HIDDEN: &str = "***";
/// Between a name and its value; `=>` too.
const SIGNS: [char; 3] = ['=', ':', '>'];
const NAMES: [&str; 7] = ["token", "password", "passwd", "secret", "authorization", "api_key", "private_key"];

/// What the words before say of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Anything,
    /// They end in a name like `password`, and a sign would make it that of a value.
    Sign,
    Secret,
}

fn plain(text: &str) -> &str {
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric())
}

/// The word as it may leave the board, and what it says of the next.
fn redact_word(word: &str, next: Next) -> (String, Next) {
    let lower = word.to_ascii_lowercase();
    let is_name = |text| NAMES.iter().any(|secret| plain(text).ends_with(secret));
    if matches!(plain(&lower), "bearer" | "basic") {
        return (word.to_owned(), Next::Secret);
    }
    if next == Next::Secret {
        return (HIDDEN.to_owned(), Next::Anything);
    }
    if let Some(at) = lower.find("hw1/") {
        return (format!("{}hw1/{HIDDEN}", &word[..at]), Next::Anything);
    }
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        return (format!("{scheme}://{HIDDEN}@{host}"), Next::Anything);
    }
    // `token=x`, `"password":"x"`, `secret: x`, `password = x`
    if let Some(at) = word.find(SIGNS)
        && (is_name(&lower[..at]) || at == 0 && next == Next::Sign)
    {
        let value = word[at..].trim_start_matches(SIGNS);
        if value.is_empty() {
            return (word.to_owned(), Next::Secret);
        }
        return (format!("{}{HIDDEN}", &word[..word.len() - value.len()]), Next::Anything);
    }
    (word.to_owned(), if is_name(&lower) { Next::Sign } else { Next::Anything })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_whole_lines() {
        let mut ring = Ring::new(16);
        assert_eq!(ring.text(), "");
        for line in ["first\n", "second\n", "third\n"] {
            ring.push(line.as_bytes());
        }
        assert_eq!(ring.text(), "second\nthird\n");
        ring.push(&[b'x'; 100]);
        assert_eq!(ring.bytes.len(), 16);
        let mut none = Ring::new(0);
        none.push(b"line\n");
        assert_eq!(none.text(), "");
    }

    #[test]
    fn the_end_of_a_text_begins_with_a_line() {
        assert_eq!(end("one\ntwo\nthree\n", 100), "one\ntwo\nthree\n");
        assert_eq!(end("one\ntwo\nthree\n", 10), "two\nthree\n");
        assert_eq!(end("one\ntwo\nthree\n", 9), "three\n");
        assert_eq!(end("ääääää\nb\n", 5), "b\n");
    }

    #[test]
    fn secrets_do_not_leave_the_board() {
        for (line, secret) in [
            ("enrolling with hw1/home/orin/aa/s3cret/https://gw:9936 now", "s3cret"),
            ("fetching https://user:s3cret@gw/x and more", "s3cret"),
            ("GET /x?token=s3cret&y=1", "s3cret"),
            ("proxy http://me:p@s3cret@proxy:3128", "s3cret"),
            ("Authorization: Bearer s3cret", "s3cret"),
            (r#"{"password":"s3cret","user":"me"}"#, "s3cret"),
            ("operator_secret: s3cret tail", "s3cret"),
            ("password = s3cret", "s3cret"),
            ("password =s3cret", "s3cret"),
            ("password= s3cret", "s3cret"),
            ("password : s3cret", "s3cret"),
            ("password: s3cret", "s3cret"),
            ("api_key\t=>  \"s3cret\"", "s3cret"),
            (r#"{ "password" : "s3cret" }"#, "s3cret"),
            ("token = !!!", "!!!"),
            ("-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n", "s3cret"),
        ] {
            let clean = redact(line);
            assert!(!clean.contains(secret), "{clean}");
        }
        let plain = "2026-11-24T20:00:00Z  INFO connected to the broker session_present=false ms=12\n";
        assert_eq!(redact(plain), plain);
        assert_eq!(redact("GET /x?token=s&y=1 on"), "GET /x?token=***&y=1 on");
        assert_eq!(redact("password  =  s here"), "password  =  *** here");
        let told = "the token was refused: it is used\n";
        assert_eq!(redact(told), told);
    }
}
