//! What an app has written last: a buffer of fixed size that everybody reads at their own place.

/// The last bytes of a stream. A position is the number of bytes that came before it since the stream began.
#[derive(Debug)]
pub(super) struct Ring {
    buffer: Box<[u8]>,
    written: u64,
}

impl Ring {
    /// Holds `capacity` bytes; memory is taken as it is first written to.
    pub(super) fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity].into_boxed_slice(), written: 0 }
    }

    /// How many bytes it holds.
    pub(super) fn capacity(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// The position after the newest byte.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The position of the oldest byte that is still there.
    pub(super) fn oldest(&self) -> u64 {
        self.written.saturating_sub(self.capacity())
    }

    /// Where `position` is in the buffer.
    fn place(&self, position: u64) -> usize {
        usize::try_from(position % self.capacity()).expect("below the capacity, which is a usize")
    }

    /// Takes new bytes, in place of the oldest ones.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.buffer.len())..];
        self.written += (bytes.len() - kept.len()) as u64;
        let start = self.place(self.written);
        let (first, rest) = kept.split_at(kept.len().min(self.buffer.len() - start));
        self.buffer[start..start + first.len()].copy_from_slice(first);
        self.buffer[..rest.len()].copy_from_slice(rest);
        self.written += kept.len() as u64;
    }

    /// Holds `capacity` bytes from now on: the newest ones of what there is.
    pub(super) fn resize(&mut self, capacity: usize) {
        if capacity == self.buffer.len() {
            return;
        }
        let mut new = Self { buffer: vec![0; capacity].into_boxed_slice(), written: 0 };
        let first = self.oldest().max(self.written.saturating_sub(new.capacity()));
        new.written = first;
        while new.written < self.written {
            let next = self.since(new.written).to_vec();
            new.push(&next);
        }
        *self = new;
    }

    /// The bytes from `from` on, as many as lie together: none only if there are none.
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
