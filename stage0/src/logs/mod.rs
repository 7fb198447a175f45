//! What the apps of a pod have written: chosen, told apart, followed.

mod journal;

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stage1::appc::AcName;
use stage1::error::{Context, Error, Result};

use crate::logs::journal::{Entry, Found, Journal};
use crate::pod::directory as pods;
use crate::pod::directory::Pod;
use crate::store::Store;

/// How often a followed journal is looked at.
const FOLLOW: Duration = Duration::from_millis(100);

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of this app only.
    pub app: Option<AcName>,
    /// Written then or later, in microseconds since 1970.
    pub since: Option<i64>,
    /// Written then or earlier.
    pub until: Option<i64>,
    /// Of those that there are, this many of the last ones.
    pub last: Option<usize>,
    /// Those that are still to come as well, until the pod ends.
    pub follow: bool,
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// syslog(3).
    Syslog,
    /// The journal's own protocol.
    Journal,
}

impl Stream {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Syslog => "syslog",
            Self::Journal => "journal",
        }
    }
}

/// What ended a line, if that was no newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineBreak {
    /// A byte of 0.
    Nul,
    /// It is the start of one that is too long for one entry.
    LineMax,
    /// It is the end of all that the app has written.
    Eof,
    /// Another process has gone on in the middle of it.
    PidChange,
}

impl LineBreak {
    fn of(word: &str) -> Option<Self> {
        match word {
            "nul" => Some(Self::Nul),
            "line-max" => Some(Self::LineMax),
            "eof" => Some(Self::Eof),
            "pid-change" => Some(Self::PidChange),
            _ => None,
        }
    }

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nul => "nul",
            Self::LineMax => "line-max",
            Self::Eof => "eof",
            Self::PidChange => "pid-change",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When journald has got it, in microseconds since 1970.
    pub time: u64,
    /// The app whose it is; none of a process that had ended before journald could look which app's it was.
    pub app: Option<Rc<str>>,
    /// Where it comes from.
    pub stream: Stream,
    /// Its level, 0 to 7, as in syslog(3).
    pub priority: Option<u8>,
    /// The process, in the pod's view.
    pub pid: Option<u32>,
    /// What ended it.
    pub line_break: Option<LineBreak>,
    /// The line itself.
    pub message: Vec<u8>,
}

/// The priority of what an app writes to its standard error: `app-exec` asks for it.
const STDERR_PRIORITY: u8 = 3;

/// Gives the lines to `show`, in order, until that answers `false`: its reader is gone.
///
/// # Errors
/// The journal can't be read, or `show` has failed; or neither the pod nor, since then, its journal has the app. What is damaged in the journal is left out, with a warning.
pub fn show(store: &Store, pod: &Pod, wanted: &Wanted, mut show: impl FnMut(Line) -> Result<bool>) -> Result<()> {
    let apps = apps_of(pod.dir());
    let since = wanted.since.map_or(0, |since| u64::try_from(since).unwrap_or(0));
    let mut journal = Journal::open(pod.dir(), since).context(|| format!("journal of pod {}", pod.short()))?;
    let mut last = wanted.last;
    let mut is_known = wanted.app.as_ref().is_none_or(|app| apps.iter().any(|other| other == app.as_ref()));
    loop {
        // In this order: what it has written before its end is there after it.
        let more = wanted.follow && pods::is_running(store, pod)?;
        journal.refresh().context(|| format!("journal of pod {}", pod.short()))?;
        let goes_on = show_present(&mut journal, wanted, last.take(), &apps, &mut is_known, &mut show)?;
        if !goes_on || !more || !wait()? {
            break;
        }
    }
    match &wanted.app {
        Some(app) if !is_known && !wanted.follow => {
            Err(Error::new(format!("pod {} has no app {app}, and its journal has nothing of one", pod.short())))
        }
        _ => Ok(()),
    }
}

