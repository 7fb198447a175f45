//! The directory of an app's multiplexer, and what is in it before the multiplexer runs. Host side, in the pod
//! directory; [`Settings::load`] on the pod side.
//!
//! The pod can write there: everything is reached by descriptors, and no link is followed.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::k8s::{Format, LogFile};
use super::{ENV, NAMES, Streams, TTY, Via, fifo};
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::{read_bounded, write_atomic};
use crate::sys::dir;

/// Most that is read of the file `env`, in bytes.
const MAX_ENV: u64 = 16 << 10;

/// What an app's multiplexer is to do: its file `env`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The streams that it has.
    pub streams: Streams,
    /// The log file that it writes.
    pub log: Option<LogFile>,
    /// The names of the streams that it passes on to the journal.
    pub journaled: Vec<&'static str>,
}

/// What the multiplexer finds in that file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Orders {
    /// Which endpoints there are, which is all that is said of the streams: a terminal may be any of them.
    pub(super) endpoints: Vec<&'static str>,
    pub(super) log: Option<LogFile>,
    pub(super) journaled: Vec<&'static str>,
}

impl Settings {
    fn text(&self) -> String {
        let mut text = format!("STAGE2_TTY={}\nSTAGE1_DEBUG=false\n", self.streams.contains(&Some(Via::Tty)));
        for (name, via) in NAMES.iter().zip(self.streams) {
            let name = name.to_ascii_uppercase();
            writeln!(text, "STAGE2_{name}={}", via == Some(Via::Stream)).expect("a String takes all");
        }
        for name in &self.journaled {
            writeln!(text, "{}=true", journal_variable(name)).expect("a String takes all");
        }
        if let Some(log) = &self.log {
            writeln!(text, "STAGE1_LOGMODE={}\nKUBERNETES_LOG_PATH={}", log.format.word(), log.path)
                .expect("a String takes all");
        }
        text
    }

    fn parse(text: &str) -> Result<Orders> {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let is_true = |name: String| value(&name) == Some("true");
        let streams = NAMES.into_iter().chain([TTY]);
        let is_on = |name: &&str| is_true(format!("STAGE2_{}", name.to_ascii_uppercase()));
        let log = match (value("STAGE1_LOGMODE"), value("KUBERNETES_LOG_PATH")) {
            (Some(format), Some(path)) => Some(LogFile::new(format.parse::<Format>()?, path)?),
            _ => None,
        };
        let journaled = NAMES.into_iter().filter(|name| is_true(journal_variable(name))).collect();
        Ok(Orders { endpoints: streams.filter(is_on).collect(), log, journaled })
    }

    /// What the file `env` in the current directory asks for. Pod side.
    ///
    /// # Errors
    /// It can't be read, or asks for nothing.
    pub(super) fn load() -> Result<Orders> {
        let text = read_bounded(Path::new(ENV), MAX_ENV)?;
        let orders = Self::parse(&String::from_utf8_lossy(&text))?;
        if orders.endpoints.is_empty() {
            return Err(Error::new(format!("the file {ENV:?} names no stream")));
        }
        Ok(orders)
    }
}

/// The variable that says that a stream is passed on to the journal.
fn journal_variable(name: &str) -> String {
    format!("STAGE1_JOURNAL_{}", name.to_ascii_uppercase())
}

/// Makes the directory of the app's multiplexer with its FIFOs and its settings, the pod's root (`owner`, host view)
/// their owner. One that is there is used, with new FIFOs. Host side, in the pod directory.
///
/// # Errors
/// Something of it can't be made.
pub fn prepare(app: &AcName, settings: &Settings, owner: Option<u32>) -> Result<()> {
    let path = layout::iottymux(app);
    let what = || format!("make {path:?}");
    let (parent, name) = dir::split(&path)?;
    let parent = open(parent).context(what)?;
    match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).context(what),
    }
    let place = dir::open_beneath(&parent, name, OFlags::PATH | OFlags::DIRECTORY).context(what)?;
    for (name, via) in NAMES.into_iter().zip(settings.streams) {
        let fifo = fifo(name);
        match rustix::fs::unlinkat(&place, &fifo, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).context(what),
        }
        if via == Some(Via::Stream) {
            // The app may open it anew, as /dev/stdout for one, as any user: through its descriptor only.
            let mode = if name == NAMES[0] { 0o644 } else { 0o622 };
            make_fifo(&place, &fifo, mode, owner).context(what)?;
        }
    }
    write_atomic(&path, ENV, settings.text().as_bytes(), 0o644)?;
    if let Some(owner) = owner {
        give(&place, ENV, owner).context(what)?;
        give(&parent, app.as_ref(), owner).context(what)?;
    }
    Ok(())
}

fn make_fifo(place: &OwnedFd, name: &str, mode: u32, owner: Option<u32>) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mknodat(place, name, FileType::Fifo, mode, 0).context(|| format!("mkfifo({name:?})"))?;
    rustix::fs::chmodat(place, name, mode, AtFlags::empty()).context(|| format!("chmod({name:?})"))?;
    owner.map_or(Ok(()), |owner| give(place, name, owner))
}

fn give(place: impl AsFd, name: &str, owner: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    rustix::fs::chownat(place, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .context(|| format!("chown({name:?}, {owner})"))
}

fn open(path: &Path) -> Result<OwnedFd> {
    dir::open_beneath(rustix::fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Removes the directory of the app's multiplexer, if there is one. Host side, in the pod directory.
///
/// # Errors
/// Something of it can't be removed, a directory that the pod has made there for one.
pub fn remove(app: &AcName) -> Result<()> {
    let path = layout::iottymux(app);
    let what = || format!("remove {path:?}");
    let (parent, name) = dir::split(&path)?;
    let parent = match open(parent) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        parent => parent.context(what)?,
    };
    let place = match dir::open_beneath(&parent, name, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        place => place.context(what)?,
    };
    for entry in Dir::read_from(&place).context(what)? {
        let entry = entry.context(what)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match rustix::fs::unlinkat(&place, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).context(|| format!("{}: unlink({name:?})", what())),
        }
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        let log = LogFile::new(Format::Cri, "web/0.log").unwrap();
        let streams = [Some(Via::Stream), None, Some(Via::Tty)];
        let settings = Settings { streams, log: Some(log.clone()), journaled: vec!["stdout"] };
        let text = settings.text();
        assert_eq!(
            text,
            "STAGE2_TTY=true\nSTAGE1_DEBUG=false\nSTAGE2_STDIN=true\nSTAGE2_STDOUT=false\nSTAGE2_STDERR=false\n\
             STAGE1_JOURNAL_STDOUT=true\nSTAGE1_LOGMODE=k8s-cri\nKUBERNETES_LOG_PATH=web/0.log\n"
        );
        let orders = Orders { endpoints: vec!["stdin", "tty"], log: Some(log), journaled: vec!["stdout"] };
        assert_eq!(Settings::parse(&text).unwrap(), orders);
        let nothing = Orders { endpoints: vec![], log: None, journaled: vec![] };
        assert_eq!(Settings::parse("STAGE2_STDOUT=yes\n").unwrap(), nothing);
        assert!(Settings::parse("STAGE1_LOGMODE=k8s-plain\nKUBERNETES_LOG_PATH=../x\n").is_err());
    }
}
