//! What the probe does on a network.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use crate::actions::Outcome;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells everybody who asks at a port of its own these words.
pub fn answer(protocol: &str, port: &str, words: &str) -> Outcome {
    let at = format!("0.0.0.0:{port}");
    let failed = |e: std::io::Error| format!("{at}: {e}");
    match protocol {
        "tcp" => {
            let listener = TcpListener::bind(&at).map_err(failed)?;
            loop {
                let (mut peer, _) = listener.accept().map_err(failed)?;
                // One that has gone away again is no concern of the others.
                drop(peer.write_all(words.as_bytes()));
            }
        }
        "udp" => {
            let socket = UdpSocket::bind(&at).map_err(failed)?;
            loop {
                let (_, peer) = socket.recv_from(&mut [0; 64]).map_err(failed)?;
                socket.send_to(words.as_bytes(), peer).map_err(failed)?;
            }
        }
        other => Err(format!("{other}: tcp or udp")),
    }
}

/// Prints what is answered at a `HOST:PORT`.
pub fn ask(protocol: &str, at: &str) -> Outcome {
    let failed = |e: std::io::Error| format!("{at}: {e}");
    let to = at.to_socket_addrs().map_err(failed)?.next().ok_or_else(|| format!("{at}: no address"))?;
    let heard = match protocol {
        "tcp" => ask_tcp(to),
        _ => ask_udp(to),
    };
    println!("{}", heard.map_err(failed)?);
    Ok(())
}

fn ask_tcp(to: SocketAddr) -> std::io::Result<String> {
    let mut peer = TcpStream::connect_timeout(&to, PATIENCE)?;
    peer.set_read_timeout(Some(PATIENCE))?;
    let mut heard = String::new();
    peer.read_to_string(&mut heard)?;
    Ok(heard)
}

fn ask_udp(to: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"?", to)?;
    let mut heard = [0; 512];
    let read = socket.recv(&mut heard)?;
    Ok(String::from_utf8_lossy(&heard[..read]).into_owned())
}

/// Prints the addresses of a name.
pub fn resolve(name: &str) -> Outcome {
    let addresses = (name, 0).to_socket_addrs().map_err(|e| format!("{name}: {e}"))?;
    let mut addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    addresses.dedup();
    println!("{}", addresses.join(" "));
    Ok(())
}
