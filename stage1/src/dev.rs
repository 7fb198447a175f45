//! What the /dev of a pod and that of each app have in common: nodes, links, terminals.

use crate::error::Result;
use crate::sys::mount::{Attributes, DetachedMount};

/// Character devices, as name, major and minor number: null(4), full(4), random(4), tty(4).
pub(crate) const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Character devices that are left out where the pod can't make its own and the host has none.
pub(crate) const OPTIONAL_NODES: [(&str, u32, u32); 1] = [("net/tun", 10, 200)];

/// Symbolic links, as target and name.
pub(crate) const LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// A new instance of devpts, with its own terminals, for a pod or an app. Group 5 is `tty` in every distribution.
///
/// # Errors
/// The kernel refuses to make it.
pub(crate) fn new_devpts() -> Result<DetachedMount> {
    let options = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    DetachedMount::new("devpts", &options, Attributes { nosuid: true, noexec: true, ..Attributes::default() })
}
