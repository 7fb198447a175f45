//! Copying from one descriptor to another, through a buffer or within the kernel, without blocking.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use super::keys::DetachKeys;
use crate::error::{Context, Error, Result};

/// The size of a flow's buffer, in bytes.
const BUFFER: usize = 32 << 10;

/// The most bytes that one splice(2) moves.
const SPLICE: usize = 1 << 20;

/// The most bytes that are read from a source after [`Flow::finish`]: more than a pty, a pipe or a socket holds, so
/// that nothing is lost, but limited, as other processes may keep writing.
const REST: usize = 4 << 20;

/// Copies the bytes of one descriptor to another, in order and completely.
#[derive(Debug)]
pub struct Flow {
    source: Option<OwnedFd>,
    sink: Option<OwnedFd>,
    buffer: VecDeque<u8>,
    farewell: Vec<u8>,
    keys: Option<DetachKeys>,
    detached: bool,
    paused: bool,
    /// After [`Flow::finish`]: how many bytes it may still read.
    rest: Option<usize>,
    way: Way,
    /// Which ends are files.
    files: Files,
    error: Option<Error>,
}

/// Which ends of a flow are files or devices other than terminals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The source.
    pub source: bool,
    /// The sink.
    pub sink: bool,
}

/// How a flow moves bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Through its buffer.
    Copied,
    /// Within the kernel: splice(2).
    Spliced,
    /// Within the kernel; the sink is full.
    Full,
}

impl Flow {
    /// Copies from `source` to `sink`, both non-blocking ([`own`]), until one of them ends. The sink is closed when
    /// everything read from the source is written.
    pub fn new(source: OwnedFd, sink: OwnedFd) -> Self {
        Self {
            source: Some(source),
            sink: Some(sink),
            buffer: VecDeque::with_capacity(BUFFER),
            farewell: Vec::new(),
            keys: None,
            detached: false,
            paused: false,
            rest: None,
            way: Way::Copied,
            files: Files::default(),
            error: None,
        }
    }

    /// The same, for ends that can fail, such as a file for lack of space. An error ends this flow alone, and
    /// [`Self::take_error`] returns it. EIO is an error then; from a terminal it means that the terminal is gone.
    #[must_use]
    pub fn of_files(mut self, files: Files) -> Self {
        self.files = files;
        self
    }

