//! Retrying requests: which failures may be temporary, and how long to wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stage1::error::{Error, Result};

use super::failure::{Failure, is_of_resolver};
use crate::interrupt;

/// The most tries of a request whose failures may be temporary.
const TRIES: u32 = 6;
/// The longest pause that a server may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// How the C libraries' resolvers (musl, glibc) say that a name does not exist, other than that they could not find out.
const UNKNOWN_NAME: [&str; 2] = ["Name does not resolve", "Name or service not known"];

/// Counts tries, and waits between them, longer each time.
pub(super) struct Patience {
    tries: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { tries: 1 }
    }

    /// Whether another try is left.
    pub(super) fn is_left(&self) -> bool {
        self.tries < TRIES
    }

    /// Starts counting again, after progress.
    pub(super) fn renew(&mut self) {
        self.tries = 1;
    }

    /// Waits before the next try: as long as the server asked, or else 0.5 s, doubled with each try.
    ///
    /// # Errors
    /// The server asked for more than 120 s, or a signal came.
    pub(super) fn wait(&mut self, asked: Option<Duration>) -> Result<()> {
        if let Some(long) = asked.filter(|asked| *asked > MAX_PAUSE) {
            let (long, most) = (long.as_secs(), MAX_PAUSE.as_secs());
            return Err(Error::new(format!("the registry asks for a pause of {long} s, more than {most}; try later")));
        }
        let grown = Duration::from_millis(250) * 2u32.pow(self.tries);
        self.tries += 1;
        interrupt::pause(asked.unwrap_or(grown))
    }
}

/// Whether an HTTP status means a failure that may be temporary.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

/// Whether an error may be temporary: one of the connection, but not of its content or of a local file.
pub(super) fn may_pass(error: &Error) -> bool {
    use std::io::ErrorKind;
    if interrupt::check().is_err() {
        return false;
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return passes(&failure.cause);
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            let inner = io.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
            return inner.map_or_else(|| io_passes(io), passes) && io.kind() != ErrorKind::InvalidData;
        }
        if let Some(error) = cause.downcast_ref::<ureq::Error>() {
            return passes(error);
        }
        next = cause.source();
    }
    false
}

/// Whether an I/O error is permanent.
fn is_final(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind;
    // the last ones come from local files
    matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::InvalidData
            | ErrorKind::StorageFull
            | ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
    )
}

/// Whether an I/O error may be temporary; errors of TLS are permanent, and so are names that do not exist.
fn io_passes(io: &std::io::Error) -> bool {
    let is_unknown = is_of_resolver(io) && UNKNOWN_NAME.iter().any(|words| io.to_string().ends_with(words));
    !is_final(io.kind()) && !is_unknown && !io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn passes(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(io) => io_passes(io),
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

/// Parses the header `Retry-After`, in seconds or as a date (RFC 9110); `None` if it is missing or invalid.
pub(super) fn retry_after(header: Option<&str>) -> Option<Duration> {
    let text = header?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let then = UNIX_EPOCH + Duration::from_secs(u64::try_from(date.timestamp().as_second()).ok()?);
    Some(then.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_by_seconds_or_date() {
        assert_eq!(retry_after(Some(" 7 ")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(Some("Wed, 21 Oct 2015 07:28:00 GMT")), Some(Duration::ZERO));
        assert!(retry_after(Some("Fri, 31 Dec 2399 23:59:59 GMT")).unwrap() > MAX_PAUSE);
        assert_eq!(retry_after(Some("soon")), None);
        assert!(Patience::new().wait(Some(MAX_PAUSE * 2)).is_err());
    }
}
