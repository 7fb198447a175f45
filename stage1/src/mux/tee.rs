//! Passes output on to a client within the kernel while it stays in its pipe, for the sinks that need its bytes: tee(2)
//! and splice(2). Host side.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

/// The pipe with a second reference to the output on its way to the client. Empty between two uses; made when it is
/// first needed.
#[derive(Debug, Default)]
pub(super) struct Tee(Option<(OwnedFd, OwnedFd)>);

/// What [`Tee::pass_on`] did, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PassedOn {
    /// How many bytes of the source were looked at: [`Self::read`] comes next.
    pub(super) seen: usize,
    /// How many of them the client has got: fewer if its socket is full.
    pub(super) sent: usize,
}

impl Tee {
    /// Sends up to `most` bytes from the pipe `source` to `socket`, and leaves them in `source`. `None` if that does not
    /// work; the caller's read and send then find out why.
    pub(super) fn pass_on(&mut self, source: impl AsFd, socket: impl AsFd, most: usize) -> Option<PassedOn> {
        let flags = SpliceFlags::NONBLOCK;
        // Its memory is freed with the pipe, also that of bytes that the client has no room for.
        let (from, to) = self.0.take().or_else(|| new(most))?;
        let seen = tee(source, &to, most, flags).ok().filter(|seen| *seen > 0)?;
        let mut sent = 0;
        while sent < seen {
            match splice(&from, None, &socket, None, seen - sent, flags) {
                Ok(count) if count > 0 => sent += count,
                _ => break,
            }
        }
        if sent == seen {
            self.0 = Some((from, to));
        }
        Some(PassedOn { seen, sent })
    }
}

impl PassedOn {
    /// Reads what was looked at, at most `buffer`: a pipe in packet mode (`O_DIRECT`, pipe(2)), which the app can choose,
    /// gives one packet at a time. Returns how many bytes were there.
    pub(super) fn read(self, source: impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        let buffer = &mut buffer[..self.seen];
        let mut count = 0;
        while count < buffer.len() {
            match rustix::io::read(&source, &mut buffer[count..]) {
                Ok(got @ 1..) => count += got,
                Err(Errno::INTR) => {}
                // An app that reads its own pipe has taken the rest.
                _ if count > 0 => break,
                none => return none,
            }
        }
        Ok(count)
    }
}

fn new(size: usize) -> Option<(OwnedFd, OwnedFd)> {
    let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    fcntl_setpipe_size(&to, size).ok()?;
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::fs::File;
    use std::io::{Read, Write};

    /// A non-blocking pipe with `text` in it, and a connection.
    fn ends(text: &[u8]) -> (File, File, OwnedFd, File) {
        let (from, to) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        fcntl_setpipe_size(&to, 1 << 20).unwrap();
        let mut to = File::from(to);
        to.write_all(text).unwrap();
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        (from.into(), to, ours, theirs.into())
    }

    #[test]
    fn a_client_gets_what_stays_in_the_pipe() {
        let text: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        let (mut from, mut to, ours, mut theirs) = ends(&text);
        let mut tee = Tee::default();
        let PassedOn { seen, sent } = tee.pass_on(&from, &ours, 1 << 18).unwrap();
        assert_eq!((seen, sent), (text.len(), text.len()));
        let (mut kept, mut got) = (vec![0; seen], vec![0; sent]);
        from.read_exact(&mut kept).unwrap();
        theirs.read_exact(&mut got).unwrap();
        assert!(kept == text && got == text);
        // Nothing there, then a little more.
        assert!(tee.pass_on(&from, &ours, 1 << 18).is_none());
        to.write_all(b"more").unwrap();
        assert_eq!(tee.pass_on(&from, &ours, 1 << 18).unwrap().sent, 4);
        theirs.read_exact(&mut got[..4]).unwrap();
        assert_eq!(&got[..4], b"more");
    }

    #[test]
    fn a_full_socket_gets_a_part_and_nothing_of_it_later() {
        let text = vec![b'x'; 900_000];
        let (mut from, mut to, ours, mut theirs) = ends(&text);
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 64 << 10).unwrap();
        let mut tee = Tee::default();
        let (mut all, mut read) = (0, vec![0; 1 << 18]);
        let part = loop {
            let PassedOn { seen, sent } = tee.pass_on(&from, &ours, 1 << 18).unwrap();
            from.read_exact(&mut read[..seen]).unwrap();
            all += sent;
            if sent < seen {
                break all;
            }
        };
        let mut got = vec![0; 1 << 20];
        let mut at = 0;
        while let Ok(count @ 1..) = theirs.read(&mut got[at..]) {
            at += count;
        }
        assert_eq!(at, part);
        // What did not fit is not sent with what comes next.
        while let Ok(1..) = from.read(&mut read) {}
        to.write_all(b"next").unwrap();
        assert_eq!(tee.pass_on(&from, &ours, 1 << 18).unwrap().sent, 4);
        assert_eq!(theirs.read(&mut got).unwrap(), 4);
        assert_eq!(&got[..4], b"next");
    }

    #[test]
    fn packets_are_read_to_the_last_one() {
        let (from, to) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::DIRECT).unwrap();
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        let (mut to, mut theirs) = (File::from(to), File::from(theirs));
        let mut read = [0; 100];
        for packet in [&b"one"[..], b"two", b"3"] {
            to.write_all(packet).unwrap();
        }
        let passed_on = Tee::default().pass_on(&from, &ours, 1 << 18).unwrap();
        assert_eq!((passed_on.seen, passed_on.sent), (7, 7));
        assert_eq!(passed_on.read(&from, &mut read), Ok(7));
        assert_eq!(&read[..7], b"onetwo3");
        assert_eq!(theirs.read(&mut read).unwrap(), 7);
        // Somebody else has read them.
        assert_eq!(passed_on.read(&from, &mut read), Err(Errno::AGAIN));
        to.write_all(b"x").unwrap();
        assert_eq!(passed_on.read(&from, &mut read), Ok(1));
    }
}