    /// The error that has ended a flow [`Self::of_files`], if any.
    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// How many bytes it has read and not yet written.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    fn end_by(&mut self, error: Error) -> Result<()> {
        if self.files == Files::default() {
            return Err(error);
        }
        self.error = Some(error);
        (self.source, self.sink) = (None, None);
        self.buffer.clear();
        Ok(())
    }

    /// The same flow, within the kernel where possible: one end has to be a pipe.
    #[must_use]
    pub fn spliced(mut self) -> Self {
        self.way = Way::Spliced;
        if let Some(Err(errno)) = self.sink.as_ref().map(|sink| rustix::pipe::fcntl_setpipe_size(sink, SPLICE)) {
            // It is not a pipe, or its user has reached the limit of pipe buffers: copying only takes longer.
            log::debug!("fcntl(F_SETPIPE_SZ, {SPLICE}): {errno}");
        }
        self
    }

    /// The same flow; `farewell` is written when the source has ended.
    #[must_use]
    pub fn with_farewell(mut self, farewell: Vec<u8>) -> Self {
        self.farewell = farewell;
        self
    }

    /// The same flow; these keys end it, and are not copied.
    #[must_use]
    pub fn with_keys(mut self, keys: DetachKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Whether the keys were typed.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// Stops or resumes reading. What was read is written in any case.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Makes the flow end after what the source has at this moment, also if other processes can still write to it.
    pub fn finish(&mut self) {
        self.rest.get_or_insert(REST);
    }

    /// Whether the flow has ended; both descriptors are closed then.
    pub fn is_done(&self) -> bool {
        self.sink.is_none()
    }

    /// The source if the flow waits to read, and the sink if it waits to write.
    fn wants(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        let full = self.way == Way::Full;
        let reads = !self.paused && self.buffer.len() < BUFFER && !full;
        let source = self.source.as_ref().filter(|_| reads);
        let sink = self.sink.as_ref().filter(|_| !self.buffer.is_empty() || full);
        (source.map(AsFd::as_fd), sink.map(AsFd::as_fd))
    }

    /// Whether it can continue without waiting for its source.
    fn is_finishing(&self) -> bool {
        self.rest.is_some() && self.wants().0.is_some()
    }

    /// Moves bytes within the kernel, as far as the sink has room. Returns whether that worked.
    fn splice(&mut self) -> Result<bool> {
        let (Some(source), Some(sink)) = (&self.source, &self.sink) else { return Ok(true) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(source, None, sink, None, SPLICE, flags) {
            Ok(0) => {
                self.source = None;
                self.buffer.extend(std::mem::take(&mut self.farewell));
            }
            Ok(_) | Err(Errno::INTR) => {}
            // The source was readable: the sink had no room.
            Err(Errno::AGAIN) => self.way = Way::Full,
            Err(Errno::INVAL) => {
                self.way = Way::Copied;
                return Ok(false);
            }
            Err(errno) if is_gone(errno, self.files.source || self.files.sink) => self.source = None,
            Err(errno) => return Err(errno).context(|| "copy on"),
        }
        self.close_if_done();
        Ok(true)
    }

    fn read(&mut self) -> Result<()> {
        if self.way == Way::Spliced && self.rest.is_none() && self.splice()? {
            return Ok(());
        }
        let Some(source) = &self.source else { return Ok(()) };
        let mut chunk = [0; BUFFER];
        let room = (BUFFER - self.buffer.len()).min(self.rest.unwrap_or(BUFFER));
        let ended = match rustix::io::read(source, &mut chunk[..room]) {
            Ok(0) => true,
            Ok(count) => {
                match &mut self.keys {
                    Some(keys) => self.detached = keys.take(&chunk[..count], &mut self.buffer),
                    None => self.buffer.extend(&chunk[..count]),
                }
                self.rest = self.rest.map(|rest| rest - count);
                self.detached
            }
            Err(Errno::INTR) => false,
            Err(Errno::AGAIN) => self.rest.is_some(),
            Err(errno) if is_gone(errno, self.files.source) => true,
            Err(errno) => return Err(errno).context(|| "read, to copy it on"),
        };
        if ended {
            self.source = None;
            self.buffer.extend(self.keys.iter_mut().flat_map(|keys| keys.rest()));
            self.buffer.extend(std::mem::take(&mut self.farewell));
        }
        self.close_if_done();
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        if self.way == Way::Full {
            self.way = Way::Spliced;
            return Ok(());
        }
        let Some(sink) = &self.sink else { return Ok(()) };
        match rustix::io::write(sink, self.buffer.as_slices().0) {
            Ok(count) => drop(self.buffer.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) if is_gone(errno, self.files.sink) => {
                self.source = None;
                self.buffer.clear();
            }
            Err(errno) => return Err(errno).context(|| "write what was copied"),
        }
        self.close_if_done();
        Ok(())
    }

    fn close_if_done(&mut self) {
        if self.source.is_none() && self.buffer.is_empty() {
            self.sink = None;
        }
    }
}

/// Whether an error means that the other side has hung up. For a file EIO is an error like others.
fn is_gone(errno: Errno, file: bool) -> bool {
    match errno {
        Errno::PIPE | Errno::CONNRESET => true,
        Errno::IO | Errno::NXIO => !file,
        _ => false,
    }
}

/// Copies what can be copied now; if nothing can, waits until something can, one of `wake` is readable, or `timeout`
/// has passed. Returns which of `wake` are readable.
///
/// # Errors
/// A descriptor can't be read or written. If its other side is gone, that is not an error: it ends the flow.
pub fn step(flows: &mut [&mut Flow], wake: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = wake.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let mut jobs = Vec::with_capacity(2 * flows.len());
    for (index, flow) in flows.iter().enumerate() {
        let (source, sink) = flow.wants();
        for (fd, event) in [(source, PollFlags::POLLIN), (sink, PollFlags::POLLOUT)] {
            let Some(fd) = fd else { continue };
            polled.push(PollFd::new(fd, event));
            jobs.push((index, event));
        }
    }
    let hurry = flows.iter().any(|flow| flow.is_finishing());
    let timeout = match timeout {
        _ if hurry => PollTimeout::ZERO,
        Some(timeout) => PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => return Err(errno).context(|| "poll"),
    }
    // Readable, writable, or hung up, which the read or write finds out.
    let ready: Vec<bool> = polled.iter().map(|fd| fd.any() == Some(true)).collect();
    let (woken, ready) = ready.split_at(wake.len());
    for ((index, event), ready) in jobs.into_iter().zip(ready) {
        let flow = &mut flows[index];
        let done = match event == PollFlags::POLLIN {
            true if *ready || flow.is_finishing() => flow.read(),
            false if *ready => flow.write(),
            _ => Ok(()),
        };
        done.or_else(|error| flow.end_by(error))?;
    }
    Ok(woken.to_vec())
}

/// A descriptor for a flow. A terminal or pipe is opened anew, non-blocking, so that processes that share the open file
/// see no change. Anything else is duplicated: a regular file never blocks for long, a socket only if others read from
/// it too.
///
/// # Errors
/// It can't be opened anew with this access.
pub fn own(fd: impl AsFd, access: OFlags) -> Result<OwnedFd> {
    let fd = fd.as_fd();
    let stat = rustix::fs::fstat(fd).context(|| format!("fstat({})", fd.as_raw_fd()))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Fifo && !rustix::termios::isatty(fd) {
        return fd.try_clone_to_owned().context(|| format!("dup({})", fd.as_raw_fd()));
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).context(|| format!("open({path:?})"))
}

/// Makes a descriptor that is this process's alone non-blocking: fcntl(2).
///
/// # Errors
/// `fd` is closed.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd).context(|| "fcntl(F_GETFL)")?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).context(|| "fcntl(F_SETFL, O_NONBLOCK)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pipe() -> (OwnedFd, OwnedFd) {
        use rustix::pipe::PipeFlags;
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
    }

    fn run(flow: &mut Flow) {
        while !flow.is_done() {
            step(&mut [&mut *flow], &[], None).unwrap();
        }
    }

    /// A slow reader gets all bytes, and the end.
    fn arrives_in_order(mut reader: impl Read + Send + 'static, sink: OwnedFd, adapt: fn(Flow) -> Flow) {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let (source, mut writer) = UnixStream::pair().unwrap();
        source.set_nonblocking(true).unwrap();
        let expected = bytes.clone();
        let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        run(&mut adapt(Flow::new(source.into(), sink)).with_farewell(b"end".to_vec()));
        writing.join().unwrap();
        assert!(reading.join().unwrap() == [&expected[..], b"end"].concat());
    }

    #[test]
    fn everything_arrives_in_order() {
        let as_they_are: [fn(Flow) -> Flow; 2] = [|flow| flow, Flow::spliced];
        for adapt in as_they_are {
            // Ends that can be spliced only in part, or not at all.
            let (reader, sink) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            set_nonblocking(&sink).unwrap();
            arrives_in_order(std::fs::File::from(reader), sink, adapt);
            let (reader, sink) = UnixStream::pair().unwrap();
            sink.set_nonblocking(true).unwrap();
            arrives_in_order(reader, sink.into(), adapt);
        }
    }

    #[test]
    fn finishing_takes_what_is_there_and_no_more() {
        let (source, keeper) = pipe();
        let (reader, sink) = pipe();
        rustix::io::write(&keeper, b"the rest").unwrap();
        let mut flow = Flow::new(source, sink);
        flow.finish();
        // The source stays open: without finish() this would wait forever.
        run(&mut flow);
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "the rest");
    }

    #[test]
    fn a_writer_without_end_is_left() {
        let source = std::fs::File::open("/dev/zero").unwrap();
        let sink = std::fs::File::create("/dev/null").unwrap();
        let mut flow = Flow::new(source.into(), sink.into());
        flow.finish();
        run(&mut flow);
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_flow() {
        let (source, keeper) = pipe();
        let (reader, sink) = pipe();
        drop(reader);
        rustix::io::write(&keeper, b"in vain").unwrap();
        run(&mut Flow::new(source, sink).spliced());
        // The reader is gone.
        assert_eq!(rustix::io::write(&keeper, b"x"), Err(Errno::PIPE));
    }

    #[test]
    fn a_paused_flow_reads_nothing() {
        let (source, keeper) = pipe();
        let (reader, sink) = pipe();
        rustix::io::write(&keeper, b"x").unwrap();
        let mut flow = Flow::new(source, sink);
        flow.set_paused(true);
        let (wake, waker) = pipe();
        rustix::io::write(&waker, b"!").unwrap();
        assert_eq!(step(&mut [&mut flow], &[wake.as_fd()], None).unwrap(), [true]);
        assert_eq!(rustix::io::read(&reader, &mut [0; 8]), Err(Errno::AGAIN));
        flow.set_paused(false);
        drop(keeper);
        run(&mut flow);
        assert_eq!(rustix::io::read(&reader, &mut [0; 8]), Ok(1));
    }

    #[test]
    fn own_descriptors_leave_those_of_others_alone() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let own = own(&reader, OFlags::RDONLY).unwrap();
        assert_eq!(rustix::io::read(&own, &mut [0; 8]), Err(Errno::AGAIN));
        assert!(!rustix::fs::fcntl_getfl(&reader).unwrap().contains(OFlags::NONBLOCK));
        drop(writer);
    }
}
