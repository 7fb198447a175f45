//! What ends a connection.

/// What a peer has sent that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// What was read, or what makes no sense in it.
pub(super) type Result<T> = std::result::Result<T, Broken>;
