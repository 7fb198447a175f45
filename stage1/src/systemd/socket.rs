//! The socket of a connection, whose operations have a deadline, and the D-Bus handshake.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Context, Error, Result};

/// The client's part of the handshake. It is sent at once, and the first call only after its answers, because systemd
/// loses a message that it reads together with `BEGIN`.
pub(super) const HANDSHAKE: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n";
/// Maximum length of the answers to the handshake, in bytes; they take about 70.
pub(super) const HANDSHAKE_ANSWER_MAX: usize = 4096;

pub(super) const CLOSED: &str = "systemd has closed the connection";
pub(super) const NOT_ACCEPTED: &str = "systemd does not accept this process: \
    it must be root, in the PID and user namespaces of that systemd";

/// Length of the answers to the handshake at the start of `input`, in bytes; `None` if they are not complete. Signals
/// may follow them.
pub(super) fn handshake_length(input: &[u8]) -> Result<Option<usize>> {
    let (mut at, mut accepted) = (0, false);
    while let Some(end) = input[at..].windows(2).position(|two| two == b"\r\n") {
        let line = &input[at..at + end];
        at += end + 2;
        match (accepted, line) {
            (false, b"DATA") => {}
            (false, line) if line == b"OK" || line.starts_with(b"OK ") => accepted = true,
            (false, line) if line.starts_with(b"REJECTED") => {
                return Err(Error::caused_by(NOT_ACCEPTED, Error::new("rejected")));
            }
            // ERROR: that systemd does not support descriptors, which are not used here.
            (true, line) if line == b"AGREE_UNIX_FD" || line.starts_with(b"ERROR") => return Ok(Some(at)),
            (_, line) => {
                let line = String::from_utf8_lossy(&line[..line.len().min(80)]);
                return Err(Error::new(format!("unexpected answer to the handshake: {line:?}")));
            }
        }
    }
    Ok(None)
}

pub(super) fn connect(path: &Path, deadline: Instant) -> Result<OwnedFd> {
    let address = SocketAddrUnix::new(path).context(|| "address")?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).context(|| "socket")?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            // The queue of connections is full, and poll(2) does not report when it has room.
            Err(rustix::io::Errno::AGAIN) => {
                time_left(deadline)?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "connect"),
        }
    }
}

pub(super) fn send_all(socket: &OwnedFd, mut bytes: &[u8], deadline: Instant) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(rustix::io::Errno::AGAIN) => wait_for(socket, PollFlags::POLLOUT, deadline)?,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "send"),
        }
    }
    Ok(())
}

/// Waits for data and appends it to `input`, at least one byte. The kernel closes descriptors that come with it.
pub(super) fn receive(socket: &OwnedFd, input: &mut Vec<u8>, deadline: Instant) -> Result<()> {
    // Also checked here: `wait_for` is not reached while a peer sends without pause.
    time_left(deadline)?;
    let mut buffer = [0; 8192];
    loop {
        match rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err(io::Error::from_raw_os_error(libc::ENOTCONN)).context(|| CLOSED),
            Ok((received, _)) => {
                input.extend_from_slice(&buffer[..received]);
                return Ok(());
            }
            Err(rustix::io::Errno::AGAIN) => wait_for(socket, PollFlags::POLLIN, deadline)?,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "recv"),
        }
    }
}

fn wait_for(socket: &OwnedFd, events: PollFlags, deadline: Instant) -> Result<()> {
    loop {
        // Rounded up, because polling with 0 ms until the deadline would be a busy loop.
        let milliseconds = time_left(deadline)?.as_millis().saturating_add(1);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), events)], timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error).context(|| "poll"),
        }
    }
}

fn time_left(deadline: Instant) -> Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)).context(|| "no answer from systemd in time"),
    }
}
