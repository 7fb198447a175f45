//! How much is kept for clients, and how long an app waits for them.

use std::time::Duration;

/// What is kept of a stream's output while nobody is attached, in bytes.
pub const REPLAY: usize = 64 << 10;
/// The same of what the app's log has too.
pub const REPLAY_LOG: usize = 8 << 10;
/// What may wait for a client, in bytes, besides what its socket holds.
pub const BUFFER: usize = 512 << 10;
/// How long the app, and the other clients, wait for a client that takes less than [`LEAST`].
pub const HOLD: Duration = Duration::from_millis(200);
/// What a client must take in that time when it holds up the app, in bytes.
pub const LEAST: u64 = 128 << 10;
/// How long the client that is ahead of all others may take nothing while the app waits for it.
pub const DEAD: Duration = Duration::from_secs(2);
