//! Handing descriptors from a process to another: unix(7), SCM_RIGHTS.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, socketpair,
};

use crate::error::{Context, Result};

/// The two ends of a channel; close-on-exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context(|| "socketpair")
}

/// Sends one descriptor.
pub fn send(channel: impl AsFd, fd: impl AsFd) -> Result<()> {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(crate::Error::new("sendmsg: a descriptor does not fit"));
    }
    rustix::net::sendmsg(channel, &[IoSlice::new(b"+")], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .context(|| "sendmsg(descriptor)")
}

/// Receives one descriptor, close-on-exec; `None` when the other end is closed.
pub fn receive(channel: impl AsFd) -> Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 1];
    rustix::net::recvmsg(channel, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .context(|| "recvmsg(descriptor)")?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(received)
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
}