fn show_present(
    journal: &mut Journal,
    wanted: &Wanted,
    last: Option<usize>,
    apps: &[String],
    is_known: &mut bool,
    show: &mut impl FnMut(Line) -> Result<bool>,
) -> Result<bool> {
    let mut held = VecDeque::new();
    while let Some(found) = journal.next_entry() {
        let Some(app) = wanted.takes(&found.entry, apps) else { continue };
        *is_known = true;
        if !wanted.is_in_time(&found.entry) {
            continue;
        }
        let Some(last) = last else {
            if !show_one(journal, &found, app, show)? {
                return Ok(false);
            }
            continue;
        };
        held.push_back((found, app));
        if held.len() > last {
            held.pop_front();
        }
    }
    for (found, app) in held {
        if !show_one(journal, &found, app, show)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn show_one(
    journal: &mut Journal,
    found: &Found,
    app: Option<Rc<str>>,
    show: &mut impl FnMut(Line) -> Result<bool>,
) -> Result<bool> {
    // without its message, as a warning has said, there is nothing to show
    journal.message(found).map_or(Ok(true), |message| show(line(&found.entry, app, message)))
}

/// Waits for a while, or until nobody reads our output any more: then the answer is `false`.
fn wait() -> Result<bool> {
    use std::os::fd::AsFd;
    let stdout = std::io::stdout();
    // Nothing is asked for: an error, such as a pipe without reader, is told in any case.
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let timeout = PollTimeout::try_from(FOLLOW).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(true),
        Ok(_) => Ok(false),
        Err(errno) => Err(errno).context(|| "poll(stdout)"),
    }
}

impl Wanted {
    /// Whether an entry is wanted: then, whose it is.
    fn takes(&self, entry: &Entry, apps: &[String]) -> Option<Option<Rc<str>>> {
        // what journald says of itself
        if entry.transport.as_deref() == Some("driver") || entry.message.is_none() {
            return None;
        }
        let app = match entry.unit.as_deref() {
            // of a process that has ended too soon
            None => None,
            Some(unit) => Some(Rc::from(app_of(unit, apps)?)),
        };
        let is_wanted = self.app.as_ref().is_none_or(|wanted| app.as_deref() == Some(wanted.as_ref()));
        is_wanted.then_some(app)
    }

    fn is_in_time(&self, entry: &Entry) -> bool {
        self.until.is_none_or(|until| i64::try_from(entry.realtime).is_ok_and(|time| time <= until))
    }
}

/// The app that a unit belongs to. Other stage1s name the units as the apps; that is what it is taken for if it would
/// otherwise be of an app that is not there, while one of the whole name is.
fn app_of<'a>(unit: &'a str, apps: &[String]) -> Option<&'a str> {
    let is_there = |name: &str| apps.iter().any(|app| app == name);
    let name = unit.strip_suffix(".service")?;
    // the multiplexer passes on what an app with a log file writes
    let ours = ["app-ended@", "app-", "iomux-"].into_iter().find_map(|prefix| name.strip_prefix(prefix));
    match ours {
        Some(app) if is_there(app) || !is_there(name) => Some(app),
        _ if is_there(name) => Some(name),
        _ => None,
    }
}

/// The names of the apps that are in the pod's manifest; none if that can't be read.
fn apps_of(pod: &Path) -> Vec<String> {
    match crate::app::manifest::read(pod) {
        Ok(manifest) => manifest.apps.iter().map(|app| app.name.to_string()).collect(),
        Err(error) => {
            log::warn!("{}", error.one_line());
            Vec::new()
        }
    }
}

fn line(entry: &Entry, app: Option<Rc<str>>, message: Vec<u8>) -> Line {
    let stream = match entry.transport.as_deref() {
        Some("syslog") => Stream::Syslog,
        Some("journal") => Stream::Journal,
        _ if entry.priority == Some(STDERR_PRIORITY) => Stream::Stderr,
        _ => Stream::Stdout,
    };
    Line {
        time: entry.realtime,
        app,
        stream,
        priority: entry.priority,
        pid: entry.pid,
        line_break: entry.line_break.as_deref().and_then(LineBreak::of),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_apps() {
        let apps = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        for (unit, there, expected) in [
            ("app-web.service", &["web"][..], Some("web")),
            ("app-web.service", &[], Some("web")),
            ("app-app-web.service", &["web"], Some("app-web")),
            ("app-ended@web.service", &["web"], Some("web")),
            // another stage1
            ("web.service", &["web"], Some("web")),
            ("app-web.service", &["app-web"], Some("app-web")),
            // no app's
            ("web.service", &[], None),
            ("systemd-journald.service", &["web"], None),
            ("init.scope", &["web"], None),
            ("app-.service", &[], Some("")),
        ] {
            assert_eq!(app_of(unit, &apps(there)), expected, "{unit} {there:?}");
        }
    }
}
