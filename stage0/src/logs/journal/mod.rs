//! A pod's journal, as its journald has written it: read on the host, while the pod runs and after.
//!
//! The pod can write into these files and into their directory whatever it likes. So nothing is opened through a
//! link, nothing but regular files is opened at all, and every number in them is checked before it is used.

mod bytes;
mod compressed;
mod file;

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, OFlags};
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::pod::open_regular_beneath;
use stage1::sys::dir;

pub use file::Entry;
use file::{Fault, JournalFile};

/// Longest message that is read, in bytes.
pub const MAX_FIELD: usize = 16 << 20;
/// As many files are read at once. journald keeps a hundred.
const MAX_FILES: usize = 512;
/// As many names are looked at in a directory.
const MAX_NAMES: usize = 10_000;
/// How often names that change are read again.
const ROTATIONS: usize = 16;
/// In as many directories. One pod has one.
const MAX_MACHINES: usize = 8;
/// Where the journal is in the pod's root.
const JOURNAL: &str = "var/log/journal";

/// The journal of one pod: all its files, their entries merged.
#[derive(Debug)]
pub struct Journal {
    pod: OwnedFd,
    root: PathBuf,
    since: u64,
    files: Vec<Source>,
    last: Option<Found>,
    /// Files that are known and not read: by device and inode, kept open so that these stay theirs.
    ignored: Vec<((u64, u64), File)>,
    complaints: HashSet<String>,
}

/// A file, and the entry of it that is to come next.
#[derive(Debug)]
struct Source {
    name: PathBuf,
    identity: (u64, u64),
    file: JournalFile,
    next: Option<Entry>,
    ended: bool,
}

/// What came of opening a file.
enum Opened {
    /// It is open now.
    New,
    /// There was nothing to do, or there will be only later.
    Known,
    /// It has another name now, or was removed.
    Gone,
}

/// An entry and the file that it is in.
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry.
    pub entry: Entry,
    file: (u64, u64),
}

impl Journal {
    /// The journal of the pod in the directory `pod`; of its entries, those written at `since` or later, in
    /// microseconds since 1970. It may have no files yet.
    ///
    /// # Errors
    /// The pod's directory can't be read, or what is in the place of its journal is something else.
    pub fn open(pod: &Path, since: u64) -> Result<Self> {
        let root = match pod.join(layout::OVERLAY_PREPARED).exists() {
            true => {
                let path = pod.join(layout::STAGE1_TREE);
                let tree = stage1::pod::read_bounded(&path, MAX_TREE_ID)?;
                let tree = String::from_utf8_lossy(&tree);
                layout::overlay_upper(tree.trim(), None)
            }
            false => layout::STAGE1_ROOTFS.into(),
        };
        let pod = dir::open_dir(pod)?;
        let (files, ignored, complaints) = (Vec::new(), Vec::new(), HashSet::new());
        let mut journal = Self { pod, root, since, files, last: None, ignored, complaints };
        journal.refresh()?;
        Ok(journal)
    }

    /// Looks for what was added since.
    ///
    /// # Errors
    /// The journal's directory can't be read.
    pub fn refresh(&mut self) -> Result<()> {
        // A file that is put aside while the names are read is found under its new one.
        for _ in 0..ROTATIONS {
            if !self.open_files()? {
                break;
            }
        }
        // In this order: once there is another file after it, all of a file is seen.
        for source in &mut self.files {
            if let Err(error) = source.file.refresh() {
                source.ended = true;
                source.complain(&mut self.complaints, &error);
            }
        }
        self.forget_removed();
        Ok(())
    }

    /// Opens the files that are not known yet. Whether there may be more, as their names have changed meanwhile.
    fn open_files(&mut self) -> Result<bool> {
        let mut is_changing = false;
        for name in self.names()? {
            match self.open_file(&name) {
                Ok(Opened::Known) => {}
                Ok(Opened::New | Opened::Gone) => is_changing = true,
                Err(error) => complain(&mut self.complaints, &name, &error),
            }
        }
        Ok(is_changing)
    }

    /// Closes files that were removed, as far as they are read.
    fn forget_removed(&mut self) {
        let is_read = |source: &Source| source.next.is_none() && (source.ended || source.file.is_read());
        self.files.retain(|source| !is_read(source) || is_there(source.file.file()));
        self.ignored.retain(|(_, file)| is_there(file));
    }

