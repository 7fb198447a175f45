//! Headers of SPDY/3: names and values, compressed by one zlib stream for each direction of a connection.
//!
//! The peer's headers are inflated, with limits. Ours are written as stored (uncompressed) blocks of zlib's format:
//! they are few and short.

use flate2::{Decompress, FlushDecompress, Status};

use super::broken::{Broken, Result};
use super::dictionary::dictionary;

/// Names and values, in the order of the block.
pub type Headers = Vec<(String, String)>;

/// The longest block of headers after inflation, in bytes.
const LONGEST: usize = 64 << 10;
/// The most headers of a block.
const MOST: usize = 100;
/// The first two bytes of a zlib stream without a dictionary (RFC 1950).
const PLAIN_ZLIB: [u8; 2] = [0x78, 0x01];
/// A block without bytes: Go's reader gives what came before only when it has seen one.
const FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// Inflates the peer's blocks, in order.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Inflates and parses the next block.
    ///
    /// # Errors
    /// The block is malformed or too long, or has too many headers.
    pub(super) fn headers(&mut self, block: &[u8]) -> Result<Headers> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>> {
        const DAMAGED: Broken = Broken("headers that can't be inflated");
        let (mut rest, mut out, mut piece) = (block, Vec::new(), [0; 4096]);
        loop {
            let before = (self.0.total_in(), self.0.total_out());
            let inflated = self.0.decompress(rest, &mut piece, FlushDecompress::Sync);
            let read = usize::try_from(self.0.total_in() - before.0).map_err(|_| DAMAGED)?;
            let written = usize::try_from(self.0.total_out() - before.1).map_err(|_| DAMAGED)?;
            rest = &rest[read..];
            out.extend_from_slice(&piece[..written]);
            if out.len() > LONGEST {
                return Err(Broken("too long headers"));
            }
            match inflated {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| Broken("headers with an unknown dictionary"))?;
                }
                Ok(Status::Ok | Status::BufError) if rest.is_empty() && written < piece.len() => return Ok(out),
                Ok(Status::Ok) if read + written > 0 => {}
                _ => return Err(DAMAGED),
            }
        }
    }
}

/// Parses a block: the number of headers, then the name and the value of each, preceded by their lengths.
fn parse(block: &[u8]) -> Result<Headers> {
    const SHORT: Broken = Broken("headers that end too early");
    let mut rest = block;
    let number = |rest: &mut &[u8]| -> Result<usize> {
        let (head, tail) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        *rest = tail;
        Ok(u32::from_be_bytes(*head) as usize)
    };
    let text = |rest: &mut &[u8]| -> Result<String> {
        let length = number(rest)?;
        let (head, tail) = rest.split_at_checked(length).ok_or(SHORT)?;
        *rest = tail;
        String::from_utf8(head.to_vec()).map_err(|_| Broken("headers that are not UTF-8"))
    };
    let count = number(&mut rest)?;
    if count > MOST {
        return Err(Broken("too many headers"));
    }
    (0..count).map(|_| Ok((text(&mut rest)?.to_ascii_lowercase(), text(&mut rest)?))).collect()
}

/// The first value of a header; several values are separated by NUL bytes.
pub fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(other, _)| other == name)?;
    value.split('\0').next()
}

/// Writes our blocks.
#[derive(Default)]
pub(super) struct Deflater {
    begun: bool,
}

impl Deflater {
    /// A block without headers.
    pub(super) fn none(&mut self) -> Vec<u8> {
        let block = 0u32.to_be_bytes();
        let length = u16::try_from(block.len()).unwrap_or_default();
        let mut out = if std::mem::replace(&mut self.begun, true) { Vec::new() } else { PLAIN_ZLIB.to_vec() };
        // a stored block that is not the last one (RFC 1951, 3.2.4)
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
        out.extend(FLUSH);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    /// The plain text of a block.
    fn plain(headers: &[(&str, &str)]) -> Vec<u8> {
        let length = |text: &str| u32::try_from(text.len()).unwrap().to_be_bytes();
        let mut out = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            out.extend(length(text));
            out.extend(text.as_bytes());
        }
        out
    }

