//! An HTTP server whose replies a test chooses, valid or not, and which records the requests.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET, HEAD…
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The headers, with their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers. `Content-Length` is added if it is not among them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Number of bytes of the body after which the connection is closed.
    pub cut: Option<usize>,
    /// Whether the body is repeated without end.
    pub endless: bool,
    /// Pause between blocks of 64 KiB.
    pub pause: Duration,
}

impl Reply {
    /// A reply without headers.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, pause) = (Vec::new(), Duration::ZERO);
        Self { status, headers, body: body.into(), cut: None, endless: false, pause }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// The server, which runs until the test's process ends.
pub struct Server {
    /// `localhost:PORT`
    pub host: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.host)
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

impl Server {
    /// Starts it; with a certificate and its key it uses TLS.
    pub fn start(tls: Option<(&Path, &Path)>, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let host = format!("localhost:{}", listener.local_addr().expect("an address").port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let tls = tls.map(|(certificate, key)| Arc::new(config(certificate, key)));
        let handler: Arc<Handler> = Arc::new(handler);
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tls) = (stream.expect("accept"), tls.clone());
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                std::thread::spawn(move || {
                    // A client may close the connection at any time.
                    let _ = match tls {
                        Some(config) => {
                            let connection = ServerConnection::new(config).expect("TLS");
                            serve(StreamOwned::new(connection, stream), &*handler, &log)
                        }
                        None => serve(stream, &*handler, &log),
                    };
                });
            }
        });
        Self { host, asked }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("the log").clone()
    }
}

fn config(certificate: &Path, key: &Path) -> ServerConfig {
    let chain = CertificateDer::pem_file_iter(certificate).expect("certificate").map(|one| one.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(key).expect("key");
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key")
}

/// Serves one request on a connection.
fn serve<S: Read + Write>(stream: S, handler: &Handler, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut request = Request { method, path, headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length: usize = request.header("content-length").map_or(0, |text| text.parse().expect("a length"));
    request.body = vec![0; length];
    stream.read_exact(&mut request.body)?;
    log.lock().expect("the log").push(request.clone());
    let reply = handler(&request);
    let out = stream.get_mut();
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let has_length = reply.endless || reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !has_length {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    out.write_all(head.as_bytes())?;
    out.write_all(b"\r\n")?;
    if request.method != "HEAD" {
        let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
        loop {
            for block in body.chunks(1 << 16) {
                out.write_all(block)?;
                out.flush()?;
                std::thread::sleep(reply.pause);
            }
            if !reply.endless {
                break;
            }
        }
    }
    out.flush()
}

/// The reply with the part of a body that the request's `Range` header asks for.
pub fn ranged(request: &Request, body: &[u8]) -> Reply {
    let from = request.header("range").and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from {
        None => Reply::new(200, body),
        Some(from) if from >= body.len() => Reply::new(416, ""),
        Some(from) => Reply::new(206, &body[from..])
            .header("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())),
    }
}

/// A proxy that connects to servers on this machine, whatever the host name. It records `HOST:PORT` and the value of
/// `Proxy-Authorization` of each request.
#[derive(Debug)]
pub struct Proxy {
    /// `127.0.0.1:PORT`
    pub host: String,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Proxy {
    /// Starts it; it runs until the test's process ends.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let host = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, log) = (stream.expect("accept"), Arc::clone(&log));
                // A client may close the connection at any time.
                std::thread::spawn(move || drop(connect(&stream, &log)));
            }
        });
        Self { host, asked }
    }

    /// All requests so far: `HOST:PORT` and `Proxy-Authorization`.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().expect("the log").clone()
    }
}

fn connect(mut client: &TcpStream, log: &Mutex<Vec<(String, String)>>) -> std::io::Result<()> {
    let mut head = BufReader::new(client);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let target = line.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    let mut who = String::new();
    loop {
        let mut line = String::new();
        head.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("proxy-authorization") {
            value.trim().clone_into(&mut who);
        }
    }
    let port: u16 = target.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default();
    log.lock().expect("the log").push((target, who));
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut to, mut from) = (server.try_clone()?, client.try_clone()?);
    let up = std::thread::spawn(move || {
        std::io::copy(&mut from, &mut to)?;
        to.shutdown(Shutdown::Write)
    });
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)?;
    up.join().unwrap_or(Ok(()))
}
