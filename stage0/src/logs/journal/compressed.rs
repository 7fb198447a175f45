//! Fields of journal files that are compressed, unpacked within bounds.

use std::io::{self, Read};

use stage1::error::{Context, Error, Result};

use crate::image::archive::zstd::Frames;

/// Memory that the decoder of an xz stream may take, in KiB.
const XZ_KB: u32 = 64 << 10;

/// How a field is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Not at all.
    None,
    /// xz.
    Xz,
    /// Blocks of LZ4, after the size of what is in them.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// As the flags of an object say it.
    pub(super) fn of(flags: u8) -> Result<Self> {
        match flags {
            0 => Ok(Self::None),
            1 => Ok(Self::Xz),
            2 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(Error::new(format!("a field has the unknown flags {other:#x}"))),
        }
    }

    /// The start of what was packed: at most `limit` bytes.
    pub(super) fn unpack(self, packed: &[u8], limit: usize) -> Result<Vec<u8>> {
        let unpacked = match self {
            Self::None => Ok(packed[..packed.len().min(limit)].to_owned()),
            Self::Xz => start_of(lzma_rust2::XzReader::new_mem_limit(packed, false, XZ_KB), limit),
            Self::Zstd => start_of(Frames::new(packed), limit),
            Self::Lz4 => lz4(packed, limit),
        };
        unpacked.context(|| "unpack a field")
    }
}

fn start_of(source: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// LZ4 can't be unpacked in part: what is larger than [`super::MAX_FIELD`] is refused.
fn lz4(packed: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let failed = |why: &str| io::Error::other(format!("lz4: {why}"));
    let (size, block) = packed.split_first_chunk().ok_or_else(|| failed("the block is too short"))?;
    let size = u64::from_le_bytes(*size);
    if size > super::MAX_FIELD as u64 {
        return Err(failed("the field is too large"));
    }
    let mut bytes = lz4_flex::block::decompress(block, size as usize).map_err(|error| failed(&error.to_string()))?;
    bytes.truncate(limit);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compression_is_unpacked_and_bounded() {
        let text = "MESSAGE=".to_owned() + &"a line like others ".repeat(5000);
        let with = |program: &str| {
            use std::io::Write;
            use std::process::{Command, Stdio};
            let mut child =
                Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            child.wait_with_output().unwrap().stdout
        };
        // One sequence of literals: the longest way to say it.
        let mut lz4 = (text.len() as u64).to_le_bytes().to_vec();
        lz4.push(0xf0);
        lz4.extend(std::iter::repeat_n(255, (text.len() - 15) / 255));
        lz4.push(((text.len() - 15) % 255) as u8);
        lz4.extend(text.as_bytes());
        for (how, packed) in [
            (Compression::None, text.as_bytes().to_owned()),
            (Compression::Xz, with("xz")),
            (Compression::Zstd, with("zstd")),
            (Compression::Lz4, lz4),
        ] {
            assert!(how.unpack(&packed, 1 << 20).unwrap() == text.as_bytes(), "{how:?}");
            assert_eq!(how.unpack(&packed, 9).unwrap(), b"MESSAGE=a", "{how:?}");
            if how != Compression::None {
                let cut = &packed[..packed.len() / 2];
                assert!(how.unpack(cut, 1 << 20).is_err(), "{how:?}");
                assert!(how.unpack(&[], 9).is_err() || how == Compression::Zstd, "{how:?}");
            }
        }
        let mut bomb = u64::MAX.to_le_bytes().to_vec();
        bomb.extend([0; 16]);
        assert!(Compression::Lz4.unpack(&bomb, 10).unwrap_err().one_line().contains("too large"));
        assert!(Compression::of(3).is_err());
    }
}
