//! Messages with descriptors between processes: unix(7), SCM_RIGHTS.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, socketpair,
};

use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Maximum number of descriptors in one message.
pub const MAX_FDS: usize = 8;

/// The two ends of a new channel of type SOCK_SEQPACKET, close-on-exec: socketpair(2).
///
/// # Errors
/// The process has no free descriptor.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context(|| "socketpair")
}

/// Sends one descriptor.
///
/// # Errors
/// The other end is closed, or `channel` is not a socket.
pub fn send(channel: impl AsFd, fd: impl AsFd) -> Result<()> {
    send_message(channel, b"+", &[fd.as_fd()])
}

/// Sends a message with at most [`MAX_FDS`] descriptors.
///
/// # Errors
/// There are more descriptors, or the other end is closed.
pub fn send_message(channel: impl AsFd, text: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > MAX_FDS || !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::new(format!("sendmsg: {} descriptors do not fit", fds.len())));
    }
    rustix::net::sendmsg(channel, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .context(|| "sendmsg")
}

/// Receives one descriptor, close-on-exec; `None` if the other end is closed, or if the message carries no descriptor.
///
/// # Errors
/// As [`receive_message`] for a message of one byte.
pub fn receive(channel: impl AsFd) -> Result<Option<OwnedFd>> {
    Ok(receive_message(channel, 1)?.and_then(|(_, fds)| fds.into_iter().next()))
}

/// Receives a message of at most `limit` bytes with its descriptors, close-on-exec; `None` if the other end is closed.
///
/// # Errors
/// The message is longer or carries more than [`MAX_FDS`] descriptors, or this process has no free descriptor for them;
/// those that arrived are closed.
pub fn receive_message(channel: impl AsFd, limit: usize) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; limit];
    let got = rustix::net::recvmsg(&channel, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .context(|| "recvmsg")?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC)
        && let Err(Errno::MFILE) = rustix::io::fcntl_dupfd_cloexec(&channel, 0)
    {
        return Err(Errno::MFILE).context(|| "recvmsg: no room for the descriptors of a message");
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::new("recvmsg: a message is too long, or has too many descriptors"));
    }
    if got.bytes == 0 && fds.is_empty() {
        return Ok(None);
    }
    text.truncate(got.bytes);
    Ok(Some((text, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_travels() {
        let (here, there) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&there, &file).unwrap();
        let received = receive(&here).unwrap().unwrap();
        assert!(crate::sys::dir::same_file(&file, &received).unwrap());
        drop(there);
        assert!(receive(&here).unwrap().is_none());
        assert!(send(&here, &file).is_err());
    }

    #[test]
    fn too_much_is_refused() {
        let (here, there) = pair().unwrap();
        send_message(&there, b"too long", &[]).unwrap();
        assert!(receive_message(&here, 3).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(send_message(&there, b"x", &[file.as_fd(); MAX_FDS + 1]).is_err());
        send_message(&there, b"x", &[file.as_fd(); MAX_FDS]).unwrap();
        assert_eq!(receive_message(&here, 3).unwrap().unwrap().1.len(), MAX_FDS);
    }
}
