//! Calls whose answer is a stream: lists in pieces, and the events of containers

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use stage0::fsutil::time::nanoseconds;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::blocking::blocking;
use crate::api::ContainerEventResponse;
use crate::events::Picture;
use crate::fault;
use crate::node::Node;

/// The answer of a streaming call.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The most items in a message of a list.
const PIECE: usize = 100;
/// The most events that are buffered for a client; after that, the pods are not read again until it has read them.
const HELD: usize = 64;
/// The least time between two reads of the pods, and how many times longer than a read the time between reads is at
/// least.
const LOOK: Duration = Duration::from_millis(250);
const REST: u32 = 20;

/// A list in pieces.
pub(super) async fn pieces<Q, A, P>(
    node: &Arc<Node>,
    request: Request<Q>,
    work: impl FnOnce(&Node, Q) -> fault::Result<Vec<A>> + Send + 'static,
    piece: impl Fn(Vec<A>) -> P,
) -> Result<Response<Answers<P>>, Status>
where
    Q: Send + 'static,
    A: Send + 'static,
    P: Send + 'static,
{
    let mut all = blocking(node, request, work).await?.into_inner().into_iter().peekable();
    let mut pieces = Vec::new();
    while all.peek().is_some() {
        pieces.push(Ok(piece(all.by_ref().take(PIECE).collect())));
    }
    Ok(Response::new(Box::pin(tonic::codegen::tokio_stream::iter(pieces))))
}

/// `GetContainerEvents`: the events of containers from now on, until the client disconnects.
pub(super) async fn events<Q: Send + 'static>(
    node: &Arc<Node>,
    request: Request<Q>,
) -> Result<Response<Answers<ContainerEventResponse>>, Status> {
    let mut before = blocking(node, request, |node, _| Picture::take(node)).await?.into_inner();
    let (sender, events) = mpsc::channel(HELD);
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let mut rest = LOOK;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(rest) => {}
            }
            let began = Instant::now();
            let node = Arc::clone(&node);
            let picture = match tokio::task::spawn_blocking(move || Picture::take(&node)).await {
                Ok(Ok(picture)) => picture,
                Ok(Err(fault)) => {
                    log::warn!("read the pods for events of containers: {}", fault.message);
                    continue;
                }
                Err(_) => return,
            };
            rest = LOOK.max(began.elapsed() * REST);
            for event in picture.since(&before, nanoseconds(SystemTime::now())) {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            before = picture;
        }
    });
    Ok(Response::new(Box::pin(ReceiverStream::new(events))))
}
