//! A number in memory that two processes share: mmap(2).

use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;

use crate::error::{Context, Result};

/// What is mapped, in bytes; the kernel maps whole pages.
const SIZE: usize = size_of::<AtomicI32>();

/// A number, 0 at first, that this process and the children share that it forks from now on.
#[derive(Debug)]
pub struct SharedNumber(NonNull<AtomicI32>);

impl SharedNumber {
    /// Maps it.
    ///
    /// # Errors
    /// mmap(2) fails.
    pub fn new() -> Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address that the kernel chooses, so no memory in use changes.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, kind, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(Errno::last()).context(|| "mmap");
        }
        Ok(Self(NonNull::new(address.cast()).context(|| "mmap: address 0")?))
    }

    /// Keeps it from the children that this process forks from now on: madvise(2), MADV_DONTFORK. They have to forget
    /// this value ([`std::mem::forget`]).
    ///
    /// # Errors
    /// madvise(2) fails.
    pub fn keep_from_children(&self) -> Result<()> {
        // SAFETY: the range is this value's mapping, which stays as it is in this process.
        let done = unsafe { libc::madvise(self.0.as_ptr().cast(), SIZE, libc::MADV_DONTFORK) };
        Errno::result(done).map(drop).context(|| "madvise(MADV_DONTFORK)")
    }

    /// Sets the number.
    pub fn set(&self, number: i32) {
        self.number().store(number, Ordering::Release);
    }

    /// The number that was set last by one of the processes.
    pub fn get(&self) -> i32 {
        self.number().load(Ordering::Acquire)
    }

    fn number(&self) -> &AtomicI32 {
        // SAFETY: the mapping is aligned to a page, zeroed, which is a valid number, and lives as long as this value.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedNumber {
    fn drop(&mut self) {
        // SAFETY: this value's mapping, to which no reference is left.
        unsafe { libc::munmap(self.0.as_ptr().cast(), SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_number() {
        let number = SharedNumber::new().unwrap();
        assert_eq!(number.get(), 0);
        number.set(-7);
        number.keep_from_children().unwrap();
        assert_eq!(number.get(), -7);
    }
}
