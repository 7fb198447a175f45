//! Image archives: their compression and their hash, unpacking and packing them.
//!
//! An application container image (appc, "App Container Image") is a tar file with a `manifest` and a `rootfs/` at its
//! root. Its content is hostile input.

mod entries;
mod entry_files;
mod hashes;
mod lower;
mod metadata;
mod pack;
mod sparse;
mod unpack;
mod whiteouts;
mod xattrs;
pub(crate) mod zstd;

use std::fmt;
use std::io::{self, BufReader, Read, Write};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256, Sha512};
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest::hex;
use crate::interrupt;

pub use entries::{Entries, Entry};
pub use hashes::Hashes;
pub use pack::pack;
pub(crate) use pack::{pack_files, pack_image, sorted_names};
pub(crate) use unpack::unpack_files;
pub use unpack::{Alone, Whitelist, manifest, unpack, unpack_alone, unpack_layer, unpack_over, unpack_plain};
pub(crate) use whiteouts::{OPAQUE, is_whiteout};
pub(crate) use xattrs::{is_kept, xattr, xattr_names};

/// The deepest nesting of files in an image.
pub(crate) const MAX_DEPTH: usize = 512;
/// The memory limit of the decoder of one archive, in KiB.
const DECODER_KB: u32 = 128 << 10;

/// Limits of what an archive may unpack to. An image beyond them is refused before it fills the disk.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// The most bytes of the uncompressed archive, and of all file contents in it.
    pub bytes: u64,
    /// The most entries.
    pub entries: u64,
    /// Whether device nodes other than null, zero, full, random, urandom, tty and ptmx are allowed.
    pub devices: bool,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, devices: false }
    }
}

/// The compression of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Plain,
    /// gzip, one or more members.
    Gzip,
    /// bzip2, one or more streams.
    Bzip2,
    /// xz, one or more streams.
    Xz,
    /// zstd, one or more frames.
    Zstd,
}

impl Compression {
    /// Detects the compression from the first six bytes of a file; [`Self::Plain`] if it is unknown.
    pub fn detect(start: &[u8]) -> Self {
        const MAGIC: &[(&[u8], Compression)] = &[
            (b"\x1f\x8b", Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            // a skippable frame
            (b"\x50\x2a\x4d\x18", Compression::Zstd),
        ];
        MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map_or(Self::Plain, |(_, found)| *found)
    }
}

/// Decompresses `source` if it has a supported compression; else reads it unchanged.
///
/// # Errors
/// The start of the source can't be read. Damaged data fails a later read.
pub fn decoded<'a>(source: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(1 << 17, source);
    let mut start = [0; 6];
    let mut have = 0;
    while have < start.len() {
        match source.read(&mut start[have..]).context(|| "read the start of the archive")? {
            0 => break,
            n => have += n,
        }
    }
    let whole = io::Cursor::new(start).take(have as u64).chain(source);
    match Compression::detect(&start[..have]) {
        Compression::Plain => Ok(Box::new(whole)),
        Compression::Gzip => Ok(Box::new(MultiGzDecoder::new(whole))),
        Compression::Bzip2 => Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(BufReader::new(whole)))),
        Compression::Xz => Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, DECODER_KB))),
        Compression::Zstd => Ok(Box::new(zstd::Frames::new(whole))),
    }
}

/// The id of an image. Without layers: `sha512-` and the SHA-512 of its uncompressed archive (appc). With layers:
/// `sha256:` and the SHA-256 of its configuration (OCI), in file names `sha256-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ImageId {
    /// The id as a file name.
    name: String,
    /// The id as people see it.
    shown: String,
}

impl ImageId {
    /// The length of the prefix before the digits, the same for both algorithms.
    const PREFIX: usize = "sha512-".len();

