//! Calls blocking functions from asynchronous tasks

use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

use super::counts;
use crate::fault;
use crate::node::Node;

/// Runs `work` in a thread for blocking work; counts and logs the call.
pub(super) async fn blocking<Q: Send + 'static, A: Send + 'static>(
    node: &Arc<Node>,
    request: Request<Q>,
    work: impl FnOnce(&Node, Q) -> fault::Result<A> + Send + 'static,
) -> Result<Response<A>, Status> {
    let node = Arc::clone(node);
    let request = request.into_inner();
    let (call, began) = (counts::name_of::<Q>(), Instant::now());
    let answer = match tokio::task::spawn_blocking(move || work(&node, request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) => Err(fault.into()),
        Err(_) => Err(Status::internal("the call's thread has ended without an answer")),
    };
    let took = began.elapsed();
    let code = answer.as_ref().err().map_or(tonic::Code::Ok, Status::code);
    counts::note(call, code, took);
    match &answer {
        Ok(_) => log::debug!("{call}: done in {took:?}"),
        Err(status) => log::debug!("{call}: failed in {took:?} with {code:?}: {}", status.message()),
    }
    answer.map(Response::new)
}

/// The answer to a call that this runtime does not implement.
pub(super) fn absent<T>(call: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{call} is not implemented by this runtime")))
}
