//! Reading the extended attributes of files (xattr(7)), and which of them belong to an image.

use std::os::fd::BorrowedFd;

use rustix::fs;
use rustix::io::Errno;

use super::whiteouts::OPAQUE;

/// The size of the buffer on the stack for names, in bytes; longer lists take memory from the heap.
const FEW_NAMES: usize = 512;

/// Whether an extended attribute of this name belongs to an image.
pub(crate) fn is_kept(name: &str) -> bool {
    name.starts_with("user.") || name == "security.capability" || name.starts_with("system.posix_acl_")
}

/// The names of a file's extended attributes; an empty list on a file system without them.
pub(crate) fn xattr_names(fd: BorrowedFd<'_>) -> std::result::Result<Vec<String>, Errno> {
    let mut few = [0u8; FEW_NAMES];
    let mut many = Vec::new();
    let mut listed = fs::flistxattr(fd, &mut few[..]);
    let mut buffer = &few[..];
    if listed == Err(Errno::RANGE) {
        many.resize(1 << 16, 0u8);
        listed = fs::flistxattr(fd, &mut many[..]);
        buffer = &many;
    }
    let size = match listed {
        Ok(size) => size,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let names = buffer[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect())
}

/// Whether a file has an extended attribute that the list of a tree records.
pub(crate) fn has_attributes(fd: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    Ok(xattr_names(fd)?.iter().any(|name| is_kept(name) || name == OPAQUE))
}

/// The value of an extended attribute, of at most 64 KiB, the kernel's limit.
pub(crate) fn xattr(fd: BorrowedFd<'_>, name: &str) -> std::result::Result<Vec<u8>, Errno> {
    let mut buffer = vec![0u8; 1 << 16];
    let size = fs::fgetxattr(fd, name, &mut buffer[..])?;
    buffer.truncate(size);
    Ok(buffer)
}
