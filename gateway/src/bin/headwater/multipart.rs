//! Reads `multipart/mixed` as a gateway answers a push: parts with a name and a length.
//!
//! ```text
//! --B CRLF  headers CRLF CRLF  Content-Length bytes  CRLF --B … --B--
//!     │        │ Part             │ Data …              │ PartEnd    │ End
//! ```
//! Bytes in, events out, no I/O. Strict: a part without a length, with a length that does not fit, or with a
//! name twice is an error, so that a cut-off answer never passes for a short rendition.

use bytes::{Buf, Bytes, BytesMut};
use headwater_protocol::RenditionName;

/// Headers of one part; ours are about 200 bytes.
const MAX_HEAD: usize = 8 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartHead {
    pub(crate) rendition: RenditionName,
    pub(crate) length: u64,
    /// Lower case, without parameters.
    pub(crate) content_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Part(PartHead),
    Data(Bytes),
    PartEnd,
    /// The last boundary was read; what may follow is not ours.
    End,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("the answer is {found:?}, not multipart/mixed with a boundary")]
    ContentType { found: String },
    #[error("the answer has no boundary where one must be")]
    Boundary,
    #[error("a part's headers are longer than {MAX_HEAD} bytes")]
    HeadTooLong,
    #[error("a part's header line {line:?} is not NAME: VALUE")]
    HeadLine { line: String },
    #[error("a part has no {0}")]
    Missing(&'static str),
    #[error("a part's {name} {value:?} cannot be understood")]
    Value { name: &'static str, value: String },
    #[error("the answer ends in the middle")]
    CutOff,
}

#[derive(Debug)]
enum State {
    /// At `--B`, or at CRLF `--B` after a part's data.
    Boundary {
        first: bool,
    },
    Head,
    Data {
        left: u64,
    },
    End,
}

#[derive(Debug)]
pub(crate) struct Parser {
    /// `--B`
    delimiter: Vec<u8>,
    buffer: BytesMut,
    state: State,
}

impl Parser {
    pub(crate) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let boundary = boundary(content_type)
            .ok_or_else(|| MultipartError::ContentType { found: content_type.to_owned() })?;
        let delimiter = [b"--", boundary.as_bytes()].concat();
        Ok(Self { delimiter, buffer: BytesMut::new(), state: State::Boundary { first: true } })
    }

    /// Takes what came from the network. Call [`next`](Self::next) until it is None before more is fed: then
    /// the buffer never holds more than one chunk and one head.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The body is over.
    pub(crate) fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::End => Ok(()),
            State::Boundary { .. } | State::Head | State::Data { .. } => Err(MultipartError::CutOff),
        }
    }

    /// The next event, or None where more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            match self.state {
                State::End => return Ok(None),
                State::Boundary { first } => {
                    let lead: &[u8] = if first { b"" } else { b"\r\n" };
                    let expected = [lead, self.delimiter.as_slice()].concat();
                    let have = self.buffer.len().min(expected.len());
                    if self.buffer[..have] != expected[..have] {
                        return Err(MultipartError::Boundary);
                    }
                    let Some(tail) = self.buffer.get(expected.len()..expected.len() + 2) else {
                        return Ok(None);
                    };
                    self.state = match tail {
                        b"\r\n" => State::Head,
                        b"--" => State::End,
                        _ => return Err(MultipartError::Boundary),
                    };
                    self.buffer.advance(expected.len() + 2);
                    if matches!(self.state, State::End) {
                        return Ok(Some(Event::End));
                    }
                }
                State::Head => {
                    let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
                        if self.buffer.len() > MAX_HEAD {
                            return Err(MultipartError::HeadTooLong);
                        }
                        return Ok(None);
                    };
                    if end > MAX_HEAD {
                        return Err(MultipartError::HeadTooLong);
                    }
                    let head = parse_head(&self.buffer[..end])?;
                    self.buffer.advance(end + 4);
                    self.state = State::Data { left: head.length };
                    return Ok(Some(Event::Part(head)));
                }
                State::Data { left: 0 } => {
                    self.state = State::Boundary { first: false };
                    return Ok(Some(Event::PartEnd));
                }
                State::Data { left } => {
                    if self.buffer.is_empty() {
                        return Ok(None);
                    }
                    let take = left.min(self.buffer.len() as u64) as usize;
                    self.state = State::Data { left: left - take as u64 };
                    return Ok(Some(Event::Data(self.buffer.split_to(take).freeze())));
                }
            }
        }
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let value = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?
        .1
        .trim()
        .trim_matches('"');
    let ok = (1..=70).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    ok.then(|| value.to_owned())
}

