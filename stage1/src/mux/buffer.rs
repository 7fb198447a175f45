//! Buffers that are reused. Host side.

/// How many bytes of log lines are gathered before they are written.
pub(super) const GATHER: usize = 256 << 10;

/// Empties a buffer for its next use, and frees memory beyond twice [`GATHER`].
pub(super) fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(2 * GATHER);
}
