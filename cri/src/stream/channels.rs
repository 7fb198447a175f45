//! The streams of a command over WebSocket, in Kubernetes' protocols `v5.channel.k8s.io` and `v4.channel.k8s.io`: every
//! message is the number of a channel followed by bytes.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::session::{Ended, Inner, Outer, Size, Wanted, ends};

/// The protocols, the newest first. Only v5 lets a client end its input.
pub const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// The channel for ends of channels (v5): the message has the number of the channel that ends.
const CLOSE: u8 = 255;

/// The longest message and the longest frame that the server accepts, in bytes.
const LONGEST: usize = 1 << 20;
/// The time between pings.
const PING: Duration = Duration::from_secs(30);
/// Timeout for the client to close the connection after the server has sent all.
const LINGER: Duration = Duration::from_secs(5);

/// Speaks WebSocket over a connection after the handshake.
pub async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let limits = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await
}

/// The connection that is tunneled in the messages of a WebSocket.
pub async fn tunnel<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: S) -> DuplexStream {
    const HELD: usize = 64 << 10;
    let (mut to, mut from) = websocket(io).await.split();
    let (here, there) = tokio::io::duplex(HELD);
    let (mut reading, mut writing) = tokio::io::split(here);
    tokio::spawn(async move {
        let inwards = async {
            while let Some(Ok(message)) = from.next().await {
                if let Message::Binary(bytes) = message
                    && writing.write_all(&bytes).await.is_err()
                {
                    break;
                }
            }
        };
        let outwards = async {
            let mut piece = vec![0; HELD];
            while let Ok(read @ 1..) = reading.read(&mut piece).await {
                if to.send(Message::binary(piece[..read].to_vec())).await.is_err() {
                    return;
                }
            }
            let _ = to.close().await;
        };
        // if one direction ends, the connection ends
        tokio::select! {
            () = inwards => {}
            () = outwards => {}
        }
    });
    there
}

/// Connects `work` to the client's channels, and sends the client its result.
pub async fn serve<S, F>(io: S, wanted: Wanted, work: impl FnOnce(Inner) -> F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Ended> + Send + 'static,
{
    let (mut to, mut from) = websocket(io).await.split();
    let (inner, Outer { stdin, size, here, outputs: [mut stdout, mut stderr] }) = ends();
    let mut stdin = stdin.filter(|_| wanted.stdin);
    let mut here = Some(here);
    let mut working = tokio::spawn(work(inner));
    let (mut ended, mut open) = (None, [true; 2]);
    let mut ticks = tokio::time::interval(PING);
    ticks.tick().await;
    // clients wait for a first message before they write
    let first = [STDOUT, STDERR, ERROR].into_iter().zip([wanted.stdout, wanted.stderr, true]);
    let first = first.filter(|(_, wanted)| *wanted).map(|(channel, _)| vec![channel]).next();
    let mut next = first;
    // input that the command has not taken yet: until it does, no message is read
    let mut typed: Option<Vec<u8>> = None;
    while ended.is_none() || open.contains(&true) {
        if let Some(bytes) = next.take()
            && to.send(Message::binary(bytes)).await.is_err()
        {
            here = None;
        }
        let sender = stdin.clone();
        let room = async {
            match sender {
                Some(stdin) => stdin.reserve_owned().await.ok(),
                None => None,
            }
        };
        tokio::select! {
            bytes = stdout.recv(), if open[0] => match bytes {
                Some(bytes) => next = Some([&[STDOUT], &bytes[..]].concat()),
                None => open[0] = false,
            },
            bytes = stderr.recv(), if open[1] => match bytes {
                Some(bytes) => next = Some([&[STDERR], &bytes[..]].concat()),
                None => open[1] = false,
            },
            result = &mut working, if ended.is_none() => {
                ended = Some(result.unwrap_or_else(|error| Ended::Failed(error.to_string())));
            }
            permit = room, if typed.is_some() => {
                let bytes = typed.take().unwrap_or_default();
                // a command that does not read its input loses the rest
                if let Some(permit) = permit {
                    drop(permit.send(bytes));
                }
            }
            message = from.next(), if typed.is_none() && here.is_some() => match message {
                Some(Ok(Message::Binary(bytes))) => match bytes.split_first() {
                    Some((&STDIN, bytes)) if !bytes.is_empty() => typed = Some(bytes.to_vec()),
                    Some((&RESIZE, bytes)) => {
                        if let Ok(wanted) = serde_json::from_slice::<Size>(bytes) {
                            size.send_replace(Some(wanted));
                        }
                    }
                    Some((&CLOSE, [STDIN])) => stdin = None,
                    _ => {}
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => here = None,
                Some(Ok(_)) => {}
            },
            _ = ticks.tick(), if here.is_some() => {
                if to.send(Message::Ping(Vec::new().into())).await.is_err() {
                    here = None;
                }
            }
        }
    }
    let ended = ended.unwrap_or(Ended::Code(0));
    let last = [&[ERROR], &ended.status()[..]].concat();
    if to.send(Message::binary(last)).await.is_ok() && to.close().await.is_ok() {
        let rest = async { while let Some(Ok(_)) = from.next().await {} };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};

    const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };

    /// The messages that a client receives.
    fn told(say: &[&[u8]], work: fn(Inner) -> std::pin::Pin<Box<dyn Future<Output = Ended> + Send>>) -> Vec<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (here, there) = tokio::io::duplex(64 << 10);
            let serving = tokio::spawn(serve(there, ALL, work));
            let mut client = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
            for bytes in say {
                client.send(Message::binary(bytes.to_vec())).await.unwrap();
            }
            let mut all = Vec::new();
            while let Some(Ok(message)) = client.next().await {
                if let Message::Binary(bytes) = message {
                    all.push(bytes.to_vec());
                }
            }
            serving.await.unwrap();
            all
        })
    }

    #[test]
    fn channels_are_carried_and_the_end_is_told_last() {
        let all = told(&[b"\0one", b"\x04{\"Width\":7,\"Height\":8}", b"\0two", b"\xff\0"], |mut inner| {
            Box::pin(async move {
                while let Some(bytes) = inner.stdin.recv().await {
                    inner.outputs[0].send(bytes).await.unwrap();
                }
                assert_eq!(*inner.size.borrow(), Some(Size { width: 7, height: 8 }));
                inner.outputs[1].send(b"err".to_vec()).await.unwrap();
                Ended::Code(3)
            })
        });
        let (last, rest) = all.split_last().unwrap();
        assert_eq!(rest[0], [STDOUT], "a first message says that the streams are there");
        // each channel has its own order
        let of = |channel: u8| rest[1..].iter().filter(|bytes| bytes[0] == channel).cloned().collect::<Vec<_>>();
        assert_eq!(of(STDOUT), [b"\x01one".to_vec(), b"\x01two".to_vec()]);
        assert_eq!((of(STDERR), rest.len()), (vec![b"\x02err".to_vec()], 4));
        assert_eq!((last[0], &last[1..]), (ERROR, &Ended::Code(3).status()[..]));
    }

    #[test]
    fn with_the_connection_the_client_goes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (here, there) = tokio::io::duplex(64 << 10);
            let serving = tokio::spawn(serve(there, ALL, |inner: Inner| async move {
                let _ = inner.gone.await;
                Ended::Failed("gone".into())
            }));
            drop(here);
            serving.await.unwrap();
        });
    }
}
