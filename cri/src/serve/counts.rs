//! The server's own metrics for Prometheus: number, results and duration of calls

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::body::Body;

use crate::fault::Result;
use crate::node::Node;
use crate::{container, sandbox};

/// Timeout for reading the head of a request.
const ASKING: Duration = Duration::from_secs(10);
/// The wait after a connection could not be accepted.
const REST: Duration = Duration::from_millis(100);

/// For each name and code of calls, their number and total duration.
type Calls = BTreeMap<(&'static str, i32), (u64, Duration)>;

/// The calls since the server was started.
static CALLS: Mutex<Calls> = Mutex::new(BTreeMap::new());

/// Counts a call.
pub(super) fn note(call: &'static str, code: Code, took: Duration) {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let (number, all) = calls.entry((call, code as i32)).or_default();
    *number += 1;
    *all += took;
}

/// The name of a call, by the type of its request.
pub(super) fn name_of<Q>() -> &'static str {
    let name = std::any::type_name::<Q>();
    let name = name.rsplit("::").next().unwrap_or(name);
    name.strip_suffix("Request").unwrap_or(name)
}

/// Serves the metrics at `/metrics`, with the numbers of sandboxes and containers by state.
pub(super) async fn serve(listener: TcpListener, node: Arc<Node>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, Arc::clone(&node)))),
            Err(error) => {
                log::warn!("accept a connection for metrics: {error}");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, node: Arc<Node>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let node = Arc::clone(&node);
        async move { Ok::<_, Infallible>(answer(&request, node).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(ASKING);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        log::debug!("a connection for metrics: {error}");
    }
}

async fn answer(request: &Request<Incoming>, node: Arc<Node>) -> Response<Body> {
    let (code, text) = if request.uri().path() != "/metrics" {
        (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned())
    } else {
        match tokio::task::spawn_blocking(move || text(&node)).await {
            Ok(Ok(text)) => (StatusCode::OK, text),
            Ok(Err(fault)) => (StatusCode::INTERNAL_SERVER_ERROR, fault.message + "\n"),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    };
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = code;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The metrics in Prometheus' text format.
fn text(node: &Node) -> Result<String> {
    let mut states: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for sandbox in sandbox::all(node)? {
        let state = if sandbox.is_ready()? { "ready" } else { "notready" };
        *states.entry(("sandboxes", state.to_owned())).or_default() += 1;
        for container in container::of_sandbox(&sandbox)? {
            // another call has just removed it
            let Ok(status) = container.status(&sandbox) else { continue };
            *states.entry(("containers", status.state)).or_default() += 1;
        }
    }
    let calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(format(&states, &calls))
}

fn format(states: &BTreeMap<(&str, String), u64>, calls: &Calls) -> String {
    let mut out = String::new();
    for (what, help) in [("sandboxes", "Sandboxes by state."), ("containers", "Containers by state.")] {
        let _ = writeln!(out, "# HELP podctl_cri_{what} {help}\n# TYPE podctl_cri_{what} gauge");
        for ((_, state), number) in states.iter().filter(|((other, _), _)| *other == what) {
            let _ = writeln!(out, "podctl_cri_{what}{{state=\"{state}\"}} {number}");
        }
    }
    let _ = writeln!(
        out,
        "# HELP podctl_cri_calls_total Calls by name and gRPC code.\n# TYPE podctl_cri_calls_total counter"
    );
    for ((call, code), (number, _)) in calls {
        let _ = writeln!(out, "podctl_cri_calls_total{{call=\"{call}\",code=\"{:?}\"}} {number}", Code::from(*code));
    }
    let _ = writeln!(
        out,
        "# HELP podctl_cri_call_seconds_total Seconds that calls took.\n# TYPE podctl_cri_call_seconds_total counter"
    );
    for ((call, code), (_, took)) in calls {
        let (code, seconds) = (Code::from(*code), took.as_secs_f64());
        let _ = writeln!(out, "podctl_cri_call_seconds_total{{call=\"{call}\",code=\"{code:?}\"}} {seconds:.6}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        assert_eq!(name_of::<crate::api::RunPodSandboxRequest>(), "RunPodSandbox");
        let states = [(("sandboxes", "ready".to_owned()), 3)].into();
        let calls = [(("Version", Code::Ok as i32), (2, Duration::from_millis(1500)))].into();
        let text = format(&states, &calls);
        for line in [
            "podctl_cri_sandboxes{state=\"ready\"} 3",
            "podctl_cri_calls_total{call=\"Version\",code=\"Ok\"} 2",
            "podctl_cri_call_seconds_total{call=\"Version\",code=\"Ok\"} 1.500000",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
