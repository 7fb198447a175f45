//! The HTTP handshake: upgrades a request with a ticket in its path to WebSocket or SPDY

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use ::http::{HeaderValue, Method, Request as HttpRequest, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tonic::body::Body;

use super::request::Request;
use super::session::{Ended, Inner};
use super::urls::Streams;
use super::{channels, command, forward, port_channels, request, streams};
use crate::container::exec;
use crate::fault::Result;
use crate::node::Node;

/// The value of `Upgrade` for SPDY.
const SPDY: &str = "SPDY/3.1";
/// The header with the protocols that a client offers over SPDY.
const SPDY_VERSIONS: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The header with the protocols that a client offers over WebSocket.
const WEBSOCKET_VERSIONS: HeaderName = HeaderName::from_static("sec-websocket-protocol");
/// The protocol of port forwarding over WebSocket: SPDY in a tunnel.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Timeout for reading the head of a request.
const ASKING: Duration = Duration::from_secs(10);
/// The wait after a connection could not be accepted: for lack of descriptors, which others give back.
const REST: Duration = Duration::from_millis(100);

/// Accepts and serves connections, forever.
pub async fn serve(listener: TcpListener, node: Arc<Node>, streams: Arc<Streams>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, Arc::clone(&node), Arc::clone(&streams)))),
            Err(error) => {
                log::warn!("accept a client's stream: {error}");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, node: Arc<Node>, streams: Arc<Streams>) {
    let service = service_fn(move |request| {
        let answer = answer(request, &node, &streams);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(ASKING);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        log::debug!("a client's stream: {error}");
    }
}

/// The transport that a client chose.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// SPDY with this protocol over it.
    Spdy(String),
    /// WebSocket with this protocol, or `None` if the client offered none; `accept` is the handshake's answer.
    WebSocket { version: Option<String>, accept: String },
}

/// Answers a request; an upgraded connection is served by a task of its own.
fn answer(request: HttpRequest<Incoming>, node: &Arc<Node>, streams: &Streams) -> Response<Body> {
    let (code, words) = match begin(request, node, streams) {
        Ok(response) => return response,
        Err(why) => why,
    };
    let mut response = Response::new(Body::new(words.to_owned()));
    *response.status_mut() = code;
    response
}

type Refusal = (StatusCode, &'static str);

fn begin(
    mut request: HttpRequest<Incoming>,
    node: &Arc<Node>,
    streams: &Streams,
) -> std::result::Result<Response<Body>, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "GET or POST\n"));
    }
    let path = request.uri().path().to_owned();
    let (kind, ticket) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let nothing = (StatusCode::NOT_FOUND, "there is nothing here, or not any more: a URL is good once, for a minute\n");
    let asked = streams.tickets.take(ticket).filter(|asked| asked.kind() == kind).ok_or(nothing)?;
    let way = way(request.headers(), &asked)?;
    let response = switching(&way)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let node = Arc::clone(node);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => speak(TokioIo::new(upgraded), way, asked, node).await,
            Err(error) => log::debug!("a client's stream: {error}"),
        }
    });
    Ok(response)
}

/// The answer `101 Switching Protocols`.
fn switching(way: &Way) -> std::result::Result<Response<Body>, Refusal> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| (StatusCode::BAD_REQUEST, "a bad header\n"));
    match way {
        Way::Spdy(version) => {
            headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
            headers.insert(SPDY_VERSIONS, value(version)?);
        }
        Way::WebSocket { version, accept } => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, value(accept)?);
            if let Some(version) = version {
                headers.insert(WEBSOCKET_VERSIONS, value(version)?);
            }
        }
    }
    Ok(response)
}

/// Chooses the transport and the protocol from those that the client offers.
fn way(headers: &HeaderMap, asked: &Request) -> std::result::Result<Way, Refusal> {
    let words = |name: &HeaderName| -> Vec<String> {
        let all = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        all.flat_map(|text| text.split(',')).map(|word| word.trim().to_owned()).collect()
    };
    let upgrades = words(&UPGRADE);
    let asks_for = |wanted: &str| upgrades.iter().any(|word| word.eq_ignore_ascii_case(wanted));
    let chosen = |offered: Vec<String>, ours: &[&str]| {
        ours.iter().find(|ours| offered.iter().any(|word| word == *ours)).map(|version| (*version).to_owned())
    };
    let is_forward = matches!(asked, Request::PortForward { .. });
    let unknown = (StatusCode::FORBIDDEN, "none of the versions of the protocol that were named is spoken here\n");
    if asks_for(SPDY) {
        let offered = words(&SPDY_VERSIONS);
        // the oldest clients offer none
        if offered.is_empty() {
            let oldest = if is_forward { forward::PROTOCOL } else { "channel.k8s.io" };
            return Ok(Way::Spdy(oldest.to_owned()));
        }
        let ours: &[&str] = if is_forward { &[forward::PROTOCOL] } else { &streams::PROTOCOLS };
        return chosen(offered, ours).map(Way::Spdy).ok_or(unknown);
    }
    if asks_for("websocket") {
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or((StatusCode::BAD_REQUEST, "no Sec-WebSocket-Key\n"))?;
        let ours: &[&str] = match asked {
            Request::PortForward { ports, .. } if ports.is_empty() => &[TUNNEL],
            Request::PortForward { .. } => &[TUNNEL, port_channels::PROTOCOL],
            _ => &channels::PROTOCOLS,
        };
        let version = Some(chosen(words(&WEBSOCKET_VERSIONS), ours).ok_or(unknown)?);
        return Ok(Way::WebSocket { version, accept: derive_accept_key(key.as_bytes()) });
    }
    Err((StatusCode::BAD_REQUEST, "this is for clients that speak SPDY/3.1 or WebSocket\n"))
}