    fn compressed(by: &mut Compress, block: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 << 10);
        by.compress_vec(block, &mut out, FlushCompress::Sync).unwrap();
        out
    }

    #[test]
    fn one_stream_goes_over_all_blocks() {
        let mut by = Compress::new(Compression::best(), true);
        let mut reader = Inflater::new();
        for round in 0..100 {
            let number = round.to_string();
            let block = plain(&[("streamtype", "error"), ("port", "80"), ("requestid", &number)]);
            let headers = reader.headers(&compressed(&mut by, &block)).unwrap();
            assert_eq!((value(&headers, "streamtype"), value(&headers, "requestid")), (Some("error"), Some(&*number)));
        }
    }

    #[test]
    fn what_is_too_much_or_damaged_is_refused() {
        let refused = |block: &[u8]| {
            let mut by = Compress::new(Compression::best(), true);
            Inflater::new().headers(&compressed(&mut by, block)).unwrap_err()
        };
        let large = "x".repeat(LONGEST);
        assert_eq!(refused(&plain(&[("a", &large)])), Broken("too long headers"));
        assert_eq!(refused(&vec![0; 100 << 20][..1 << 20]), Broken("too long headers"));
        assert_eq!(refused(&plain(&[("a", "b"); MOST + 1])), Broken("too many headers"));
        assert_eq!(refused(&u32::MAX.to_be_bytes()), Broken("too many headers"));
        assert_eq!(refused(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), Broken("headers that end too early"));
        assert_eq!(refused(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0]), Broken("headers that are not UTF-8"));
        assert_eq!(Inflater::new().headers(&[0x78]).unwrap_err(), Broken("headers that end too early"));
        assert_eq!(Inflater::new().headers(b"GET / HTTP").unwrap_err().0, "headers that can't be inflated");
        let other_dictionary = [0x78, 0xbb, 1, 2, 3, 4, 0];
        assert_eq!(Inflater::new().headers(&other_dictionary).unwrap_err().0, "headers with an unknown dictionary");
    }

    #[test]
    fn answers_are_zlib() {
        let mut deflater = Deflater::default();
        let mut reader = Decompress::new(true);
        for _ in 0..3 {
            let mut out = Vec::with_capacity(100);
            reader.decompress_vec(&deflater.none(), &mut out, FlushDecompress::Sync).unwrap();
            assert_eq!(out, [0; 4]);
        }
        // what Go's reader has read, twice
        let mut deflater = Deflater::default();
        assert_eq!(deflater.none(), b"\x78\x01\0\x04\0\xfb\xff\0\0\0\0\0\0\0\xff\xff");
        assert_eq!(deflater.none(), b"\0\x04\0\xfb\xff\0\0\0\0\0\0\0\xff\xff");
    }

    proptest! {
        #[test]
        fn any_headers_are_read_as_they_were(blocks in proptest::collection::vec(
            proptest::collection::vec(("[a-z:]{0,20}", "\\PC{0,300}"), 0..20), 1..20))
        {
            let mut by = Compress::new(Compression::default(), true);
            let mut reader = Inflater::new();
            for block in &blocks {
                let given: Vec<(&str, &str)> = block.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                prop_assert_eq!(&reader.headers(&compressed(&mut by, &plain(&given))).unwrap(), block);
            }
        }

        #[test]
        fn noise_ends_in_an_error_or_headers(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Inflater::new();
            let _ = reader.headers(&noise);
            let _ = reader.headers(&[&[0x78, 0xbb, 1, 2, 3, 4][..], &noise].concat());
            // the checksum of the dictionary of SPDY/3
            let _ = Inflater::new().headers(&[&[0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2][..], &noise].concat());
            let _ = parse(&noise);
        }
    }
}
