//! Failures of calls: a gRPC status code, which clients act on, and a message of one line.

use stage1::error::Error;
use tonic::{Code, Status};

/// The result of a call.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// The failure of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The gRPC status code.
    pub code: Code,
    /// The message: one line.
    pub message: String,
}

impl Fault {
    /// The request is invalid, in whatever state the runtime is: `INVALID_ARGUMENT`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    /// The sandbox, container or image that the request names does not exist: `NOT_FOUND`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound, message: message.into() }
    }

    /// The state does not permit the call: something else must be done first: `FAILED_PRECONDITION`.
    pub fn not_now(message: impl Into<String>) -> Self {
        Self { code: Code::FailedPrecondition, message: message.into() }
    }

    /// What the request would make already exists: `ALREADY_EXISTS`.
    pub fn exists(message: impl Into<String>) -> Self {
        Self { code: Code::AlreadyExists, message: message.into() }
    }

    /// This runtime does not support what is asked for: `UNIMPLEMENTED`.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self { code: Code::Unimplemented, message: message.into() }
    }

    /// Whether the code is `NOT_FOUND`.
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

/// Makes a success of a `NOT_FOUND` fault: for calls that remove or stop something.
///
/// # Errors
/// Every other fault, unchanged.
pub fn gone_is_fine<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(fault) if fault.is_not_found() => Ok(T::default()),
        other => other,
    }
}