type Connection = TokioIo<hyper::upgrade::Upgraded>;

/// Serves the request of a ticket over an upgraded connection.
async fn speak(io: Connection, way: Way, asked: Request, node: Arc<Node>) {
    match asked {
        Request::PortForward { sandbox, ports } => {
            let network = tokio::task::spawn_blocking(move || request::network(&node, &sandbox)).await;
            match network {
                Ok(Ok(network)) => match way {
                    Way::Spdy(_) => forward::serve(io, network, ports).await,
                    Way::WebSocket { version: Some(version), .. } if version == port_channels::PROTOCOL => {
                        port_channels::serve(io, network, &ports).await;
                    }
                    Way::WebSocket { .. } => forward::serve(channels::tunnel(io).await, network, ports).await,
                },
                Ok(Err(fault)) => log::debug!("forward ports: {}", fault.message),
                Err(error) => log::warn!("forward ports: {error}"),
            }
        }
        Request::Exec { container, words, wanted } => {
            let program = move || exec::program(&node, &container, &words, wanted.tty);
            let work = move |inner: Inner| async move { run(program, wanted, inner).await };
            match way {
                Way::Spdy(version) => streams::serve(io, &version, wanted, work).await,
                Way::WebSocket { .. } => channels::serve(io, wanted, work).await,
            }
        }
        Request::Attach { container, wanted } => {
            let program = move || request::attaching(&node, &container, wanted);
            let work = move |inner: Inner| async move { run(program, wanted, inner).await };
            match way {
                Way::Spdy(version) => streams::serve(io, &version, wanted, work).await,
                Way::WebSocket { .. } => channels::serve(io, wanted, work).await,
            }
        }
    }
}

/// Runs a program; `program` finds it in a thread for blocking work.
async fn run(
    program: impl FnOnce() -> Result<std::process::Command> + Send + 'static,
    wanted: super::session::Wanted,
    client: Inner,
) -> Ended {
    match tokio::task::spawn_blocking(program).await {
        Ok(Ok(program)) => command::run(program, wanted, client).await,
        Ok(Err(fault)) => Ended::Failed(fault.message),
        Err(error) => Ended::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Wanted;
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_newest_version_that_both_speak_is_taken() {
        let exec = Request::Exec { container: "c".into(), words: vec!["x".into()], wanted: Wanted::default() };
        let ports = Request::PortForward { sandbox: "s".into(), ports: Vec::new() };
        let spdy = |versions| headers(&[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", versions)]);
        let both = "v4.channel.k8s.io, v5.channel.k8s.io";
        assert_eq!(way(&spdy(both), &exec).unwrap(), Way::Spdy("v5.channel.k8s.io".into()));
        assert_eq!(way(&spdy("portforward.k8s.io"), &ports).unwrap(), Way::Spdy("portforward.k8s.io".into()));
        assert_eq!(way(&headers(&[("upgrade", "spdy/3.1")]), &exec).unwrap(), Way::Spdy("channel.k8s.io".into()));
        assert_eq!(way(&spdy("v9.channel.k8s.io"), &exec).unwrap_err().0, StatusCode::FORBIDDEN);
        assert_eq!(way(&spdy(both), &ports).unwrap_err().0, StatusCode::FORBIDDEN);
        let socket = |versions| {
            let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            headers(&[("upgrade", "websocket"), key, ("sec-websocket-protocol", versions)])
        };
        // the key and its answer are the example of RFC 6455
        let expected =
            Way::WebSocket { version: Some("v5.channel.k8s.io".into()), accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into() };
        assert_eq!(way(&socket("v5.channel.k8s.io,v4.channel.k8s.io"), &exec).unwrap(), expected);
        assert!(matches!(way(&socket(TUNNEL), &ports).unwrap(), Way::WebSocket { .. }));
        assert_eq!(way(&socket("v1.channel.k8s.io"), &exec).unwrap_err().0, StatusCode::FORBIDDEN);
        assert_eq!(way(&HeaderMap::new(), &exec).unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
