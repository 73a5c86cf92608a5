//! A client of the push interface, and a strict reader of its multipart answer.

use anyhow::{Context as _, Result, ensure};
use reqwest::header::{HeaderMap, HeaderValue};

/// One pushed segment's answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub rendition: String,
    pub filename: String,
    pub content_type: String,
    pub data: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The renditions; fails where one byte is not as the push interface promises.
    pub fn parts(&self) -> Result<Vec<Part>> {
        ensure!(self.status == 200, "status {}: {}", self.status, self.text());
        let kind = self.headers.get("content-type").context("no content type")?.to_str()?;
        let boundary = kind.strip_prefix("multipart/mixed; boundary=").with_context(|| kind.to_owned())?;
        let mut rest = self.body.as_slice();
        let mut parts = Vec::new();
        let open = format!("--{boundary}\r\n");
        let close = format!("--{boundary}--\r\n");
        while rest != close.as_bytes() {
            rest = rest.strip_prefix(open.as_bytes()).context("no boundary where one must be")?;
            let end = rest.windows(4).position(|w| w == b"\r\n\r\n").context("headers without end")?;
            let head = std::str::from_utf8(&rest[..end])?;
            rest = &rest[end + 4..];
            let lines: Vec<&str> = head.split("\r\n").collect();
            let [disposition, length, content_type, name] = lines[..] else {
                anyhow::bail!("a part has other headers: {head:?}");
            };
            let after = |line: &str, prefix: &str| {
                line.strip_prefix(prefix)
                    .map(str::to_owned)
                    .with_context(|| format!("{line:?} is not {prefix:?}…"))
            };
            let filename = after(disposition, "Content-Disposition: attachment; filename=")?;
            let length: usize = after(length, "Content-Length: ")?.parse()?;
            ensure!(rest.len() > length, "a part is cut off");
            let (data, tail) = rest.split_at(length);
            rest = tail.strip_prefix(b"\r\n").context("no line end after a part")?;
            parts.push(Part {
                rendition: after(name, "Rendition-Name: ")?,
                filename: filename.trim_matches('"').to_owned(),
                content_type: after(content_type, "Content-Type: ")?,
                data: data.to_owned(),
            });
        }
        Ok(parts)
    }
}

/// One push with headers as given.
#[derive(Debug)]
pub struct Push<'a> {
    pub url: String,
    /// The `Livepeer-Transcode-Configuration`.
    pub configuration: Option<&'a str>,
    pub duration_ms: u64,
    pub multipart: bool,
}

impl Push<'_> {
    pub async fn send(&self, client: &reqwest::Client, body: impl Into<reqwest::Body>) -> Result<Answer> {
        let mut request = client.post(&self.url).header("Content-Duration", self.duration_ms.to_string());
        if self.multipart {
            request = request.header("Accept", "multipart/mixed");
        }
        if let Some(configuration) = self.configuration {
            request = request.header(
                "Livepeer-Transcode-Configuration",
                HeaderValue::from_str(&configuration.replace('\n', " "))?,
            );
        }
        let response = request.body(body).send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?.to_vec(),
        })
    }
}
