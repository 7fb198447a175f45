//! The requests of health checks: an HTTP GET or a TCP connection, from the pod's network and outside of its apps. So an
//! app's image needs no program for them. Pod side.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::appc::Request;
use crate::error::{Context, Error, Result};
use crate::pod::Check;

/// The most bytes of an answer that are read.
const MOST: usize = 16 << 10;

/// Exit code of the error of a request that has timed out, as of timeout(1).
const TIMED_OUT: u8 = 124;

/// The time of a request.
#[derive(Clone, Copy)]
struct Limit {
    timeout: Duration,
    end: Instant,
}

impl Limit {
    /// The time that is left, which is not zero.
    fn left(self) -> Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.timed_out()) } else { Ok(left) }
    }

    fn timed_out(self) -> Error {
        Error::new(format!("timed out after {}", in_seconds(self.timeout))).with_exit_code(TIMED_OUT)
    }

    /// The error for what a call said; a socket's timeout is [`ErrorKind::WouldBlock`].
    fn error(self, error: std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.timed_out(),
            ErrorKind::ConnectionRefused => Error::new("connection refused"),
            _ => Error::caused_by("the request failed", error),
        }
    }
}

/// A time in words: `1 s`, `0.5 s`.
pub(super) fn in_seconds(time: Duration) -> String {
    format!("{} s", time.as_millis() as f64 / 1000.0)
}

/// Makes the request. It succeeds if the port takes a connection and, for HTTP, answers with a status from 200 to 399.
pub(super) fn ask(request: &Request, timeout: Duration) -> Check {
    let limit = Limit { timeout, end: Instant::now() + timeout };
    let status = connect(request, limit).and_then(|stream| match &request.http_path {
        Some(path) => get(stream, request, path, limit).map(Some),
        None => Ok(None),
    });
    match status {
        Ok(None) => Check { exit_code: Some(0), output: String::new() },
        Ok(Some(status)) => {
            Check { exit_code: Some(u8::from(!(200..400).contains(&status))), output: format!("HTTP status {status}") }
        }
        Err(error) => {
            let exit_code = (error.exit_code() != Some(TIMED_OUT)).then_some(1);
            Check { exit_code, output: error.one_line() }
        }
    }
}

/// Connects to the first of the host's addresses that takes it; else the error of the first address.
fn connect(request: &Request, limit: Limit) -> Result<TcpStream> {
    let mut failed = None;
    for address in request.addresses()? {
        let address = SocketAddr::new(address, request.port);
        let connected = limit
            .left()
            .and_then(|left| TcpStream::connect_timeout(&address, left).map_err(|error| limit.error(error)));
        match connected.context(|| format!("connect to {address}")) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new("the host has no address")))
}

/// The status of the answer.
fn get(mut stream: TcpStream, request: &Request, path: &str, limit: Limit) -> Result<u16> {
    let what = || format!("GET {path} of port {}", request.port);
    stream.set_write_timeout(Some(limit.left().context(what)?)).context(what)?;
    stream.write_all(text(request, path).as_bytes()).map_err(|error| limit.error(error)).context(what)?;
    let mut answer = Vec::new();
    let mut block = [0; 2048];
    while answer.len() < MOST && !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        stream.set_read_timeout(Some(limit.left().context(what)?)).context(what)?;
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&block[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A server may close the connection before it has read the request.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && answer.contains(&b'\n') => break,
            Err(error) => return Err(limit.error(error)).context(what),
        }
    }
    status(&answer).context(|| format!("{}: the answer is not HTTP", what()))
}

fn text(request: &Request, path: &str) -> String {
    let host = match request.host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{}", request.port),
        _ => format!("{}:{}", request.host, request.port),
    };
    let usual = [("Host", host.as_str()), ("User-Agent", "podctl"), ("Accept", "*/*")];
    let is_given = |name: &str| request.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let mut text = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    let usual = usual.into_iter().filter(|(name, _)| !is_given(name));
    for (name, value) in usual.chain(request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        for part in [name, ": ", value, "\r\n"] {
            text.push_str(part);
        }
    }
    text + "\r\n"
}

/// The number in the first line of an HTTP answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let is_http = words.next()?.starts_with("HTTP/");
    words.next()?.parse().ok().filter(|_| is_http)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn request(port: u16, http_path: Option<&str>) -> Request {
        Request { host: "localhost".into(), port, http_path: http_path.map(str::to_owned), headers: Vec::new() }
    }

    /// A server that answers one request with `answer`; its port, and what it was asked.
    fn server(answer: &'static [u8]) -> (u16, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length > 0) {
                asked.push(byte[0]);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(asked).unwrap()
        };
        (port, std::thread::spawn(serve))
    }

    fn asked(answer: &'static [u8]) -> Check {
        let (port, server) = server(answer);
        let check = ask(&request(port, Some("/ok")), Duration::from_secs(30));
        server.join().unwrap();
        check
    }

    #[test]
    fn the_status_of_an_answer_decides() {
        for (answer, code, words) in [
            (&b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"[..], 0, "HTTP status 200"),
            (b"HTTP/1.0 302 Found\n\n", 0, "HTTP status 302"),
            (b"HTTP/1.1 503 No\r\n\r\n", 1, "HTTP status 503"),
            (b"HTTP/1.1 99\r\n\r\n", 1, "HTTP status 99"),
            (b"SSH-2.0-OpenSSH\r\n", 1, "not HTTP"),
            (b"HTTP/1.1 ok\r\n\r\n", 1, "not HTTP"),
            (b"", 1, "not HTTP"),
        ] {
            let check = asked(answer);
            assert!(check.exit_code == Some(code) && check.output.contains(words), "{check:?}");
        }
    }

    #[test]
    fn a_port_that_nobody_serves_fails_and_one_that_says_nothing_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tcp = ask(&request(port, None), Duration::from_secs(30));
        assert_eq!((tcp.exit_code, tcp.output.as_str()), (Some(0), ""));
        let check = ask(&request(port, Some("/")), Duration::from_millis(50));
        let said = format!("GET / of port {port}: timed out after 0.05 s");
        assert_eq!((check.exit_code, check.output.as_str()), (None, said.as_str()));
        drop(listener);
        let check = ask(&request(port, None), Duration::from_secs(30));
        assert!(
            check.exit_code == Some(1)
                && check.output.contains(&format!("connect to 127.0.0.1:{port}: connection refused")),
            "{check:?}"
        );
    }

    #[test]
    fn headers_are_sent_and_replace_the_usual_ones() {
        let (port, server) = server(b"HTTP/1.1 200 OK\r\n\r\n");
        let headers = vec![("host".to_owned(), "shop.example".to_owned()), ("X-A".to_owned(), "b".to_owned())];
        let check = ask(&Request { headers, ..request(port, Some("/ok?x=1")) }, Duration::from_secs(30));
        assert_eq!(check.exit_code, Some(0), "{check:?}");
        let asked = server.join().unwrap();
        assert!(asked.starts_with("GET /ok?x=1 HTTP/1.1\r\n"), "{asked}");
        assert!(
            asked.contains("\r\nhost: shop.example\r\nX-A: b\r\n") && !asked.contains("Host: localhost"),
            "{asked}"
        );
        assert!(text(&request(80, None), "/").contains("\r\nHost: localhost:80\r\n"));
        let six = Request { host: "::1".into(), ..request(80, None) };
        assert!(text(&six, "/").contains("\r\nHost: [::1]:80\r\n"));
    }
}
