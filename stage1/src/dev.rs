//! What every /dev has, a pod's and an app's: nodes, links, terminals.

use crate::error::Result;
use crate::sys::mount::{Attributes, DetachedMount};

/// The device nodes: name, major, minor: null(4), full(4), random(4), tty(4).
pub(crate) const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Nodes that a host may lack, if it keeps the pod from making its own.
pub(crate) const OPTIONAL_NODES: [(&str, u32, u32); 1] = [("net/tun", 10, 200)];

/// The links: target, name.
pub(crate) const LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Terminals of its own for a pod or an app: devpts of the kernel's documentation. Group 5 is that of terminals
/// everywhere.
///
/// # Errors
/// The kernel refuses to make it.
pub(crate) fn new_devpts() -> Result<DetachedMount> {
    let options = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    DetachedMount::new("devpts", &options, Attributes { nosuid: true, noexec: true, ..Attributes::default() })
}
