//! HTTP to registries: one connection pool per host, with the TLS configuration of the host, redirects, and proxies.
//!
//! Answers of a server are hostile input: headers and bodies have size limits, a redirect from HTTPS to HTTP is
//! refused, and `Authorization` is only sent to the host that it is for.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stage1::error::{Context, Error, Result};
use ureq::http::header::{AUTHORIZATION, HeaderMap, LOCATION};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body, SendBody};

use super::certs::Tls;
use super::failure::Failure;
use super::patience::{Patience, is_passing, may_pass, retry_after};
use super::proxy::proxy;
use super::url::Url;
use crate::interrupt;

/// The most redirects of one request.
const MAX_REDIRECTS: usize = 5;
/// The size limit of a response's header, in bytes.
const MAX_HEADER: usize = 64 << 10;
/// How much of the body of an error is read, in bytes.
const MAX_COMPLAINT: u64 = 64 << 10;
/// The timeout of each read and write.
const SILENCE: Duration = Duration::from_secs(60);
/// The timeout for name resolution, and for connecting.
const CONNECT: Duration = Duration::from_secs(20);

/// A request.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// The headers other than `Authorization`.
    pub headers: Vec<(&'static str, String)>,
    /// The value of `Authorization`, only for the URL's server.
    pub authorization: Option<String>,
    /// The body.
    pub content: Content<'a>,
}

/// The body of a request.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// No body.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A whole file; [`Progress`] is called with the number of bytes of each block that is sent.
    File(&'a std::path::Path, &'a Progress<'a>),
}

/// A function that is called with the number of further bytes transferred.
pub struct Progress<'a>(pub &'a (dyn Fn(u64) + Sync));

impl std::fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: Vec::new(), authorization: None, content: Content::Nothing }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The URL that was answered, after redirects.
    pub url: Url,
    body: Body,
}

