//! The app's ends of its streams, taken by `app-exec`. Pod side.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Uid};

use super::{NAMES, PTS, Streams, Via, control, fifo, is_used};
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::{dir, process, pty};

/// What of the standard streams comes from the multiplexer, opened in the pod's root. As long as it lives, the
/// multiplexer holds these ends too.
#[derive(Debug)]
pub struct Ends {
    streams: Streams,
    fifos: [Option<OwnedFd>; 3],
    terminal: Option<OwnedFd>,
    _run: OwnedFd,
}

impl Ends {
    /// Tells the multiplexer that the app starts, and opens the app's ends; `None` if it has none. The working
    /// directory is another one afterwards.
    ///
    /// # Errors
    /// The multiplexer does not run, or has lost what it needs.
    pub fn open(app: &AcName, streams: &Streams) -> Result<Option<Self>> {
        if !is_used(streams) {
            return Ok(None);
        }
        control::enter(app)?;
        let run = control::tell(control::RUN)?;
        let mut fifos = [None, None, None];
        for (number, name) in NAMES.iter().enumerate().filter(|(number, _)| streams[*number] == Some(Via::Stream)) {
            let access = if number == 0 { OFlags::RDONLY } else { OFlags::WRONLY };
            fifos[number] = Some(open(&fifo(name), access | OFlags::NONBLOCK)?);
        }
        let terminal = streams.contains(&Some(Via::Tty)).then(|| open(PTS, OFlags::RDWR)).transpose()?;
        Ok(Some(Self { streams: *streams, fifos, terminal, _run: run }))
    }

    /// Makes them the standard descriptors of this process, a terminal that of its session, which it has to lead, and
    /// `uid` their user. In the app's mount namespace. What is returned is to be kept until the app is executed.
    ///
    /// # Errors
    /// A descriptor can't be had, or the terminal is not what the app finds in its own /dev/pts.
    pub fn connect(mut self, uid: u32) -> Result<Self> {
        if let Some(terminal) = self.terminal.take() {
            let terminal = as_the_app_sees_it(&terminal)?;
            // The app may open it anew, as /dev/tty for one.
            rustix::fs::fchown(&terminal, Some(Uid::from_raw(uid)), None)
                .context(|| format!("fchown(terminal, {uid})"))?;
            pty::control(&terminal)?;
            self.terminal = Some(terminal);
        }
        for (number, via) in (0..).zip(self.streams) {
            let end = match via {
                Some(Via::Stream) => self.fifos.get(usize::try_from(number).unwrap_or(0)).and_then(Option::as_ref),
                Some(Via::Tty) => self.terminal.as_ref(),
                None => None,
            };
            if let Some(end) = end {
                process::set_standard_fd(end, number)?;
            }
        }
        Ok(self)
    }
}

fn open(name: &str, flags: OFlags) -> Result<OwnedFd> {
    let what = || format!("open({name:?}), which the app's multiplexer has");
    let flags = flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(name, flags, Mode::empty()).context(what)?;
    let flags = rustix::fs::fcntl_getfl(&fd).context(what)?;
    rustix::fs::fcntl_setfl(&fd, flags - OFlags::NONBLOCK).context(what)?;
    Ok(fd)
}

/// The same terminal, by its path in the devpts of this mount namespace: so programs find its name.
fn as_the_app_sees_it(terminal: impl AsFd) -> Result<OwnedFd> {
    let number = rustix::fs::minor(rustix::fs::fstat(&terminal).context(|| "fstat(terminal)")?.st_rdev);
    let devpts = dir::open_dir(layout::DEVPTS)?;
    let same = dir::open_beneath(&devpts, number.to_string(), OFlags::RDWR | OFlags::NOCTTY)?;
    if !dir::same_file(&terminal, &same)? {
        return Err(Error::new(format!("{}/{number} is not the terminal of the multiplexer", layout::DEVPTS)));
    }
    Ok(same)
}
