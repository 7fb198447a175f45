//! Port forwarding in the messages of a WebSocket, in Kubernetes' protocol `v4.channel.k8s.io`: the Nth port has the
//! channels 2N for data and 2N + 1 for an error. Each begins with the port, in two bytes. There is one connection to each
//! port, made at once; the protocol has no end of a single channel.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::channels::websocket;
use super::forward::{Network, PIECE, connect};

/// The protocol's only version.
pub const PROTOCOL: &str = "v4.channel.k8s.io";
/// The most ports: channels are numbered by a byte.
const MOST: usize = 128;
/// How many messages wait for the client, and for each port.
const QUEUE: usize = 8;

/// Connects the client to `ports` of the pod until it disconnects or all connections have ended.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Unpin, network: Network, ports: &[u16]) {
    let network = Arc::new(network);
    let (mut to, mut from) = websocket(io).await.split();
    let (sender, mut told) = mpsc::channel::<Vec<u8>>(QUEUE);
    let mut inputs = Vec::new();
    let mut connections = tokio::task::JoinSet::new();
    for (channel, port) in (0..).step_by(2).zip(ports.iter().take(MOST).copied()) {
        let (input, data) = mpsc::channel::<Vec<u8>>(QUEUE);
        inputs.push(input);
        connections.spawn(carry(Arc::clone(&network), port, channel, data, sender.clone()));
    }
    drop(sender);
    // a message that its port has not taken yet: until it does, no other is read
    let mut given: Option<(usize, Vec<u8>)> = None;
    loop {
        let input = given.as_ref().and_then(|(number, _)| inputs.get(*number)).cloned();
        let room = async {
            match input {
                Some(input) => input.reserve_owned().await.ok(),
                None => None,
            }
        };
        tokio::select! {
            bytes = told.recv() => match bytes {
                Some(bytes) => if to.send(Message::binary(bytes)).await.is_err() {
                    return;
                },
                // all connections have ended
                None => break,
            },
            permit = room, if given.is_some() => {
                // a connection that has ended loses the rest
                if let (Some(permit), Some((_, bytes))) = (permit, given.take()) {
                    drop(permit.send(bytes));
                }
            }
            message = from.next(), if given.is_none() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Some((channel, rest)) = bytes.split_first().filter(|(channel, _)| **channel % 2 == 0) {
                        given = Some((usize::from(*channel / 2), rest.to_vec()));
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = to.close().await;
}

/// Carries the data of one port, whose first channel is `channel`, until its connection ends.
async fn carry(
    network: Arc<Network>,
    port: u16,
    channel: u8,
    mut data: mpsc::Receiver<Vec<u8>>,
    told: mpsc::Sender<Vec<u8>>,
) {
    let message = |channel: u8, bytes: &[u8]| [&[channel], bytes].concat();
    for channel in [channel, channel + 1] {
        if told.send(message(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let (mut from, mut to) = match connect(&network, port).await {
        Ok(connection) => connection.into_split(),
        Err(error) => {
            let why = format!("connect to port {port}: {error}");
            let _ = told.send(message(channel + 1, why.as_bytes())).await;
            return;
        }
    };
    let inwards = async {
        while let Some(bytes) = data.recv().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // the port's answer may still come
        std::future::pending::<()>().await;
    };
    let outwards = async {
        let mut piece = vec![0; PIECE];
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            if told.send(message(channel, &piece[..read])).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[test]
    fn each_port_has_two_channels() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let echo = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut asked = [0; 8];
            peer.read_exact(&mut asked).unwrap();
            peer.write_all(&asked.map(|byte| byte.to_ascii_uppercase())).unwrap();
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(async {
            let (here, there) = tokio::io::duplex(64 << 10);
            let serving = tokio::spawn(async move { serve(there, None, &[port, 1]).await });
            let mut client = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
            // a channel of an error, and one that there is not, are nobody's
            for bytes in [&b"\0who "[..], b"\x01x", b"\x09x", b"\x08x", b"\0is i"] {
                client.send(Message::binary(bytes.to_vec())).await.unwrap();
            }
            let mut told = vec![Vec::new(); 4];
            while let Some(Ok(message)) = client.next().await {
                if let Message::Binary(bytes) = message {
                    told[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
                }
            }
            serving.await.unwrap();
            told
        });
        echo.join().unwrap();
        assert_eq!(told[0], [&port.to_le_bytes()[..], b"WHO IS I"].concat());
        assert_eq!(told[1], port.to_le_bytes());
        assert_eq!(told[2], [1, 0]);
        assert!(String::from_utf8_lossy(&told[3][2..]).starts_with("connect to port 1: "), "{told:?}");
    }
}
