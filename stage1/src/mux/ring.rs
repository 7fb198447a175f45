//! The newest output of an app: a ring buffer that each client reads at its own position.

/// The last bytes of a stream. A position is the number of bytes that came before it since the stream began.
#[derive(Debug)]
pub(super) struct Ring {
    /// Grows with what it holds up to the capacity.
    buffer: Vec<u8>,
    capacity: usize,
    /// The position of the byte that was first put at the start of the buffer.
    base: u64,
    written: u64,
}

impl Ring {
    /// An empty ring for `capacity` bytes. It takes memory as it is filled.
    pub(super) fn new(capacity: usize) -> Self {
        Self { buffer: Vec::new(), capacity, base: 0, written: 0 }
    }

    /// How many bytes it holds at most.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// The position after the newest byte.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The position of the oldest byte that is still there.
    pub(super) fn oldest(&self) -> u64 {
        self.written - self.buffer.len() as u64
    }

    /// Where `position` is in the buffer.
    fn place(&self, position: u64) -> usize {
        usize::try_from((position - self.base) % self.capacity()).expect("below the capacity, which is a usize")
    }

    /// Adds bytes; the oldest ones go if it is full.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if bytes.len() >= self.capacity {
            // Nothing of the old bytes stays.
            let skipped = bytes.len() - self.capacity;
            self.written += skipped as u64;
            self.base = self.written;
            self.buffer.clear();
            rest = &bytes[skipped..];
        }
        while !rest.is_empty() {
            let start = self.place(self.written);
            let (now, later) = rest.split_at(rest.len().min(self.capacity - start));
            if start == self.buffer.len() {
                self.grow(now.len());
                self.buffer.extend_from_slice(now);
            } else {
                self.buffer[start..start + now.len()].copy_from_slice(now);
            }
            self.written += now.len() as u64;
            rest = later;
        }
    }

    /// Counts bytes that reached their reader without this buffer.
    pub(super) fn skip(&mut self, count: usize) {
        self.written += count as u64;
        self.base = self.written;
        self.buffer.clear();
    }

    /// Makes room for `more` bytes at the end of the buffer: at least doubles it, up to the capacity.
    fn grow(&mut self, more: usize) {
        let needed = self.buffer.len() + more;
        if needed > self.buffer.capacity() {
            let wanted = needed.max(2 * self.buffer.capacity()).min(self.capacity);
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
    }

    /// Changes the capacity, and keeps the newest bytes.
    pub(super) fn resize(&mut self, capacity: usize) {
        if capacity == self.capacity {
            return;
        }
        let mut new = Self::new(capacity);
        let mut next = self.oldest().max(self.written.saturating_sub(new.capacity()));
        (new.base, new.written) = (next, next);
        while next < self.written {
            let there = self.since(next);
            new.push(there);
            next += there.len() as u64;
        }
        *self = new;
    }

    /// The bytes from position `from` to the newest one or to the end of the buffer; empty only if there are none.
    pub(super) fn since(&self, from: u64) -> &[u8] {
        let left = usize::try_from(self.written - from).unwrap_or(usize::MAX);
        let start = self.place(from);
        &self.buffer[start..self.buffer.len().min(start.saturating_add(left))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_is_taken_as_it_is_filled() {
        let mut ring = Ring::new(8 << 10);
        assert_eq!(ring.buffer.capacity(), 0);
        ring.push(b"hello\n");
        assert!(ring.buffer.capacity() < 64, "{}", ring.buffer.capacity());
        for _ in 0..5000 {
            ring.push(b"and more\n");
        }
        assert_eq!(ring.buffer.capacity(), 8 << 10);
        // A client has come and gone.
        ring.resize(512 << 10);
        assert!(ring.buffer.capacity() <= 16 << 10, "{}", ring.buffer.capacity());
        ring.resize(8 << 10);
        assert_eq!(ring.buffer.capacity(), 8 << 10);
    }

    proptest! {
        /// Whoever stays within the capacity reads exactly what was written.
        #[test]
        fn readers_see_all_in_order(chunks in proptest::collection::vec((1_usize..20, 0_usize..20), 1..60)) {
            let mut ring = Ring::new(16);
            let (mut wrote, mut read) = (Vec::<u8>::new(), Vec::<u8>::new());
            let mut next = 0_u8;
            for (put_in, take_out) in chunks {
                let room = 16 - (wrote.len() - read.len());
                let bytes: Vec<u8> = (0..put_in.min(room)).map(|_| { next = next.wrapping_add(1); next }).collect();
                ring.push(&bytes);
                wrote.extend(&bytes);
                let there = ring.since(read.len() as u64);
                prop_assert_eq!(there.is_empty(), wrote.len() == read.len());
                read.extend(&there[..take_out.min(there.len())]);
            }
            prop_assert_eq!(&read[..], &wrote[..read.len()]);
            prop_assert_eq!(ring.written(), wrote.len() as u64);
            prop_assert_eq!(ring.oldest(), (wrote.len() as u64).saturating_sub(16));
        }

        /// What is skipped counts, and what was there before is gone.
        #[test]
        fn skipped(before in 0_usize..40, count in 0_usize..40, after in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut ring = Ring::new(16);
            ring.push(&vec![1; before]);
            ring.skip(count);
            let all = (before + count) as u64;
            prop_assert_eq!((ring.written(), ring.oldest()), (all, all));
            prop_assert!(ring.since(all).is_empty());
            after.chunks(5).for_each(|chunk| ring.push(chunk));
            let kept = after.len().min(16);
            prop_assert_eq!(ring.oldest(), all + (after.len() - kept) as u64);
            let (mut read, mut at) = (Vec::new(), ring.oldest());
            while at < ring.written() {
                read.extend_from_slice(ring.since(at));
                at = ring.oldest() + read.len() as u64;
            }
            prop_assert_eq!(&read[..], &after[after.len() - kept..]);
        }

        /// Another size keeps the newest bytes, at their positions.
        #[test]
        fn another_size(bytes in proptest::collection::vec(any::<u8>(), 0..100), size in 1_usize..40) {
            let mut ring = Ring::new(16);
            bytes.chunks(7).for_each(|chunk| ring.push(chunk));
            ring.resize(size);
            prop_assert_eq!(ring.written(), bytes.len() as u64);
            let mut at = bytes.len().saturating_sub(size.min(16));
            while at < bytes.len() {
                let there = ring.since(at as u64);
                prop_assert_eq!(there, &bytes[at..at + there.len()]);
                at += there.len();
            }
            ring.push(b"x");
            prop_assert_eq!(ring.since(bytes.len() as u64), b"x");
        }
    }
}
