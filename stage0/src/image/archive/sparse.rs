//! Files with holes in an archive: entries of GNU tar's sparse format 1.0 in pax records, which store the data alone.
//!
//! An app can make a file of terabytes that takes no room. Written out, its zeros would fill the host's disk.

use std::io::{self, Cursor, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{self, SeekFrom};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};
use tar::Header;

/// Smaller holes of a file, in bytes altogether, are written out, so that readers without sparse files get by.
const FEW: u64 = 16 << 10;
/// The most pieces in one file: so its map stays below 1 MiB, the limit of Go's and of our own reader.
const MAX_PIECES: usize = 30_000;
/// How many bytes of holes may be written out between pieces, beyond as many as the file has data.
const MAX_FILLED: u64 = 1 << 30;

/// The data of a file with holes.
#[derive(Debug)]
pub(super) struct Sparse {
    /// The size with holes, in bytes.
    size: u64,
    /// Offset and length of each piece of data, ascending.
    pieces: Vec<(u64, u64)>,
}

impl Sparse {
    /// Finds the holes of a file of `size` bytes, and sets its offset to the start; `None` if it has few.
    ///
    /// # Errors
    /// lseek(2) fails, or the file has so many holes that an archive can't describe them.
    pub(super) fn of(file: impl AsFd, size: u64) -> Result<Option<Self>> {
        let mut pieces = Pieces::default();
        let mut at = 0;
        while at < size {
            let start = match fs::seek(&file, SeekFrom::Data(at)) {
                // the rest of the file is a hole
                Err(Errno::NXIO) => break,
                // the file system does not tell
                Err(Errno::INVAL) if at == 0 => return Ok(None),
                start => start.context(|| "lseek(SEEK_DATA)")?.min(size),
            };
            let end = fs::seek(&file, SeekFrom::Hole(start)).context(|| "lseek(SEEK_HOLE)")?.min(size);
            if end <= at {
                break;
            }
            pieces.add(start, end - start);
            at = end;
        }
        fs::seek(&file, SeekFrom::Start(0)).context(|| "lseek")?;
        pieces.finish(size)
    }

    /// The pax records of the entry of the file at `path`.
    pub(super) fn records(&self, path: &Path) -> Vec<(String, Vec<u8>)> {
        let record = |key: &str, value: &[u8]| (format!("GNU.sparse.{key}"), value.to_vec());
        vec![
            record("major", b"1"),
            record("minor", b"0"),
            record("name", path.as_os_str().as_bytes()),
            record("realsize", self.size.to_string().as_bytes()),
        ]
    }

    /// Sets the name in the header of the entry, which only a reader without this format shows.
    ///
    /// # Errors
    /// No such name fits into the header.
    pub(super) fn name(header: &mut Header, path: &Path, inode: u64) -> Result<()> {
        let above = path.parent().unwrap_or(Path::new("")).join("GNUSparseFile.0");
        let name = path.file_name().map_or_else(|| above.clone(), |name| above.join(name));
        // a path that does not fit is set in part
        let mut whole = header.clone();
        if whole.set_path(name).is_ok() {
            *header = whole;
            return Ok(());
        }
        header.set_path(format!("GNUSparseFile.0/{inode}")).context(|| "name the entry")
    }

    /// The content of the entry, the map and the data, and its length in bytes.
    pub(super) fn content(self, file: std::fs::File) -> (u64, impl Read) {
        let mut pieces = self.pieces;
        // a piece without data says where the file ends
        if pieces.last().is_none_or(|(start, length)| start + length < self.size) {
            pieces.push((self.size, 0));
        }
        let mut map = format!("{}\n", pieces.len());
        for (start, length) in &pieces {
            map.push_str(&format!("{start}\n{length}\n"));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(512), 0);
        let length = map.len() as u64 + pieces.iter().map(|(_, length)| length).sum::<u64>();
        (length, Cursor::new(map).chain(Data { file, pieces: pieces.into_iter(), at: 0, left: 0 }))
    }
}

/// Pieces of data that are found one after the other.
#[derive(Default)]
struct Pieces {
    found: Vec<(u64, u64)>,
    /// The bytes of data in them.
    data: u64,
    /// Holes of up to this many bytes are written out.
    smallest: u64,
}

impl Pieces {
    fn add(&mut self, start: u64, length: u64) {
        self.data += length;
        append(&mut self.found, (start, length), self.smallest);
        while self.found.len() > MAX_PIECES {
            self.smallest = (self.smallest * 2).max(4096);
            for piece in std::mem::take(&mut self.found) {
                append(&mut self.found, piece, self.smallest);
            }
        }
    }

    fn finish(self, size: u64) -> Result<Option<Sparse>> {
        let stored = self.found.iter().map(|(_, length)| length).sum::<u64>();
        if stored - self.data > self.data.saturating_add(MAX_FILLED) {
            return Err(Error::new(format!(
                "a file of {size} bytes with so many holes that an archive can't describe them: remove it, or leave it \
                 out by putting it on a volume"
            )));
        }
        Ok((size.saturating_sub(stored) > FEW).then_some(Sparse { size, pieces: self.found }))
    }
}

