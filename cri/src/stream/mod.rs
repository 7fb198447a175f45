//! Exec, attach and port-forward: a client is given a URL, once, and connects to it by WebSocket or SPDY.
//!
//! The kubelet is that client, or passes one on. Whoever has the URL may use it, one time and for a short time; so the
//! server listens on the loopback interface alone.

mod channels;
mod command;
mod forward;
mod http;
mod request;
mod session;
mod spdy;
mod streams;
mod tickets;
mod urls;

pub use http::serve;
pub use urls::{Streams, attach, exec, port_forward};
