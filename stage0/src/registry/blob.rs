//! Fetching blobs (distribution spec, "Pulling blobs"): several at once; an interrupted download is resumed, and every
//! blob's digest and size are verified.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use stage1::error::{Context, Error, Result};

use super::client::Repository;
use super::failure::Failure;
use super::patience::{Patience, is_passing, may_pass, retry_after};
use super::progress::Bars;
use super::transport::Answer;
use crate::fsutil::digest::{Digest, Hasher};
use crate::interrupt;

/// How many blobs are transferred at the same time.
const AT_ONCE: usize = 4;
/// How much is read at once, in bytes.
const BLOCK: usize = 1 << 17;
/// How often the download of a blob may be interrupted, even if it makes progress each time.
const MAX_BREAKS: u32 = 100;

/// A blob to fetch or to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its name in messages: `layer 3/5`.
    pub label: String,
    /// The file to write or to read.
    pub path: PathBuf,
}

/// Calls `work` with each blob, from up to four threads; stops at the first failure.
///
/// # Errors
/// `work` failed, with the label of its blob; or a signal came.
pub fn each(blobs: &[Blob], work: impl Fn(&Blob) -> Result<()> + Sync) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let error: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        while !failed.load(Ordering::SeqCst) {
            let Some(blob) = blobs.get(next.fetch_add(1, Ordering::SeqCst)) else { return };
            if let Err(found) = work(blob).context(|| blob.label.clone()) {
                failed.store(true, Ordering::SeqCst);
                error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(blobs.len()) {
            scope.spawn(worker);
        }
    });
    // if a signal caused the failure, report the signal
    interrupt::check()?;
    error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Fetches a blob into its file, from the first of several repositories that has it.
///
/// # Errors
/// All repositories fail: they can't be reached, lack the blob, or send content with another size or digest. Or a
/// signal came.
pub fn fetch(from: &[&Repository<'_>], blob: &Blob, bars: &Bars) -> Result<()> {
    let bar = bars.add(&blob.label, blob.size);
    let mut errors: Vec<String> = Vec::new();
    for repository in from {
        bar.set(0);
        match Download::begin(blob)?.run(repository, &|at| bar.set(at)) {
            Ok(()) => {
                bar.done();
                return Ok(());
            }
            Err(error) => {
                interrupt::check()?;
                errors.push(error.one_line());
            }
        }
    }
    Err(Error::new(errors.join("; ")))
}

/// A download in progress.
struct Download<'a> {
    blob: &'a Blob,
    file: File,
    hasher: Hasher,
    /// The number of bytes in the file and the hash.
    have: u64,
    /// Whether the bytes come from several answers.
    resumed: bool,
}

/// How the body of an answer ended.
enum End {
    Whole,
    Broken(Error),
}

impl<'a> Download<'a> {
    fn begin(blob: &'a Blob) -> Result<Self> {
        let file = File::create(&blob.path).context(|| format!("create {:?}", blob.path))?;
        Ok(Self { blob, file, hasher: Hasher::of(&blob.digest), have: 0, resumed: false })
    }

    fn restart(&mut self) -> Result<()> {
        let shown = || format!("{:?}", self.blob.path);
        self.file.set_len(0).context(shown)?;
        self.file.seek(SeekFrom::Start(0)).context(shown)?;
        self.hasher = Hasher::of(&self.blob.digest);
        self.have = 0;
        self.resumed = false;
        Ok(())
    }

