//! How much is kept for clients, and how long an app waits for them.

use std::time::Duration;

/// What is kept of a stream's output while nobody is attached, in bytes.
pub const REPLAY: usize = 64 << 10;
/// As [`REPLAY`], for output that the app's log has too, in bytes.
pub const REPLAY_LOG: usize = 8 << 10;
/// How many bytes may wait for a client, not counting those in its socket.
pub const BUFFER: usize = 512 << 10;
/// How long the app, and the other clients, wait for a client that takes less than [`LEAST`].
pub const HOLD: Duration = Duration::from_millis(200);
/// How many bytes a client that holds up the app must take within [`HOLD`].
pub const LEAST: u64 = 128 << 10;
/// How long the client that is ahead of all others may take nothing while the app waits for it.
pub const DEAD: Duration = Duration::from_secs(2);
