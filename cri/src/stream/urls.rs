//! The URLs for streaming calls

use std::net::SocketAddr;

use crate::api::{AttachRequest, AttachResponse, ExecRequest, ExecResponse, PortForwardRequest, PortForwardResponse};
use crate::fault::{Fault, Result};
use crate::node::Node;

use super::request::Request;
use super::tickets::Tickets;

/// The address and the tickets of the streaming server.
#[derive(Debug)]
pub struct Streams {
    /// The address at which it listens; `None` if it does not.
    address: Option<SocketAddr>,
    pub(super) tickets: Tickets<Request>,
}

impl Streams {
    /// Makes URLs for this address; [`super::serve`] serves them.
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

/// `Exec`: a URL for running a command in a container.
///
/// # Errors
/// The container does not run, the request is invalid, or streaming is off or has too many open URLs.
pub fn exec(node: &Node, streams: &Streams, request: &ExecRequest) -> Result<ExecResponse> {
    Ok(ExecResponse { url: streams.url(Request::exec(node, request)?)? })
}

/// `Attach`: a URL for attaching to a container.
///
/// # Errors
/// The container does not run, the request is invalid, or streaming is off or has too many open URLs.
pub fn attach(node: &Node, streams: &Streams, request: &AttachRequest) -> Result<AttachResponse> {
    Ok(AttachResponse { url: streams.url(Request::attach(node, request)?)? })
}

/// `PortForward`: a URL for connecting to ports of a sandbox.
///
/// # Errors
/// The sandbox is not ready, a port is invalid, or streaming is off or has too many open URLs.
pub fn port_forward(node: &Node, streams: &Streams, request: &PortForwardRequest) -> Result<PortForwardResponse> {
    Ok(PortForwardResponse { url: streams.url(Request::port_forward(node, request)?)? })
}
