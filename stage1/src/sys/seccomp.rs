//! Loading a seccomp filter, and joining a new session keyring.

use crate::error::{Context, Error, Result};

/// One instruction of a classic BPF program: the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Number of instructions to skip if the test of a jump is true.
    pub jt: u8,
    /// Number of instructions to skip if it is false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Installs a filter for this thread; it can't be removed: seccomp(2), SECCOMP_SET_MODE_FILTER with `flags`.
///
/// # Errors
/// `program` is empty or has more than 65535 instructions; EACCES with neither no_new_privs nor CAP_SYS_ADMIN; EINVAL
/// for a program that the kernel refuses.
pub fn load(program: &[Instruction], flags: u32) -> Result<()> {
    let mut filter: Vec<libc::sock_filter> =
        program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let len = u16::try_from(filter.len()).ok().filter(|&n| n > 0);
    let len = len.ok_or_else(|| Error::new(format!("a seccomp filter of {} instructions", filter.len())))?;
    let fprog = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `fprog` points to `len` initialised instructions that outlive the call; the kernel
    // copies and checks them.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) };
    nix::errno::Errno::result(done).map(drop).context(|| format!("seccomp(SET_MODE_FILTER, {len} instructions)"))
}

/// Leaves the inherited session keyring and joins a new, empty one: keyctl(2), KEYCTL_JOIN_SESSION_KEYRING. Does
/// nothing if the kernel has no keyrings.
///
/// # Errors
/// keyctl(2) fails for another reason than a kernel without keyrings.
pub fn new_session_keyring() -> Result<()> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING with a null name reads no memory of ours.
    let done =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    match nix::errno::Errno::result(done) {
        Ok(_) | Err(nix::errno::Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).context(|| "keyctl(JOIN_SESSION_KEYRING)"),
    }
}