impl Answer {
    /// The value of a header; `None` if it is missing or is not ASCII text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The value of `Content-Length`, in bytes.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length").and_then(|text| text.parse().ok())
    }

    /// A reader of the body, without a size limit.
    pub fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// Reads the body, of at most `limit` bytes.
    ///
    /// # Errors
    /// The body is larger, or the connection breaks.
    pub fn read(self, limit: u64) -> Result<Vec<u8>> {
        let (from, length) = (self.url.clone(), self.length());
        let mut bytes = Vec::new();
        let read = self.into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::of_body(&from, bytes.len() as u64, length, error))?;
        if bytes.len() as u64 > limit {
            return Err(Error::new(format!("{from} is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// The error that the server reports, and what to do about it, if that is known.
    pub fn complaint(self) -> Error {
        let hint = match self.status {
            429 => ": it limits how often it is asked: try again later",
            500.. => ": it does not work at the moment: try again later",
            _ => "",
        };
        let (status, words) = self.status_and_words();
        Error::new(format!("{status}{words}{hint}"))
    }

    /// The answer's status in words, and after a colon what the server itself says, if anything.
    pub(super) fn status_and_words(self) -> (String, String) {
        let (code, url) = (self.status, self.url.to_string());
        let reason = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default();
        let mut bytes = Vec::new();
        // without a readable body the status alone is reported
        let _ = self.into_reader().take(MAX_COMPLAINT).read_to_end(&mut bytes);
        let words = complaint_in(&bytes).map(|words| format!(": {words}")).unwrap_or_default();
        (format!("{url} answers {code} {reason}").trim_end().to_owned(), words)
    }
}

/// The text of an error body (distribution spec, "Error Codes"): `{"errors":[{"code":…,"message":…}]}`; or `details` or
/// `message` of a token server.
fn complaint_in(bytes: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let errors = value.get("errors").and_then(|errors| errors.as_array());
    let words = match errors {
        Some(errors) => errors
            .iter()
            .take(3)
            .filter_map(|one| Some(format!("{}: {}", one.get("code")?.as_str()?, one.get("message")?.as_str()?)))
            .collect::<Vec<_>>()
            .join("; "),
        None => value.get("details").or(value.get("message"))?.as_str()?.to_owned(),
    };
    Some(words.chars().take(300).collect())
}

/// The connections to all servers.
#[derive(Debug)]
pub struct Transport {
    tls: Tls,
    agents: Arc<Mutex<HashMap<String, Agent>>>,
}

impl Transport {
    /// Makes connections with the options `tls`; a signal that `watch` records closes all of them.
    pub fn new(tls: Tls, watch: Option<&interrupt::Watch>) -> Self {
        let agents: Arc<Mutex<HashMap<String, Agent>>> = Arc::default();
        if let Some(watch) = watch {
            let agents = Arc::clone(&agents);
            watch.on_signal(move || {
                let all = std::mem::take(&mut *agents.lock().unwrap_or_else(PoisonError::into_inner));
                all.into_values().for_each(Agent::shutdown);
            });
        }
        Self { tls, agents }
    }

    /// Whether the command line allows any registry to be insecure.
    pub fn is_insecure(&self) -> bool {
        self.tls.insecure
    }

    /// Sends a request once, and follows redirects of GET and HEAD. `insecure` applies to the request's server, not to
    /// other ones. A status such as 404 is an answer, not an error.
    ///
    /// # Errors
    /// The server can't be reached, a redirect is invalid, leads from HTTPS to HTTP or is one too many, or a signal
    /// came.
    pub fn ask(&self, ask: &Ask<'_>, insecure: bool) -> Result<Answer> {
        let mut ask = ask.clone();
        let first = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            interrupt::check()?;
            let verify = !(insecure && ask.url.authority() == first.authority());
            let agent = self.agent(&ask.url, verify)?;
            let response = run(&agent, &ask).map_err(|error| {
                // a signal closes all connections
                interrupt::check().err().unwrap_or_else(|| Failure::of_request(&ask.url, verify, error))
            })?;
            let (parts, body) = response.into_parts();
            let status = parts.status.as_u16();
            let answer = Answer { status, headers: parts.headers, url: ask.url.clone(), body };
            let leads =
                matches!(status, 301 | 302 | 303 | 307 | 308) && matches!(ask.method, Method::GET | Method::HEAD);
            if !leads {
                return Ok(answer);
            }
            let location = answer.header(LOCATION.as_str()).context(|| format!("{} redirects nowhere", ask.url))?;
            let next = ask.url.join(location).context(|| format!("redirect of {}", ask.url))?;
            if !next.is_same_server(&first) {
                ask.authorization = None;
            }
            ask.url = next;
        }
        Err(Error::new(format!("{first}: more than {MAX_REDIRECTS} redirects")))
    }

    /// [`Self::ask`], repeated with pauses while the failure may be temporary.
    ///
    /// # Errors
    /// As [`Self::ask`], at the last try; or the server asked for too long a pause.
    pub fn ask_patiently(&self, ask: &Ask<'_>, insecure: bool) -> Result<Answer> {
        let mut patience = Patience::new();
        loop {
            match self.ask(ask, insecure) {
                Ok(answer) if is_passing(answer.status) && patience.is_left() => {
                    let asked = retry_after(answer.header("retry-after"));
                    log::debug!("{} answers {}: trying again", answer.url, answer.status);
                    // closes the connection, as the body is not read
                    drop(answer);
                    patience.wait(asked)?;
                }
                Ok(answer) => return Ok(answer),
                Err(error) if patience.is_left() && may_pass(&error) => {
                    log::debug!("{}: trying again", error.one_line());
                    patience.wait(None)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The connection pool for a server.
    fn agent(&self, url: &Url, verify: bool) -> Result<Agent> {
        let key = format!("{}{} {}", url.is_secure(), verify, url.authority());
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEADER)
            .timeout_connect(Some(CONNECT))
            .timeout_resolve(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .user_agent(concat!("podctl/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy(url)?);
        if url.is_secure() {
            config = config.tls_config(self.tls.config(url.authority(), verify)?);
        }
        let agent = config.build().new_agent();
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

/// The reader of a file that is being sent.
struct Sent<'a> {
    file: std::fs::File,
    progress: &'a Progress<'a>,
}

impl Read for Sent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        interrupt::check_io()?;
        let n = self.file.read(buffer)?;
        (self.progress.0)(n as u64);
        Ok(n)
    }
}

fn run(agent: &Agent, ask: &Ask<'_>) -> std::result::Result<Response<Body>, ureq::Error> {
    let mut builder = Request::builder().method(ask.method.clone()).uri(ask.url.0.clone());
    for (name, value) in &ask.headers {
        builder = builder.header(*name, value);
    }
    if let Some(value) = &ask.authorization {
        builder = builder.header(AUTHORIZATION, value);
    }
    match ask.content {
        Content::Nothing if matches!(ask.method, Method::GET | Method::HEAD) => agent.run(builder.body(())?),
        Content::Nothing => agent.run(builder.body(&b""[..])?),
        Content::Bytes(bytes) => agent.run(builder.body(bytes)?),
        Content::File(path, progress) => {
            let file = std::fs::File::open(path)?;
            let size = file.metadata()?.len();
            let mut sent = Sent { file, progress };
            agent.run(builder.header("content-length", size).body(SendBody::from_reader(&mut sent))?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints() {
        let found = complaint_in(br#"{"errors":[{"code":"DENIED","message":"no"}]}"#);
        assert_eq!(found.as_deref(), Some("DENIED: no"));
        assert_eq!(complaint_in(b"<html>"), None);
    }
}
