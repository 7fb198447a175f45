//! Violations of the protocol, which end a connection

/// A violation of the protocol by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// The result of reading from the peer.
pub(super) type Result<T> = std::result::Result<T, Broken>;
