//! Reading the log files of a pod's apps: selecting lines, merging them by time, following them.

mod line;
mod reader;
mod record;
mod tail;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Dir, OFlags};
use stage1::appc::{self, AcName};
use stage1::error::{Context, Error, Result};
use stage1::sys::dir;
use stage1::{layout, mux};

use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::manifest::must_have;
use crate::store::Store;
pub use line::{Line, LineBreak, Stream};
use reader::Reader;
use tail::Tail;

/// How often followed log files are read.
const FOLLOW: Duration = Duration::from_millis(100);

/// Which lines to show.
#[derive(Clone, Debug, Default)]
pub struct LineFilter {
    /// Only lines of these apps; of all apps if the list is empty.
    pub apps: Vec<AcName>,
    /// Only lines of this time or later, in the format of [`Line::time`].
    pub since: Option<String>,
    /// Only lines of this time or earlier, in the format of [`Line::time`].
    pub until: Option<String>,
    /// Only this many of the last lines that exist now.
    pub last: Option<usize>,
    /// Whether to show later lines as well, until the pod ends.
    pub follow: bool,
}

/// How many lines of one app to show before reading the other apps' logs again for older lines.
const IN_A_ROW: usize = 1024;

/// An owned copy of a line.
struct Kept {
    time: String,
    /// The index of its reader.
    app: usize,
    stream: Stream,
    line_break: Option<LineBreak>,
    message: Vec<u8>,
}

