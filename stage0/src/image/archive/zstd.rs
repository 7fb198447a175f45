//! Decoding all frames of a zstd file (RFC 8878) in turn, and verifying their checksums.

use std::io::{self, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// A reader of the content of all frames.
pub struct Frames<R: Read> {
    state: State<R>,
}

enum State<R: Read> {
    Between(R),
    Within(R, Box<FrameDecoder>),
    Ended,
}

impl<R: Read> Frames<R> {
    /// Decodes `source`; a frame may use up to 128 MiB of memory.
    pub fn new(source: R) -> Self {
        Self { state: State::Between(source) }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Ok(0),
                State::Between(source) => self.state = next_frame(source)?,
                State::Within(mut source, mut decoder) => {
                    while decoder.can_collect() == 0 && !decoder.is_finished() {
                        decoder.decode_blocks(&mut source, BlockDecodingStrategy::UptoBlocks(1)).map_err(failed)?;
                    }
                    let n = decoder.read(buffer)?;
                    if n > 0 {
                        self.state = State::Within(source, decoder);
                        return Ok(n);
                    }
                    let stored = decoder.get_checksum_from_data();
                    if stored.is_some() && stored != decoder.get_calculated_checksum() {
                        return Err(io::Error::other("zstd: the checksum is wrong"));
                    }
                    self.state = State::Between(source);
                }
            }
        }
    }
}

/// Skips skippable frames and starts the next frame, if there is one.
fn next_frame<R: Read>(mut source: R) -> io::Result<State<R>> {
    loop {
        let mut first = [0];
        if source.read(&mut first)? == 0 {
            return Ok(State::Ended);
        }
        let mut header = first.chain(&mut source);
        let mut decoder = FrameDecoder::new();
        match decoder.init(&mut header) {
            Ok(()) => return Ok(State::Within(source, Box::new(decoder))),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = u64::from(length);
                if io::copy(&mut (&mut source).take(length), &mut io::sink())? < length {
                    return Err(io::Error::other("zstd: the file ends within a frame"));
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

fn failed(error: FrameDecoderError) -> io::Error {
    io::Error::other(format!("zstd: {error}"))
}
