//! Digests of content (OCI image-spec, descriptor.md), and a reader that compares content with its digest.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256, Sha512};
use stage1::error::{Context, Error, Result};

use crate::interrupt;

/// A digest with its algorithm: `sha256:…` or `sha512:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    digits: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Digest {
    /// Parses a digest in OCI notation, `ALGORITHM:DIGITS`.
    ///
    /// # Errors
    /// The algorithm is neither `sha256` nor `sha512`, or the rest is not 64 or 128 lower-case hexadecimal digits.
    pub fn new(text: &str) -> Result<Self> {
        let (algorithm, digits) = text.split_once(':').unwrap_or(("", text));
        let (algorithm, length) = match algorithm {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return Err(Error::new(format!("digest {text:?} is neither sha256 nor sha512"))),
        };
        if digits.len() != length || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::new(format!("digest {text:?} is not {length} hexadecimal digits")));
        }
        Ok(Self { algorithm, digits: digits.to_owned() })
    }

    /// Makes a digest of the hexadecimal digits of a SHA-512, which are not checked.
    pub(crate) fn sha512(digits: &str) -> Self {
        Self { algorithm: Algorithm::Sha512, digits: digits.to_owned() }
    }

    /// The algorithm's name: `sha256` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// The hexadecimal digits.
    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// The SHA-256 of bytes.
    pub(crate) fn sha256_of(bytes: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha256, digits: of_bytes(bytes) }
    }

    /// Whether `bytes` have this digest.
    pub(crate) fn is_of(&self, bytes: &[u8]) -> bool {
        let mut hasher = Hasher::of(self);
        hasher.update(bytes);
        hasher.finish() == self.digits
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.digits)
    }
}

/// Computes a digest of either algorithm.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// Hashes with the algorithm of `digest`.
    pub(crate) fn of(digest: &Digest) -> Self {
        match digest.algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Adds bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The hexadecimal digits of the digest of all bytes added.
    pub(crate) fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Sha512(hasher) => hex(&hasher.finalize()),
        }
    }
}

/// A reader that fails at the end of its source if the content does not have the expected digest.
///
/// A caller that stops before the end must call [`Verified::finish`], which reads the rest and compares.
pub struct Verified<R> {
    source: R,
    /// `None` after the comparison.
    hasher: Option<Hasher>,
    expected: Digest,
    left: u64,
}

impl<R: Read> Verified<R> {
    /// Reads `source`, which must have the digest `expected` and at most `limit` bytes.
    pub fn new(source: R, expected: &Digest, limit: u64) -> Self {
        Self { source, hasher: Some(Hasher::of(expected)), expected: expected.clone(), left: limit }
    }

    /// Reads the rest of the source and compares the digest.
    ///
    /// # Errors
    /// The source can't be read, has more than `limit` bytes, or has another digest.
    pub fn finish(mut self) -> Result<()> {
        io::copy(&mut self, &mut io::sink()).context(|| "read to the end").map(drop)
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        interrupt::check_io()?;
        let n = self.source.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::other("it is larger than allowed"))?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        if n == 0 && !buffer.is_empty() {
            let Some(hasher) = self.hasher.take() else { return Ok(0) };
            let found = hasher.finish();
            if found != self.expected.digits {
                let (algorithm, expected) = (self.expected.algorithm(), &self.expected.digits[..12]);
                let found = &found[..12];
                return Err(io::Error::other(format!(
                    "the content is damaged: its {algorithm} is {found}…, not {expected}…"
                )));
            }
        }
        Ok(n)
    }
}

/// The SHA-256 of a file, as hexadecimal digits. It does not verify anything: use it for the store's own files.
///
/// # Errors
/// The file can't be opened or read.
pub(crate) fn of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).context(|| format!("open {path:?}"))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).context(|| format!("read {path:?}"))? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// The SHA-256 of bytes, as hexadecimal digits.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |number: u8| char::from(b"0123456789abcdef"[usize::from(number)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_content_is_refused_at_its_end() {
        // printf abc | sha256sum
        let digest = Digest::new("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        Verified::new(&b"abc"[..], &digest, 3).finish().unwrap();
        let error = Verified::new(&b"abd"[..], &digest, 3).finish().unwrap_err().one_line();
        assert!(error.contains("damaged"), "{error}");
        assert!(Verified::new(&b"abc"[..], &digest, 2).finish().is_err());
        for bad in ["", "sha256:", "sha256:abc", "md5:00", "sha256:../../../etc/passwd", "sha512:zz"] {
            assert!(Digest::new(bad).is_err(), "{bad}");
        }
    }
}
