//! Port forwarding over SPDY: for each connection to a port of the pod a client opens two streams, for data and for an
//! error.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::CloneFlags;
use stage1::sys::process;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::spdy::{self, Gone, Opened, Writer};

/// The protocol's only version.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// Timeout for connecting to a port.
const CONNECTING: Duration = Duration::from_secs(10);
/// The size of a read, in bytes.
pub(super) const PIECE: usize = 16 << 10;
/// The most streams that wait for the other one of their pair.
const WAITING: usize = 64;

/// The network namespace of a pod; `None` for the host's.
pub type Network = Option<OwnedFd>;

/// Connects the client to ports of the pod until it disconnects: to those of `ports`, or to any if that is empty.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static, network: Network, ports: Vec<u16>) {
    let network = Arc::new(network);
    let (sender, mut opened) = mpsc::channel(8);
    let (writer, speaking) = spdy::speak(io, sender).await;
    let mut waiting: HashMap<String, Half> = HashMap::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = opened.recv() => match stream {
                Some(stream) => stream,
                None => break,
            },
            Some(_) = connections.join_next() => continue,
        };
        let header = |name: &str| spdy::value(&stream.headers, name).unwrap_or_default().to_owned();
        let (kind, id, port) = (header("streamtype"), header("requestid"), header("port").parse::<u16>());
        let half = waiting.remove(&id).unwrap_or_default();
        let half = match kind.as_str() {
            "error" => Half { error: Some(stream.id), ..half },
            "data" => Half { data: Some(stream), ..half },
            _ => half,
        };
        let Half { error: Some(error), data: Some(data) } = half else {
            if waiting.len() < WAITING {
                waiting.insert(id, half);
            }
            continue;
        };
        let (network, writer) = (Arc::clone(&network), writer.clone());
        let port = port.ok().filter(|port| *port > 0 && (ports.is_empty() || ports.contains(port)));
        connections.spawn(async move { forward(&network, port, error, data, &writer).await.is_ok() });
    }
    connections.abort_all();
    drop(writer);
    let _ = speaking.await;
}

/// The streams of a pair that the client has opened so far.
#[derive(Default)]
struct Half {
    error: Option<u32>,
    data: Option<Opened>,
}

async fn forward(
    network: &Arc<Network>,
    port: Option<u16>,
    error: u32,
    mut data: Opened,
    writer: &Writer,
) -> Result<(), Gone> {
    let result = match port {
        Some(port) => connect(network, port).await.map_err(|error| format!("connect to port {port}: {error}")),
        None => Err("the port is none that was asked for".to_owned()),
    };
    match result {
        Ok(connection) => {
            let (mut from, mut to) = connection.into_split();
            let inwards = async {
                while let Some(bytes) = data.data.recv().await {
                    if to.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                let _ = to.shutdown().await;
            };
            let outwards = async {
                let mut piece = vec![0; PIECE];
                while let Ok(read @ 1..) = from.read(&mut piece).await {
                    writer.data(data.id, &piece[..read]).await?;
                }
                writer.end(data.id).await
            };
            // after the client's end of data the port may still answer; after the port's end the connection ends
            tokio::pin!(inwards, outwards);
            tokio::select! {
                result = &mut outwards => result?,
                () = &mut inwards => outwards.await?,
            }
        }
        Err(why) => {
            log::debug!("forward a port: {why}");
            writer.data(error, why.as_bytes()).await?;
            writer.end(data.id).await?;
        }
    }
    writer.end(error).await
}

/// Connects to a port of the loopback interface in the pod's network.
pub(super) async fn connect(network: &Arc<Network>, port: u16) -> io::Result<TcpStream> {
    let network = Arc::clone(network);
    let (sender, made) = tokio::sync::oneshot::channel();
    // in a thread of its own, which ends in the network namespace that it has joined
    let connecting = move || {
        if let Some(namespace) = network.as_ref() {
            process::setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| io::Error::other(error.one_line()))?;
        }
        let try_at = |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, CONNECTING);
        try_at((Ipv4Addr::LOCALHOST, port).into())
            .or_else(|first| try_at((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| first))
    };
    std::thread::Builder::new().name("forward".into()).spawn(move || drop(sender.send(connecting())))?;
    let connection = made.await.map_err(|_| io::Error::other("no answer"))??;
    connection.set_nonblocking(true)?;
    TcpStream::from_std(connection)
}
