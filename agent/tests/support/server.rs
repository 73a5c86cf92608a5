//! The gateway's node address: enrolment, inputs, outputs. HTTP/1.1 over TLS, a thread for each connection.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use openssl::nid::Nid;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream, SslVerifyMode};
use serde_json::{Value, json};

use super::pki::Ca;
use super::{NODE, SECRET};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) inputs: HashMap<String, Vec<u8>>,
    pub(crate) outputs: HashMap<String, Vec<u8>>,
    /// Bodies that were cut.
    pub(crate) cut: Vec<String>,
    /// Paths under this are refused.
    pub(crate) refuse: Option<String>,
    /// Paths under this are thanked for before their bodies have come.
    pub(crate) hasty: Option<String>,
    /// Inputs under this stop after half of their bytes.
    pub(crate) stall: Option<String>,
    pub(crate) stalled: bool,
    /// The next answer under this is cut after half of its bytes.
    pub(crate) cut_once: Option<String>,
    /// First bytes of the ranges that were asked for.
    pub(crate) ranges: Vec<usize>,
    pub(crate) secrets_seen: Vec<String>,
    /// A path, and the status and the body that it is answered with.
    pub(crate) instead: Option<(&'static str, &'static str, &'static str)>,
    token_used: bool,
}

pub(crate) struct Server {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) connections: Arc<AtomicUsize>,
    port: u16,
}

impl Server {
    pub(crate) fn start(ca: &Ca, broker_port: u16) -> Self {
        let (certificate, key) = ca.server();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        acceptor.set_private_key(&key).unwrap();
        acceptor.set_certificate(&certificate).unwrap();
        acceptor.cert_store_mut().add_cert(ca.certificate.clone()).unwrap();
        acceptor.set_session_id_context(b"test").unwrap();
        // Optional: a node that enrols has none yet.
        acceptor.set_verify(SslVerifyMode::PEER);
        let acceptor = Arc::new(acceptor.build());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (ca, shared, count) = (ca.clone(), state.clone(), connections.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let (acceptor, state, ca) = (acceptor.clone(), shared.clone(), ca.clone());
                std::thread::spawn(move || {
                    socket.set_nodelay(true).unwrap();
                    let Ok(stream) = acceptor.accept(socket) else { return };
                    let mut connection =
                        Connection { stream: BufReader::new(stream), state, ca, broker_port };
                    while let Ok(true) = connection.serve() {}
                });
            }
        });
        Self { state, connections, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(crate) fn put_input(&self, path: &str, bytes: &[u8]) {
        self.state.lock().unwrap().inputs.insert(path.into(), bytes.into());
    }

    pub(crate) fn output(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().outputs.get(path).cloned()
    }
}

struct Connection {
    stream: BufReader<SslStream<TcpStream>>,
    state: Arc<Mutex<State>>,
    ca: Ca,
    broker_port: u16,
}

impl Connection {
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn peer(&self) -> Option<String> {
        let certificate = self.stream.get_ref().ssl().peer_certificate()?;
        let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next()?;
        String::from_utf8(name.data().as_slice().to_vec()).ok()
    }

