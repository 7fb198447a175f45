//! The server's side of SPDY/3.1, as far as Kubernetes' clients need it: streams that the client opens over one
//! connection.
//!
//! No crate implements it. Flow control is left to TCP, as in the clients' own implementation.

mod broken;
mod connection;
mod dictionary;
mod frame;
mod headers;

pub use connection::{Gone, Opened, Writer, speak};
pub use headers::value;
