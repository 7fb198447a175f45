//! Why a call fails: a code of gRPC, which clients act on, and one line for people.

use stage1::error::Error;
use tonic::{Code, Status};

/// Result of a call.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// Why a call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of failure it is.
    pub code: Code,
    /// One line.
    pub message: String,
}

impl Fault {
    /// What was asked for makes no sense, whatever state things are in.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    /// There is no such sandbox, container or image.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound, message: message.into() }
    }

    /// Something else has to be done first.
    pub fn not_now(message: impl Into<String>) -> Self {
        Self { code: Code::FailedPrecondition, message: message.into() }
    }

    /// There is one already.
    pub fn exists(message: impl Into<String>) -> Self {
        Self { code: Code::AlreadyExists, message: message.into() }
    }

    /// This runtime can't do it.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self { code: Code::Unimplemented, message: message.into() }
    }

    /// Whether it is the lack of what was named.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { code: Code::Unknown, message: error.one_line() }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::new(fault.code, fault.message)
    }
}

/// Nothing, where what was to be taken away is not there.
///
/// # Errors
/// Every other fault.
pub fn gone_is_fine<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(fault) if fault.is_not_found() => Ok(T::default()),
        other => other,
    }
}