    fn body(&mut self, length: Option<usize>, chunked: bool) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body)?;
        let mut more = chunked;
        while more {
            let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.line()?;
            more = size > 0;
        }
        Ok(body)
    }

    fn answer(&mut self, status: &str, body: &[u8]) -> io::Result<()> {
        // A body that was not read to its end spoils the connection.
        let close =
            if status.starts_with("507") || status.starts_with("204") { "Connection: close\r\n" } else { "" };
        let mut answer =
            format!("HTTP/1.1 {status}\r\n{close}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend(body);
        self.stream.get_mut().write_all(&answer)
    }

    fn serve(&mut self) -> io::Result<bool> {
        let request = self.line()?;
        let mut words = request.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (mut length, mut chunked, mut range) = (None, false, None);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().ok();
            }
            if let Some(value) = line.strip_prefix("range: bytes=") {
                range = value.trim_end_matches('-').parse().ok();
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        let refused =
            self.state.lock().unwrap().refuse.as_ref().is_some_and(|prefix| path.starts_with(prefix));
        if refused {
            self.answer("507 Insufficient Storage", b"no")?;
            return Ok(false);
        }
        let under = |prefix: &Option<String>| prefix.as_ref().is_some_and(|prefix| path.starts_with(prefix));
        if under(&self.state.lock().unwrap().hasty) {
            self.answer("204 No Content", b"")?;
            return Ok(false);
        }
        if under(&self.state.lock().unwrap().stall) {
            let input = self.state.lock().unwrap().inputs[&path].clone();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", input.len());
            self.stream.get_mut().write_all(head.as_bytes())?;
            self.stream.get_mut().write_all(&input[..input.len() / 2])?;
            self.state.lock().unwrap().stalled = true;
            // Until the other end hangs up.
            self.line()?;
            return Ok(false);
        }
        let body = match self.body(length, chunked) {
            Ok(body) => body,
            Err(error) => {
                self.state.lock().unwrap().cut.push(path);
                return Err(error);
            }
        };
        let instead = self.state.lock().unwrap().instead.filter(|(at, ..)| path == *at);
        if let Some((_, status, body)) = instead {
            self.answer(status, body.as_bytes())?;
            return Ok(false);
        }
        let own = self.peer().as_deref() == Some(NODE);
        match (method.as_str(), path.as_str()) {
            ("GET", "/enroll/v1/ca") => self.answer("200 OK", self.ca.pem().as_bytes())?,
            ("POST", "/enroll/v1/certificate") => {
                let request: Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
                let (status, answer) = self.enroll(&request);
                self.answer(status, answer.as_bytes())?;
            }
            ("GET", path) if own => {
                let input = self.state.lock().unwrap().inputs.get(path).cloned();
                match (input, range) {
                    (Some(input), Some(from)) => return self.range(path, &input, from),
                    (Some(input), None) => self.answer("200 OK", &input)?,
                    (None, _) => self.answer("404 Not Found", b"")?,
                }
            }
            ("PUT", path) if own => {
                self.state.lock().unwrap().outputs.insert(path.to_owned(), body);
                self.answer("201 Created", b"")?;
            }
            _ => self.answer("403 Forbidden", b"no certificate of a node")?,
        }
        Ok(true)
    }

    fn range(&mut self, path: &str, input: &[u8], from: usize) -> io::Result<bool> {
        let cut = {
            let mut state = self.state.lock().unwrap();
            state.ranges.push(from);
            state.cut_once.take_if(|prefix| path.starts_with(&**prefix)).is_some()
        };
        let part = &input[from.min(input.len())..];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
            input.len() - 1,
            input.len(),
            part.len()
        );
        self.stream.get_mut().write_all(head.as_bytes())?;
        self.stream.get_mut().write_all(if cut { &part[..part.len() / 2] } else { part })?;
        if cut {
            self.stream.get_mut().shutdown().map_err(io::Error::other)?;
        }
        Ok(!cut)
    }

    fn enroll(&self, request: &Value) -> (&'static str, String) {
        let mut state = self.state.lock().unwrap();
        let secret = request["secret"].as_str().unwrap().to_owned();
        state.secrets_seen.push(secret.clone());
        if secret != SECRET || std::mem::replace(&mut state.token_used, true) {
            return ("403 Forbidden", "this token was used already".into());
        }
        let grant = json!({
            "certificate": self.ca.sign(request["csr"].as_str().unwrap()),
            "ca": self.ca.pem(),
            "fleet": "home",
            "node": NODE,
            "broker_host": "127.0.0.1",
            "broker_port": self.broker_port,
        });
        ("200 OK", grant.to_string())
    }
}