/// Appends a piece; joins it to the last one if the hole between them has at most `smallest` bytes.
fn append(pieces: &mut Vec<(u64, u64)>, (start, length): (u64, u64), smallest: u64) {
    match pieces.last_mut() {
        Some((last, long)) if start - (*last + *long) <= smallest => *long = start + length - *last,
        _ => pieces.push((start, length)),
    }
}

/// Reads the pieces of a file one after the other.
struct Data {
    file: std::fs::File,
    pieces: std::vec::IntoIter<(u64, u64)>,
    at: u64,
    left: u64,
}

impl Read for Data {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some((start, length)) = self.pieces.next() else { return Ok(0) };
            (self.at, self.left) = (start, length);
        }
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..want], self.at)?;
        if n == 0 && want > 0 {
            return Err(io::Error::other("the file has just become shorter"));
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::archive::entries::Entries;
    use crate::image::archive::{UnpackLimits, pack_files, unpack_files};
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_stay_holes_in_an_archive_and_out_of_it() {
        let tmp = tempfile::tempdir().unwrap();
        let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
        std::fs::create_dir_all(from.join("d")).unwrap();
        std::fs::create_dir(&to).unwrap();
        let make = |name: &str, size: u64, data: &[(u64, &[u8])]| {
            let file = File::create(from.join(name)).unwrap();
            data.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
            file.set_len(size).unwrap();
        };
        let data = [7; 5000];
        make("d/all-hole", 1 << 40, &[]);
        make("d/middle", 1 << 30, &[(1 << 20, &data), (500 << 20, b"x")]);
        make("d/to-the-end", (1 << 30) + 1, &[(1 << 30, b"x")]);
        make("plain", 5000, &[(0, &data)]);
        rustix::fs::setxattr(from.join("d/middle"), "user.a", b"v\nw", rustix::fs::XattrFlags::empty()).unwrap();
        std::fs::hard_link(from.join("d/middle"), from.join("link")).unwrap();
        let long = format!("{}/{}", "n".repeat(200), "m".repeat(200));
        std::fs::create_dir(from.join("n".repeat(200))).unwrap();
        make(&long, 1 << 30, &[(1 << 20, b"x")]);

        let dir = |path: &Path| File::open(path).unwrap();
        let mut archive = Vec::new();
        let names = crate::image::archive::sorted_names(dir(&from).as_fd()).unwrap();
        pack_files(dir(&from).as_fd(), &names, None, false, &mut archive).unwrap();
        assert!(archive.len() < 100_000, "{} bytes", archive.len());
        let limits = UnpackLimits { bytes: 2 << 40, ..UnpackLimits::default() };
        unpack_files(&archive[..], dir(&to).as_fd(), limits, |_| Ok(())).unwrap();
        for name in ["d/all-hole", "d/middle", "d/to-the-end", "plain", "link", &long] {
            let (was, is) = (from.join(name).metadata().unwrap(), to.join(name).metadata().unwrap());
            assert_eq!((is.len(), is.nlink()), (was.len(), was.nlink()), "{name}");
            assert!(is.blocks() <= 1024, "{name}: {} blocks", is.blocks());
        }
        for (name, at, bytes) in
            [("d/middle", 1 << 20, &data[..]), ("d/middle", 500 << 20, b"x"), ("d/to-the-end", 1 << 30, b"x")]
        {
            let mut read = vec![0; bytes.len()];
            File::open(to.join(name)).unwrap().read_exact_at(&mut read, at).unwrap();
            assert!(read == bytes, "{name} at {at}");
        }
        let mut value = [0; 9];
        let length = rustix::fs::getxattr(to.join("d/middle"), "user.a", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"v\nw");
    }

    #[test]
    fn a_map_of_many_holes_fits_or_the_file_is_refused() {
        let with = |count: u64, apart: u64| {
            let mut pieces = Pieces::default();
            (0..count).for_each(|n| pieces.add(n * apart, 4096));
            pieces.finish(count * apart)
        };
        let sparse = with(100_000, 12_288).unwrap();
        assert!(sparse.is_none(), "small holes are written out when there are too many");
        let sparse = with(30_000, 1 << 30).unwrap().unwrap();
        assert_eq!(sparse.pieces.len(), 30_000);
        let tmp = tempfile::tempfile().unwrap();
        let (length, _) = sparse.content(tmp);
        assert!(length - 30_000 * 4096 < 1 << 20);
        let error = with(30_001, 1 << 30).unwrap_err().one_line();
        assert!(error.contains("so many holes"), "{error}");
    }

    #[test]
    fn the_archive_says_what_gnu_tar_says() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"data", 1 << 20).unwrap();
        file.set_len(2 << 20).unwrap();
        let sparse = Sparse::of(&file, 2 << 20).unwrap().unwrap();
        let (_, mut content) = sparse.content(file);
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        assert!(bytes.starts_with(b"2\n1048576\n4096\n2097152\n0\n\0"), "{:?}", &bytes[..40]);
        assert_eq!(&bytes[512..517], b"data\0");
        let mut header = Header::new_ustar();
        for (path, expected) in [("a/b", "a/GNUSparseFile.0/b"), (&"n".repeat(255)[..], "GNUSparseFile.0/7")] {
            Sparse::name(&mut header, Path::new(path), 7).unwrap();
            assert_eq!(header.path().unwrap(), Path::new(expected));
        }
        assert!(Entries::new(&bytes[..]).next_entry().is_err());
    }
}
