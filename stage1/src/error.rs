//! The one error type of this crate.
//!
//! A message names the failed call and its arguments; its cause is chained by [`std::error::Error::source`].
//! [`crate::cli::run`] prints the chain once, on one line.

use std::error::Error as StdError;
use std::fmt;

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit codes with a meaning for host managers or for users who run a command in an app.
pub mod exit {
    /// The command line of an entrypoint is wrong.
    pub const USAGE: u8 = 2;
    /// app-stop: the pod has no unit for the app.
    pub const UNKNOWN_APP: u8 = 5;
    /// A run or an exec failed before it executed the command: the code that other container tools use.
    pub const COMMAND: u8 = 125;
    /// The command exists and can't be executed: permission, format, another architecture.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// The command, or the interpreter that it needs, does not exist.
    pub const NOT_FOUND: u8 = 127;
    /// The entrypoint itself failed.
    pub const FAILURE: u8 = 254;
    /// Setting up an app, or a command in one, failed before the exec: launch record, namespaces, working directory,
    /// confinement.
    pub const SETUP: u8 = FAILURE;
}

/// What failed, its cause, and optionally the exit code for the process.
///
/// One pointer wide, so that a `Result` of it is small: nearly every function returns one.
pub struct Error(Box<Parts>);

struct Parts {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    exit_code: Option<u8>,
}

impl Error {
    /// An error without a cause below it.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(message.into(), None)
    }

    /// An error caused by `source`.
    pub fn caused_by(message: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::of(message.into(), Some(source.into()))
    }

    #[cold]
    fn of(message: String, source: Option<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Box::new(Parts { message, source, exit_code: None }))
    }

    /// Sets the exit code of a process that ends because of this error.
    #[must_use]
    pub fn with_exit_code(mut self, code: u8) -> Self {
        self.0.exit_code = Some(code);
        self
    }

    /// The exit code that was set on this error, or on the nearest cause that has one.
    pub fn exit_code(&self) -> Option<u8> {
        self.0.exit_code.or_else(|| self.0.source.as_deref()?.downcast_ref::<Error>()?.exit_code())
    }

    /// The first errno(3) in the chain, if there is one.
    pub fn errno(&self) -> Option<i32> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return io.raw_os_error();
            }
            if let Some(errno) = error.downcast_ref::<nix::errno::Errno>() {
                return Some(*errno as i32);
            }
            if let Some(errno) = error.downcast_ref::<rustix::io::Errno>() {
                return Some(errno.raw_os_error());
            }
            next = error.source();
        }
        None
    }

    /// The whole chain on one line, control characters escaped.
    pub fn one_line(&self) -> String {
        one_line(self)
    }
}

/// An error and its causes on one line: `a: b: c`, control characters escaped.
pub fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    escape_control(&line)
}

/// `text` with control characters written as Rust escapes, so that it stays one line.
pub fn escape_control(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.one_line())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

/// Adds to an error what was being done when it happened.
pub trait Context<T> {
    /// Wraps an error in a message, which is built only on failure.
    ///
    /// # Errors
    /// The message, with the error as its cause.
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| Error::caused_by(message(), error))
    }
}

impl<T> Context<T> for Option<T> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.ok_or_else(|| Error::new(message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_is_one_line_and_keeps_code_and_errno() {
        let io = std::io::Error::from_raw_os_error(libc::EBUSY);
        let error = Err::<(), _>(io).context(|| "umount(\"a\nb\")").unwrap_err().with_exit_code(5);
        let outer = Err::<(), _>(error).context(|| "app-rm").unwrap_err();
        assert_eq!(outer.exit_code(), Some(5));
        assert_eq!(outer.errno(), Some(libc::EBUSY));
        let line = outer.one_line();
        assert!(line.starts_with("app-rm: umount(\"a\\nb\"): "), "{line}");
        assert!(!line.contains('\n'));
    }
}
