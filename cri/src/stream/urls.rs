//! URLs that clients are given.

use std::net::SocketAddr;

use crate::api::{AttachRequest, AttachResponse, ExecRequest, ExecResponse, PortForwardRequest, PortForwardResponse};
use crate::fault::{Fault, Result};
use crate::node::Node;

use super::request::Request;
use super::tickets::Tickets;

/// The server's side of the URLs.
#[derive(Debug)]
pub struct Streams {
    /// Where it listens; nowhere without one.
    address: Option<SocketAddr>,
    pub(super) tickets: Tickets<Request>,
}

impl Streams {
    /// What is asked for by these URLs is served by [`super::serve`].
    pub fn new(address: Option<SocketAddr>) -> Self {
        Self { address, tickets: Tickets::default() }
    }

    fn url(&self, request: Request) -> Result<String> {
        let address = self.address.ok_or_else(|| {
            Fault::not_now("the server was started with --stream \"\": it serves no exec, attach and port-forward")
        })?;
        let kind = request.kind();
        let ticket = self.tickets.give(request).ok_or_else(|| Fault {
            code: tonic::Code::ResourceExhausted,
            message: "too many clients have not come yet".into(),
        })?;
        Ok(format!("http://{address}/{kind}/{ticket}"))
    }
}

/// A URL for a command in a container.
///
/// # Errors
/// The container does not run, or the request makes no sense.
pub fn exec(node: &Node, streams: &Streams, request: &ExecRequest) -> Result<ExecResponse> {
    Ok(ExecResponse { url: streams.url(Request::exec(node, request)?)? })
}

/// A URL for the streams of a container.
///
/// # Errors
/// The container does not run, or the request makes no sense.
pub fn attach(node: &Node, streams: &Streams, request: &AttachRequest) -> Result<AttachResponse> {
    Ok(AttachResponse { url: streams.url(Request::attach(node, request)?)? })
}

/// A URL for ports of a sandbox.
///
/// # Errors
/// The sandbox is not ready, or a port makes no sense.
pub fn port_forward(node: &Node, streams: &Streams, request: &PortForwardRequest) -> Result<PortForwardResponse> {
    Ok(PortForwardResponse { url: streams.url(Request::port_forward(node, request)?)? })
}
