//! The loopback interface of a network namespace.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::{Context, Result};

/// Brings up `lo` in this process's network namespace: netdevice(7).
///
/// # Errors
/// This process lacks CAP_NET_ADMIN over the network namespace.
pub fn loopback_up() -> Result<()> {
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .context(|| "socket(AF_INET)")?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    let flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).context(|| "interface flags")?;
    let request = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: `request` is a complete ifreq that outlives the call, and the descriptor is open.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    nix::errno::Errno::result(done).map(drop).context(|| "ioctl(SIOCSIFFLAGS, lo up)")
}