/// Calls `show` with the lines in the order of their times, until it returns `false` because its reader is gone.
///
/// # Errors
/// The logs can't be read, `show` fails, the pod has no app of a given name and no log of one, or the pod's log driver
/// does not keep files.
pub fn show(
    store: &Store,
    pod: &Pod,
    wanted: &LineFilter,
    mut show: impl FnMut(&Line<'_>) -> Result<bool>,
) -> Result<()> {
    let what = || format!("logs of pod {}", pod.short());
    // Opened, because the pod's directory moves when the pod ends.
    let directory = dir::open_dir_for_reading(pod.dir()).context(what)?;
    must_be_files(pod.dir()).context(what)?;
    // Followed as well: the log of an app that the pod does not have would be waited for in vain.
    for app in &wanted.apps {
        let is_listed = || pods::look(store, pod, |pod| must_have(pod, app)).is_ok();
        if !has_log(&directory, app).context(what)? && !is_listed() {
            return Err(Error::new(format!("pod {} has no app {app}, and no logs of one", pod.short())));
        }
    }
    let is_running = || pods::is_running(store, pod);
    show_and_follow(&directory, wanted, &mut Vec::new(), is_running, wait, &mut show).context(what).map(drop)
}

/// Whether there is a log of the app, which may have been removed since.
fn has_log(directory: impl AsFd, app: &AcName) -> Result<bool> {
    let path = Path::new(layout::LOGS).join(app.as_ref());
    match dir::open_beneath(directory, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => Ok(false),
        opened => opened.map(|_| true),
    }
}

/// Shows the lines of the logs below `directory`. If the filter says to follow, it then shows new lines until
/// `is_running` returns `false`, and calls `wait` between two reads. Returns `false` if `wait` or `show` did, because
/// the reader of the output is gone.
fn show_and_follow(
    directory: impl AsFd,
    wanted: &LineFilter,
    readers: &mut Vec<Reader>,
    mut is_running: impl FnMut() -> Result<bool>,
    mut wait: impl FnMut() -> Result<bool>,
    show: &mut impl FnMut(&Line<'_>) -> Result<bool>,
) -> Result<bool> {
    let mut last = wanted.last;
    loop {
        // Ask first, read after: then the lines that the pod wrote before its end are read.
        let more = wanted.follow && is_running()?;
        find_new(&directory, wanted, last, readers)?;
        let removed: Vec<bool> = readers.iter().map(Reader::is_removed).collect::<Result<_>>()?;
        if !show_present(readers, wanted, last.take(), more, show)? {
            return Ok(false);
        }
        if !more {
            return Ok(true);
        }
        if !wait()? {
            return Ok(false);
        }
        // All lines of a removed log were shown; the monitor has made a new log, or will.
        let mut removed = removed.into_iter();
        readers.retain(|_| !removed.next().unwrap_or(false));
    }
}

/// Fails unless the pod's log driver, an annotation of its manifest, keeps files.
fn must_be_files(pod: &Path) -> Result<()> {
    let manifest = crate::poddir::manifest::read(pod)?;
    match appc::find(&manifest.annotations, mux::DRIVER) {
        None | Some("file") => Ok(()),
        Some("journald") => {
            let uuid = pod.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            Err(Error::new(format!("the host's journal has them: \"journalctl CONTAINER_ID_FULL={uuid}\" shows them")))
        }
        Some(driver) => Err(Error::new(format!("the pod's log driver {driver} keeps none"))),
    }
}

/// Adds readers for the apps that have logs but no reader yet; a new reader begins at its last `last` lines, if given.
fn find_new(directory: impl AsFd, wanted: &LineFilter, last: Option<usize>, readers: &mut Vec<Reader>) -> Result<()> {
    let tail = last.map(|lines| Tail { lines, until: wanted.until.as_deref(), unfinished: wanted.follow });
    let logs = match dir::open_beneath(directory, layout::LOGS, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => return Ok(()),
        logs => logs?,
    };
    for entry in Dir::read_from(&logs).context(|| "read directory")? {
        let entry = entry.context(|| "read directory")?;
        let Some(app) = entry.file_name().to_str().ok().and_then(|name| name.parse::<AcName>().ok()) else { continue };
        let is_wanted = wanted.apps.is_empty() || wanted.apps.contains(&app);
        if is_wanted && !readers.iter().any(|reader| *reader.app() == *app.as_ref()) {
            readers.push(Reader::open(&logs, &app, tail.as_ref())?);
        }
    }
    Ok(())
}

/// Shows the lines that exist. `more` says that the pod still runs, so that an unfinished line may be finished later.
fn show_present(
    readers: &mut [Reader],
    wanted: &LineFilter,
    last: Option<usize>,
    more: bool,
    show: &mut impl FnMut(&Line<'_>) -> Result<bool>,
) -> Result<bool> {
    let mut held = VecDeque::new();
    while let Some(Next { reader: index, before }) = next(readers, more)? {
        for count in 0..IN_A_ROW {
            let reader = &mut readers[index];
            reader.look(more)?;
            let is_older = |than: &[u8]| count == 0 || reader.head_time() < Some(than);
            let is_next = before.as_deref().is_none_or(is_older);
            let Some(line) = reader.head().filter(|_| is_next) else { break };
            let early = wanted.since.as_deref().is_some_and(|since| line.time < since);
            let late = wanted.until.as_deref().is_some_and(|until| line.time > until);
            match last {
                _ if early || late => {}
                None => {
                    if !show(&line)? {
                        return Ok(false);
                    }
                }
                Some(0) => {}
                Some(last) => {
                    if held.len() == last {
                        held.pop_front();
                    }
                    let Line { stream, line_break, .. } = line;
                    let (time, message) = (line.time.to_owned(), line.message.to_vec());
                    held.push_back(Kept { time, app: index, stream, line_break, message });
                }
            }
            reader.pass();
        }
    }
    for Kept { time, app, stream, line_break, message } in held {
        let line = Line { time: &time, app: readers[app].app(), stream, line_break, message: &message };
        if !show(&line)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The reader with the oldest line.
struct Next {
    reader: usize,
    /// The time of the oldest line of all other readers, if they have one: this reader's lines before it come first.
    before: Option<Vec<u8>>,
}

/// The reader with the oldest line; the first of them if times are equal.
fn next(readers: &mut [Reader], more: bool) -> Result<Option<Next>> {
    let mut oldest: Option<usize> = None;
    let mut second: Option<usize> = None;
    for index in 0..readers.len() {
        if !readers[index].look(more)? {
            continue;
        }
        let is_older =
            |than: Option<usize>| than.is_none_or(|than| readers[index].head_time() < readers[than].head_time());
        if is_older(oldest) {
            second = oldest.replace(index);
        } else if is_older(second) {
            second = Some(index);
        }
    }
    let before = second.and_then(|second| readers[second].head_time()).map(<[u8]>::to_vec);
    Ok(oldest.map(|reader| Next { reader, before }))
}

/// Waits for [`FOLLOW`]; returns `false` at once if the reader of standard output is gone.
fn wait() -> Result<bool> {
    let stdout = std::io::stdout();
    // Without requested events poll(2) still reports errors, such as a pipe without a reader.
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let timeout = PollTimeout::try_from(FOLLOW).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(true),
        Ok(_) => Ok(false),
        Err(errno) => Err(errno).context(|| "poll(stdout)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;

    /// Readers of apps' logs, each given as the texts of its files.
    fn readers(logs: &Path, apps: &[(&str, &[String])]) -> Vec<Reader> {
        let open = |(app, files): &(&str, &[String])| {
            std::fs::create_dir(logs.join(app)).unwrap();
            for (text, number) in files.iter().zip(1..) {
                std::fs::write(logs.join(app).join(layout::log_file(number)), text).unwrap();
            }
            Reader::open(dir::open_dir(logs).unwrap(), &app.parse().unwrap(), None).unwrap()
        };
        apps.iter().map(open).collect()
    }

    fn shown(readers: &mut [Reader], last: Option<usize>) -> Vec<String> {
        let mut all = Vec::new();
        let show = |line: &Line<'_>| {
            all.push(format!("{} {} {}", line.time, line.app, String::from_utf8_lossy(line.message)));
            Ok(true)
        };
        assert!(show_present(readers, &LineFilter::default(), last, false, &mut { show }).unwrap());
        all
    }

    /// Lines written between the last read and the pod's end are shown, also those of an app that had no log before.
    #[test]
    fn the_last_lines_before_the_end_are_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let write = |app: &str, text: &str| {
            let place = tmp.path().join(layout::LOGS).join(app);
            std::fs::create_dir_all(&place).unwrap();
            let file = File::options().create(true).append(true).open(place.join(layout::log_file(1)));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        };
        write("a", "1 stdout F one\n");
        let wanted = LineFilter { follow: true, ..LineFilter::default() };
        let mut looks = 0;
        let is_running = || {
            looks += 1;
            if looks == 3 {
                write("a", "3 stdout F last\n4 stdout P rest\n");
                write("b", "5 stderr F b\n");
            }
            Ok(looks < 3)
        };
        let mut waits = 0;
        let wait = || {
            waits += 1;
            if waits == 1 {
                write("a", "2 stdout F two\n");
            }
            Ok(true)
        };
        let mut all = Vec::new();
        let mut show = |line: &Line<'_>| {
            all.push(format!("{} {}", line.app, String::from_utf8_lossy(line.message)));
            Ok(true)
        };
        let directory = dir::open_dir(tmp.path()).unwrap();
        assert!(show_and_follow(&directory, &wanted, &mut Vec::new(), is_running, wait, &mut show).unwrap());
        assert_eq!(all, ["a one", "a two", "a last", "a rest", "b b"]);
        assert_eq!((looks, waits), (3, 2));
    }

    #[test]
    fn lines_of_several_apps_are_merged_by_time() {
        let tmp = tempfile::tempdir().unwrap();
        let time = |n: usize| format!("2026-01-01T00:00:00.{n:09}Z");
        let file = |app: &str, times: &[usize]| -> String {
            times.iter().map(|n| format!("{} stdout F {app}{n}\n", time(*n))).collect()
        };
        // Equal times, more than `IN_A_ROW` lines in a row, several files, an empty log.
        let many: Vec<usize> = (10..10 + 3 * IN_A_ROW).collect();
        let b = [file("b", &[1, 2, 2, 5]), file("b", &many), file("b", &[1_000_000])];
        let logs: [(&str, &[String]); 4] =
            [("a", &[file("a", &[2, 2, 3, 500_000])]), ("b", &b), ("c", &[String::new()]), ("d", &[file("d", &[11])])];
        let mut expected =
            vec![(1, "b"), (2, "a"), (2, "a"), (2, "b"), (2, "b"), (3, "a"), (5, "b"), (10, "b"), (11, "b")];
        expected.push((11, "d"));
        expected.extend(many[2..].iter().map(|n| (*n, "b")));
        expected.extend([(500_000, "a"), (1_000_000, "b")]);
        let expected: Vec<String> = expected.iter().map(|(n, app)| format!("{} {app} {app}{n}", time(*n))).collect();
        let mut readers = readers(tmp.path(), &logs);
        assert_eq!(shown(&mut readers, None), expected);
        assert_eq!(shown(&mut readers, None), Vec::<String>::new());
    }
}