    /// Requests the blob until it is complete; `tell` gets the number of bytes so far.
    fn run(mut self, repository: &Repository<'_>, tell: &dyn Fn(u64)) -> Result<()> {
        let mut patience = Patience::new();
        let mut breaks = 0;
        loop {
            let before = self.have;
            let (broken, asked) = match repository.blob(&self.blob.digest, self.have) {
                Ok(answer) if is_passing(answer.status) => {
                    let asked = retry_after(answer.header("retry-after"));
                    (repository.blob_refusal(answer), asked)
                }
                Ok(answer) => match self.take(repository, answer, tell)? {
                    End::Whole => {
                        if self.is_right() {
                            return Ok(());
                        }
                        if !self.resumed {
                            return Err(self.lie());
                        }
                        // the parts may come from different files: fetch it once more, in one piece
                        self.restart()?;
                        breaks = MAX_BREAKS.max(breaks);
                        continue;
                    }
                    End::Broken(error) => (error, None),
                },
                Err(error) if may_pass(&error) => (error, None),
                Err(error) => return Err(error),
            };
            interrupt::check()?;
            breaks += 1;
            if self.have > before {
                patience.renew();
            }
            if !patience.is_left() || breaks > MAX_BREAKS {
                return Err(broken);
            }
            log::debug!("{}: {}; going on at byte {}", self.blob.label, broken.one_line(), self.have);
            patience.wait(asked)?;
        }
    }

    /// Writes the body of an answer to the file.
    fn take(&mut self, repository: &Repository<'_>, answer: Answer, tell: &dyn Fn(u64)) -> Result<End> {
        match answer.status {
            200 if self.have > 0 => self.restart()?,
            200 => {}
            206 if self.have > 0 => {
                let range = answer.header("content-range").unwrap_or_default();
                if starts_at(range) != Some(self.have) {
                    return Err(Error::new(format!("{} sends another range than requested: {range:?}", answer.url)));
                }
                self.resumed = true;
            }
            // the registry's blob is shorter than the manifest says
            416 if self.have > 0 => {
                return Err(Error::new(format!("{} ends after {} bytes of {}", answer.url, self.have, self.blob.size)));
            }
            404 => return Err(Error::new(format!("{} has no blob {}", answer.url.authority(), self.blob.digest))),
            _ => return Err(repository.blob_refusal(answer)),
        }
        let left = self.blob.size - self.have;
        if let Some(length) = answer.length()
            && length != left
        {
            return Err(Error::new(format!(
                "{} must have {left} bytes, but the registry announces {length}",
                answer.url
            )));
        }
        let url = answer.url.clone();
        let mut reader = answer.into_reader();
        let mut block = vec![0; BLOCK];
        loop {
            interrupt::check()?;
            let n = match reader.read(&mut block) {
                Ok(0) if self.have == self.blob.size => return Ok(End::Whole),
                Ok(0) => {
                    let early = std::io::Error::from(ErrorKind::UnexpectedEof);
                    return Ok(End::Broken(Failure::of_body(&url, self.have, Some(self.blob.size), early)));
                }
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Ok(End::Broken(Failure::of_body(&url, self.have, Some(self.blob.size), error)));
                }
            };
            if n as u64 > self.blob.size - self.have {
                return Err(Error::new(format!("{url} has more than the {} bytes that it must have", self.blob.size)));
            }
            self.hasher.update(&block[..n]);
            self.file.write_all(&block[..n]).context(|| format!("write {:?}", self.blob.path))?;
            self.have += n as u64;
            tell(self.have);
        }
    }

    fn is_right(&mut self) -> bool {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::of(&self.blob.digest));
        hasher.finish() == self.blob.digest.digits()
    }

    fn lie(&self) -> Error {
        Error::new(format!("the registry sent other content, which has another hash than {}", self.blob.digest))
    }
}

/// The first byte of a range: 100 for `bytes 100-199/200`.
fn starts_at(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}

/// Whether a file has the digest.
pub(crate) fn is_whole(path: &Path, digest: &Digest) -> Result<bool> {
    let mut file = File::open(path).context(|| format!("open {path:?}"))?;
    let mut hasher = Hasher::of(digest);
    let mut block = vec![0; BLOCK];
    loop {
        interrupt::check()?;
        match file.read(&mut block).context(|| format!("read {path:?}"))? {
            0 => return Ok(hasher.finish() == digest.digits()),
            n => hasher.update(&block[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(starts_at("bytes 100-199/200"), Some(100));
        for bad in ["", "bytes", "bytes */200", "items 1-2/3", "bytes -1/2"] {
            assert_eq!(starts_at(bad), None, "{bad}");
        }
    }
}