fn parse_head(bytes: &[u8]) -> Result<PartHead, MultipartError> {
    let text = String::from_utf8_lossy(bytes);
    let (mut rendition, mut length, mut content_type) = (None, None, String::new());
    for line in text.split("\r\n") {
        let (name, value) =
            line.split_once(':').ok_or_else(|| MultipartError::HeadLine { line: line.to_owned() })?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("Content-Length") {
            let bad = || MultipartError::Value { name: "Content-Length", value: value.to_owned() };
            if !value.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            length = Some(value.parse::<u64>().map_err(|_| bad())?);
        } else if name.eq_ignore_ascii_case("Rendition-Name") {
            // The name becomes a folder: only what is safe as one gets through.
            let name = RenditionName::new(value);
            let bad = |_| MultipartError::Value { name: "Rendition-Name", value: value.to_owned() };
            rendition = Some(name.map_err(bad)?);
        } else if name.eq_ignore_ascii_case("Content-Type") {
            content_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        }
    }
    Ok(PartHead {
        rendition: rendition.ok_or(MultipartError::Missing("Rendition-Name"))?,
        length: length.ok_or(MultipartError::Missing("Content-Length"))?,
        content_type,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/mixed; boundary=94eaf473f7957940e066";

    /// To the byte what Livepeer's gateway writes.
    fn answer(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (index, (name, data)) in parts.iter().enumerate() {
            let lead = if index == 0 { "" } else { "\r\n" };
            body.extend_from_slice(
                format!(
                    "{lead}--94eaf473f7957940e066\r\nContent-Disposition: attachment; filename=\"{name}_10.ts\"\r\n\
                     Content-Length: {}\r\nContent-Type: video/MP2T; name=\"{name}_10.ts\"\r\nRendition-Name: {name}\r\n\r\n",
                    data.len()
                )
                .as_bytes(),
            );
            body.extend_from_slice(data);
        }
        body.extend_from_slice(b"\r\n--94eaf473f7957940e066--\r\n");
        body
    }

    /// Names and bytes, read in chunks of this size.
    fn read(body: &[u8], chunk: usize) -> Result<Vec<(String, Vec<u8>)>, MultipartError> {
        let mut parser = Parser::new(TYPE)?;
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        for bytes in body.chunks(chunk) {
            parser.feed(bytes);
            while let Some(event) = parser.next()? {
                match event {
                    Event::Part(head) => {
                        assert_eq!(head.content_type, "video/mp2t");
                        parts.push((head.rendition.to_string(), Vec::new()));
                    }
                    Event::Data(data) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                    Event::PartEnd | Event::End => {}
                }
            }
        }
        parser.finish()?;
        Ok(parts)
    }

    #[test]
    fn an_answer_is_read_the_same_however_the_network_cuts_it() {
        // A boundary inside the data must not end the part.
        let data = b"x\r\n--94eaf473f7957940e066--\r\n";
        let body = answer(&[("P240p30fps16x9", data), ("empty", b""), ("b", b"0123")]);
        for chunk in 1..=body.len() {
            let parts = read(&body, chunk).unwrap();
            assert_eq!(parts[0], ("P240p30fps16x9".to_owned(), data.to_vec()));
            assert_eq!(parts[1].1, b"");
            assert_eq!(parts[2].1, b"0123");
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_anywhere_is_not_whole() {
        let body = answer(&[("a", b"0123456789"), ("b", b"0123")]);
        for end in 0..body.len() - 2 {
            assert!(read(&body[..end], 7).is_err(), "{end} of {} bytes passed as whole", body.len());
        }
    }

    #[test]
    fn what_is_not_to_the_letter_is_refused() {
        assert!(Parser::new("application/json").is_err());
        assert!(Parser::new("multipart/mixed").is_err());
        assert!(Parser::new("Multipart/Mixed; Boundary=\"a b\"").is_err());
        assert!(Parser::new("Multipart/Mixed; charset=x; Boundary=\"ab\"").is_ok());
        let text = |from: &str, to: &str| {
            let body = String::from_utf8(answer(&[("a", b"0123")])).unwrap().replace(from, to);
            read(body.as_bytes(), 9).unwrap_err().to_string()
        };
        assert!(text("Rendition-Name: a", "Rendition-Name: ../a").contains("Rendition-Name \"../a\""));
        assert!(text("Rendition-Name: a\r\n", "").contains("no Rendition-Name"));
        assert!(text("Content-Length: 4", "Content-Length: +4").contains("Content-Length"));
        assert!(text("Content-Length: 4", "Content-Length: 3").contains("no boundary"));
        assert!(text("Content-Length: 4\r\n", "").contains("no Content-Length"));
        let endless = [b"--94eaf473f7957940e066\r\n".as_slice(), &[b'a'; 3 * MAX_HEAD]].concat();
        assert_eq!(read(&endless, 1024), Err(MultipartError::HeadTooLong));
    }
}
