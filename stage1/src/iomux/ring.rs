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

    /// Has `read` put up to `room` new bytes in place of the oldest ones. It says how many.
    pub(super) fn fill<E>(&mut self, room: u64, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        let start = self.place(self.written);
        let end = self.buffer.len().min(start.saturating_add(usize::try_from(room).unwrap_or(usize::MAX)));
        let count = read(&mut self.buffer[start..end])?;
        self.written += count as u64;
        Ok(count)
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

    fn put(ring: &mut Ring, bytes: &[u8]) -> usize {
        let fill = |place: &mut [u8]| {
            let count = place.len().min(bytes.len());
            place[..count].copy_from_slice(&bytes[..count]);
            Ok::<_, ()>(count)
        };
        ring.fill(bytes.len() as u64, fill).unwrap()
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
                if !bytes.is_empty() {
                    let count = put(&mut ring, &bytes);
                    wrote.extend(&bytes[..count]);
                    next = wrote.last().copied().unwrap_or(0);
                }
                let there = ring.since(read.len() as u64);
                prop_assert_eq!(there.is_empty(), wrote.len() == read.len());
                read.extend(&there[..take_out.min(there.len())]);
            }
            prop_assert_eq!(&read[..], &wrote[..read.len()]);
            prop_assert_eq!(ring.written(), wrote.len() as u64);
            prop_assert_eq!(ring.oldest(), (wrote.len() as u64).saturating_sub(16));
        }
    }
}
