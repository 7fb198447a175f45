//! Limits for attached clients: how much output is kept for them, and how long an app waits for them. `client` applies
//! them, `channel` drops the client.

use std::time::Duration;

/// What is kept of a stream's output while nobody is attached, in bytes.
pub const REPLAY: usize = 64 << 10;
/// The same for output that the app's log has too, in bytes.
pub const REPLAY_LOG: usize = 8 << 10;
/// How many bytes may be queued for a client, besides those in its socket.
pub const BUFFER: usize = 512 << 10;
/// How long the app and the other clients wait for a client that reads less than [`LEAST`].
pub const HOLD: Duration = Duration::from_millis(500);
/// How many bytes a client that the app waits for must read within [`HOLD`].
pub const LEAST: u64 = 128 << 10;
/// How long the client that has read most may read nothing while the app waits for it.
pub const DEAD: Duration = Duration::from_secs(2);