    /// The names of the journal's files, below the pod's directory.
    fn names(&mut self) -> Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        let directory = self.root.join(JOURNAL);
        let is_id = |name: &String| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        for machine in self.list(&directory)?.into_iter().filter(is_id).take(MAX_MACHINES) {
            let machine = directory.join(machine);
            let is_journal = |name: &String| name.ends_with(".journal") || name.ends_with(".journal~");
            names.extend(self.list(&machine)?.into_iter().filter(is_journal).map(|name| machine.join(name)));
        }
        Ok(names)
    }

    /// The names in a directory, no component of whose path may be a link; those that are UTF-8. None if it is not
    /// there.
    fn list(&mut self, path: &Path) -> Result<Vec<String>> {
        let shown = || format!("read directory {path:?}");
        let fd = match dir::open_beneath(&self.pod, path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => return Ok(Vec::new()),
            fd => fd?,
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd).context(shown)? {
            if names.len() >= MAX_NAMES {
                let error = Error::new(format!("it has more than {MAX_NAMES} entries: the rest is left out"));
                complain(&mut self.complaints, path, &error);
                break;
            }
            if let Ok(name) = entry.context(shown)?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open_file(&mut self, name: &Path) -> Result<Opened> {
        let Some(file) = open_regular_beneath(&self.pod, name)? else { return Ok(Opened::Gone) };
        let stat = file.metadata().context(|| "stat")?;
        let identity = (stat.dev(), stat.ino());
        let is_known = self.files.iter().any(|source| source.identity == identity)
            || self.ignored.iter().any(|(other, _)| *other == identity);
        if is_known {
            return Ok(Opened::Known);
        }
        if self.files.len() + self.ignored.len() >= MAX_FILES {
            return Err(Error::new(format!("there are more than {MAX_FILES} files: it is left out")));
        }
        let keep = file.try_clone().context(|| "dup")?;
        match JournalFile::open(file) {
            // not before it has a header
            Ok(None) => Ok(Opened::Known),
            Ok(Some(mut file)) => {
                // one that nobody writes to any more has this in its name
                let is_archived = name.to_string_lossy().contains('@');
                match is_archived.then(|| file.last_written()) {
                    Some(Err(_)) if !is_there(&keep) => return Ok(Opened::Gone),
                    Some(Err(error)) => return Err(error),
                    Some(Ok(time)) if time < self.since => {
                        self.ignored.push((identity, keep));
                        return Ok(Opened::New);
                    }
                    _ => {}
                }
                self.files.push(Source { name: name.to_owned(), identity, file, next: None, ended: false });
                Ok(Opened::New)
            }
            Err(_) if !is_there(&keep) => Ok(Opened::Gone),
            Err(error) => {
                self.ignored.push((identity, keep));
                Err(error)
            }
        }
    }

    /// The next entry of all files; `None` if there is none yet. What is damaged is left out, and a warning says so
    /// once for each file.
    pub fn next_entry(&mut self) -> Option<Found> {
        loop {
            let next = self.merged()?;
            if !self.is_written_again(&next) {
                self.last = Some(next.clone());
                return Some(next);
            }
        }
    }

    /// Whether an entry is the last one of another file, written once more as that was full.
    fn is_written_again(&mut self, next: &Found) -> bool {
        let Some(last) = &self.last else { return false };
        let [a, b] = [&last.entry, &next.entry];
        let is_copy = b.is_first
            && last.file != next.file
            && (a.realtime, a.stamp) == (b.realtime, b.stamp)
            && a.seqnum.checked_add(1) == Some(b.seqnum);
        // An app may well have written the same twice, even at the same time.
        is_copy
            && !self.files.iter_mut().find(|source| source.identity == last.file).is_some_and(|source| {
                source.file.is_finished(a.at).unwrap_or_else(|error| {
                    source.complain(&mut self.complaints, &error);
                    true
                })
            })
    }

    fn merged(&mut self) -> Option<Found> {
        for source in &mut self.files {
            source.fill(self.since, &mut self.complaints);
        }
        let first = self
            .files
            .iter_mut()
            .filter(|source| source.next.is_some())
            .reduce(|first, other| if other.comes_before(first) { other } else { first })?;
        let entry = first.next.take()?;
        Some(Found { entry, file: first.identity })
    }

    /// An entry's message.
    pub fn message(&mut self, found: &Found) -> Option<Vec<u8>> {
        let at = found.entry.message?;
        let source = self.files.iter_mut().find(|source| source.identity == found.file)?;
        match source.file.message(at) {
            Ok(message) => Some(message),
            Err(error) => {
                source.complain(&mut self.complaints, &error);
                None
            }
        }
    }
}

/// The name of a tree is a hash.
const MAX_TREE_ID: u64 = 1024;

/// Whether journald has not removed a file meanwhile, of which it makes a hole then: that is no damage.
fn is_there(file: &File) -> bool {
    file.metadata().is_ok_and(|stat| stat.nlink() > 0)
}

impl Source {
    /// Says of the file that it is damaged, if it is.
    fn complain(&self, complaints: &mut HashSet<String>, error: &Error) {
        if is_there(self.file.file()) {
            complain(complaints, &self.name, error);
        }
    }

    /// Has the next entry at hand, if there is one.
    fn fill(&mut self, since: u64, complaints: &mut HashSet<String>) {
        while self.next.is_none() && !self.ended {
            match self.file.next() {
                Ok(None) => return,
                Ok(Some(entry)) if entry.realtime >= since => self.next = Some(entry),
                Ok(Some(_)) => {}
                Err(Fault::Entry(error)) => self.complain(complaints, &error),
                Err(Fault::End(error)) => {
                    self.complain(complaints, &error);
                    self.ended = true;
                }
            }
        }
    }

    /// One journald numbers its entries; those of several have only their times.
    fn comes_before(&self, other: &Self) -> bool {
        let (Some(mine), Some(others)) = (&self.next, &other.next) else { return false };
        match self.file.seqnum_id == other.file.seqnum_id {
            true => mine.seqnum < others.seqnum,
            false => mine.realtime < others.realtime,
        }
    }
}

/// Says once of a file that it is damaged.
fn complain(complaints: &mut HashSet<String>, name: &Path, error: &Error) {
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if complaints.len() < MAX_FILES && complaints.insert(name.clone()) {
        log::warn!("journal {name:?} can't be read in full: {}", error.one_line());
    }
}

#[cfg(test)]
mod tests;
