//! Streaming calls: exec, attach and port-forward. The server returns a URL, and the client connects to it by WebSocket
//! or SPDY.
//!
//! The client is the kubelet, or the kubelet passes one on. A URL is valid once, for 60 s, and for any client that
//! knows it; so by default the server listens only at the loopback interface.

mod channels;
mod command;
mod forward;
mod http;
mod port_channels;
mod request;
mod session;
mod spdy;
mod streams;
mod tickets;
mod urls;

pub use http::serve;
pub use urls::{Streams, attach, exec, port_forward};
