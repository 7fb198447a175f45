//! Buffers that are used again and again. Host side.

/// How many bytes are gathered before they are written.
pub(super) const GATHER: usize = 128 << 10;

/// Empties a buffer that is used again. One that has become large gives its memory back.
pub(super) fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(2 * GATHER);
}
