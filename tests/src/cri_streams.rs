//! A client of exec, attach and port-forward, by WebSocket and by SPDY/3.1, as those of Kubernetes are.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came in a session.
#[derive(Debug, Default)]
pub struct Said {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// What came in the stream for errors: the end.
    pub status: String,
}

impl Said {
    /// The exit code that the end tells.
    ///
    /// # Panics
    /// It is not a status.
    #[track_caller]
    pub fn code(&self) -> i32 {
        let status: Value = serde_json::from_str(&self.status).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        match status["status"].as_str() {
            Some("Success") => 0,
            _ => {
                assert_eq!(status["reason"], "NonZeroExitCode", "{self:?}");
                status["details"]["causes"][0]["message"].as_str().and_then(|text| text.parse().ok()).expect("a code")
            }
        }
    }
}

/// Connects to the host of a URL; the path that is left.
#[track_caller]
fn connect(url: &str) -> (TcpStream, String) {
    let (host, path) = url.strip_prefix("http://").expect("http://").split_once('/').expect("a path");
    assert!(host.starts_with("127.0.0.1:"), "{url}");
    let stream = TcpStream::connect(host).expect("connect to the streaming server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("nodelay");
    (stream, format!("/{path}"))
}

/// What a plain request is answered.
#[track_caller]
pub fn status_line(url: &str) -> String {
    let (mut stream, path) = connect(url);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    head(&mut stream).lines().next().unwrap_or_default().to_owned()
}

/// The head of an answer, and nothing of what follows.
#[track_caller]
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

/// A session by WebSocket.
#[derive(Debug)]
pub struct Channels(WebSocket<TcpStream>);

impl Channels {
    /// Connects with this version of the protocol.
    #[track_caller]
    pub fn connect(url: &str, version: &str) -> Self {
        let (stream, path) = connect(url);
        let host = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let mut request = format!("ws://{host}{path}").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", version.parse().expect("a version"));
        let (socket, response) = tokio_tungstenite::tungstenite::client(request, stream).expect("a handshake");
        assert_eq!(response.headers()["sec-websocket-protocol"], version);
        Self(socket)
    }

    /// Sends to a channel.
    #[track_caller]
    pub fn send(&mut self, channel: u8, bytes: &[u8]) {
        self.0.send(Message::binary([&[channel], bytes].concat())).expect("send");
    }

    /// Reads until what came so far is enough.
    #[track_caller]
    pub fn read_until(&mut self, said: &mut Said, is_enough: impl Fn(&Said) -> bool) {
        while !is_enough(said) {
            match self.0.read().expect("a message") {
                Message::Binary(bytes) => {
                    let (channel, rest) = bytes.split_first().expect("a channel");
                    let text = String::from_utf8_lossy(rest);
                    match channel {
                        1 => said.stdout.push_str(&text),
                        2 => said.stderr.push_str(&text),
                        3 => said.status.push_str(&text),
                        other => panic!("channel {other}: {text}"),
                    }
                }
                Message::Close(_) => panic!("closed: {said:?}"),
                _ => {}
            }
        }
    }

    /// What came in each channel until the server closed the connection, with `count` channels.
    #[track_caller]
    pub fn all(mut self, count: usize) -> Vec<Vec<u8>> {
        let mut came = vec![Vec::new(); count];
        loop {
            match self.0.read().expect("a message") {
                Message::Binary(bytes) => came[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
                Message::Close(_) => return came,
                _ => {}
            }
        }
    }

    /// Reads to the end.
    #[track_caller]
    pub fn finish(mut self) -> Said {
        let mut said = Said::default();
        self.read_until(&mut said, |said| !said.status.is_empty());
        said
    }
}

/// A connection in the messages of a WebSocket.
#[derive(Debug)]
struct Tunnel {
    socket: WebSocket<TcpStream>,
    /// What came and was not read yet.
    came: Vec<u8>,
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.came.is_empty() {
            match self.socket.read().map_err(std::io::Error::other)? {
                Message::Binary(bytes) => self.came = bytes.to_vec(),
                Message::Close(_) => return Ok(0),
                _ => {}
            }
        }
        let length = buffer.len().min(self.came.len());
        buffer[..length].copy_from_slice(&self.came[..length]);
        self.came.drain(..length);
        Ok(length)
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.socket.send(Message::binary(bytes.to_vec())).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush().map_err(std::io::Error::other)
    }
}

/// What SPDY is spoken over.
trait Connection: Read + Write + std::fmt::Debug {}

impl<C: Read + Write + std::fmt::Debug> Connection for C {}

/// A session by SPDY.
#[derive(Debug)]
pub struct Spdy {
    stream: Box<dyn Connection>,
    next: u32,
    begun: bool,
    /// What came in each stream, and whether it is at its end.
    came: BTreeMap<u32, (Vec<u8>, bool)>,
}

impl Spdy {
    /// Connects with this version of the protocol.
    #[track_caller]
    pub fn connect(url: &str, version: &str) -> Self {
        let (mut stream, path) = connect(url);
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\
             X-Stream-Protocol-Version: {version}\r\n\r\n"
        )
        .expect("a request");
        let head = head(&mut stream).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains(&format!("x-stream-protocol-version: {version}\r\n")), "{head}");
        Self::over(stream)
    }

    /// Connects by WebSocket, with SPDY in its messages, as clients forward ports.
    #[track_caller]
    pub fn tunneled(url: &str) -> Self {
        let Channels(socket) = Channels::connect(url, "SPDY/3.1+portforward.k8s.io");
        Self::over(Tunnel { socket, came: Vec::new() })
    }

    fn over(stream: impl Connection + 'static) -> Self {
        Self { stream: Box::new(stream), next: 1, begun: false, came: BTreeMap::new() }
    }

    /// Opens a stream with these headers; its number.
    #[track_caller]
    pub fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let length = |text: &str| u32::try_from(text.len()).expect("a length").to_be_bytes();
        let mut block = u32::try_from(headers.len()).expect("a number").to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(length(text));
            block.extend(text.as_bytes());
        }
        // zlib, stored as it is
        let size = u16::try_from(block.len()).expect("short headers");
        let mut body = if std::mem::replace(&mut self.begun, true) { Vec::new() } else { vec![0x78, 0x01] };
        body.push(0);
        body.extend(size.to_le_bytes());
        body.extend((!size).to_le_bytes());
        body.extend(block);
        let id = self.next;
        self.next += 2;
        let body = [&id.to_be_bytes()[..], &[0; 6], &body].concat();
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend(u32::try_from(body.len()).expect("a length").to_be_bytes());
        frame.extend(body);
        self.stream.write_all(&frame).expect("open a stream");
        self.came.insert(id, Default::default());
        id
    }

    /// Writes to a stream, and maybe ends it.
    #[track_caller]
    pub fn write(&mut self, id: u32, bytes: &[u8], end: bool) {
        let mut frame = id.to_be_bytes().to_vec();
        frame.extend((u32::try_from(bytes.len()).expect("a length") | u32::from(end) << 24).to_be_bytes());
        frame.extend(bytes);
        self.stream.write_all(&frame).expect("write to a stream");
    }

    /// What came in a stream so far.
    pub fn came(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.came[&id].0).into_owned()
    }

    /// Reads until what came in a stream is enough, or it ended.
    #[track_caller]
    pub fn read_until(&mut self, id: u32, is_enough: impl Fn(&str) -> bool) -> String {
        while !self.came[&id].1 && !is_enough(&self.came(id)) {
            let mut head = [0; 8];
            self.stream.read_exact(&mut head).expect("a frame");
            let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).expect("the rest of a frame");
            if word >> 31 == 0 {
                let stream = self.came.get_mut(&word).expect("a stream of ours");
                stream.0.extend(body);
                stream.1 |= head[4] & 1 == 1;
            }
        }
        self.came(id)
    }

    /// Reads to the end of a stream.
    #[track_caller]
    pub fn read(&mut self, id: u32) -> String {
        self.read_until(id, |_| false)
    }
}