    /// Parses a whole id: `sha512-` and 128 lower-case hexadecimal digits, or `sha256:` or `sha256-` and 64.
    ///
    /// # Errors
    /// The text has another form.
    pub fn new(text: &str) -> Result<Self> {
        let is_digits = |digits: &str, length: usize| {
            digits.len() == length && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let config = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-"));
        match (text.strip_prefix("sha512-"), config) {
            (Some(digits), _) if is_digits(digits, 128) => Ok(Self { name: text.to_owned(), shown: text.to_owned() }),
            (_, Some(digits)) if is_digits(digits, 64) => {
                Ok(Self { name: format!("sha256-{digits}"), shown: format!("sha256:{digits}") })
            }
            _ => Err(Error::new(format!(
                "image id {text:?} is not sha512- and 128, or sha256: and 64 hexadecimal digits"
            ))),
        }
    }

    /// The id of an image with this configuration.
    pub(crate) fn of_config(config: &[u8]) -> Self {
        let digits = hex(&Sha256::digest(config));
        Self { name: format!("sha256-{digits}"), shown: format!("sha256:{digits}") }
    }

    /// `sha512-` and the SHA-512 of bytes: the form that pod manifests (appc) use.
    pub(crate) fn sha512_of(bytes: &[u8]) -> Self {
        Self::of_sha512(&Sha512::digest(bytes))
    }

    fn of_sha512(hash: &[u8]) -> Self {
        let text = format!("sha512-{}", hex(hash));
        Self { shown: text.clone(), name: text }
    }

    /// Whether it is the digest of a configuration: then the image has layers, and no archive.
    pub fn is_of_config(&self) -> bool {
        self.name.starts_with("sha256-")
    }

    /// The id as a file name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The hexadecimal digits.
    pub fn digits(&self) -> &str {
        &self.name[Self::PREFIX..]
    }

    /// The prefix and the first 12 digits, for people.
    pub fn short(&self) -> &str {
        &self.shown[..Self::PREFIX + 12]
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A writer that computes the image id of what is written, and fails beyond a size limit.
pub struct Hashed<W> {
    to: W,
    hasher: Sha512,
    total: u64,
    limit: u64,
}

impl<W: Write> Hashed<W> {
    /// Writes to `to`, at most `limits.bytes` bytes.
    pub fn new(to: W, limits: UnpackLimits) -> Self {
        Self { to, hasher: Sha512::new(), total: 0, limit: limits.bytes }
    }

    /// The id of the bytes written, their number, and the wrapped writer.
    pub fn finish(self) -> (ImageId, u64, W) {
        (ImageId::of_sha512(&self.hasher.finalize()), self.total, self.to)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        interrupt::check_io()?;
        let n = self.to.write(bytes)?;
        self.total += n as u64;
        if self.total > self.limit {
            let limit = self.limit;
            return Err(io::Error::other(format!("the archive is larger than {limit} bytes uncompressed")));
        }
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_the_uncompressed_archive() {
        let plain = b"some archive".repeat(100);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        let gz = gz.finish().unwrap();
        let id = |bytes: &[u8]| {
            let mut hashed = Hashed::new(io::sink(), UnpackLimits::default());
            io::copy(&mut decoded(bytes).unwrap(), &mut hashed).unwrap();
            hashed.finish().0.to_string()
        };
        assert_eq!(id(&plain), id(&gz));
        // printf abc | sha512sum
        assert!(id(b"abc").starts_with("sha512-ddaf35a193617abacc417349ae204131"));
        assert!(ImageId::new(&id(b"abc")).is_ok());
    }

    #[test]
    fn a_bomb_is_refused() {
        let limits = UnpackLimits { bytes: 1000, ..UnpackLimits::default() };
        let error = io::copy(&mut io::repeat(0), &mut Hashed::new(io::sink(), limits)).unwrap_err().to_string();
        assert!(error.contains("larger than 1000 bytes"), "{error}");
    }

    #[test]
    fn only_whole_ids_are_ids() {
        for bad in ["", "sha512-", "sha512-abc", "../x", &format!("sha512-{}", "A".repeat(128)), "sha256:00"] {
            assert!(ImageId::new(bad).is_err(), "{bad}");
        }
        // printf abc | sha256sum
        let id = ImageId::of_config(b"abc");
        assert_eq!((id.short(), &id.as_str()[..12]), ("sha256:ba7816bf8f01", "sha256-ba781"));
        assert_eq!(ImageId::new(id.as_str()).unwrap(), ImageId::new(&id.to_string()).unwrap());
    }
}
