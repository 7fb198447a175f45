//! Attempted system calls: none of them harms the machine if it is let through.

use std::ffi::CString;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// `ok`, or the errno's name.
pub fn outcome<T>(result: nix::Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(errno) => format!("{errno:?}"),
    }
}

/// Attempts one call and says how it ended.
pub fn attempt(name: &str) -> Result<String, String> {
    let here = Path::new("/");
    let none = None::<&str>;
    Ok(match name {
        "acct" => outcome(nix::unistd::acct::disable()),
        "chown" => outcome(nix::unistd::chown(here, None, None)),
        "chroot" => outcome(nix::unistd::chroot(here)),
        "clock_settime" => outcome(
            nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME)
                .and_then(|now| nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, now)),
        ),
        "delete_module" => {
            outcome(nix::kmod::delete_module(c"no-such-module-here", nix::kmod::DeleteModuleFlags::O_NONBLOCK))
        }
        "getpid" => outcome(Ok(nix::unistd::getpid())),
        "mknod" => outcome(mknod("/tmp/probe-null", SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3))),
        "mknod-disk" => outcome(mknod("/tmp/probe-disk", SFlag::S_IFBLK, Mode::S_IRWXU, makedev(254, 0))),
        "mount" => outcome(mount(Some("none"), "/tmp", Some("tmpfs"), MsFlags::empty(), none)),
        "packet-socket" => outcome(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)),
        "personality" => outcome(nix::sys::personality::set(nix::sys::personality::Persona::ADDR_COMPAT_LAYOUT)),
        "pivot_root" => outcome(nix::unistd::pivot_root(here, here)),
        "ptrace" => outcome(nix::sys::ptrace::attach(nix::unistd::getppid())),
        "raw-socket" => outcome(socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            nix::sys::socket::SockProtocol::Icmp,
        )),
        "reboot" => outcome(nix::sys::reboot::set_cad_enabled(false)),
        "remount" => outcome(mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none)),
        "sethostname" => outcome(nix::unistd::gethostname().and_then(nix::unistd::sethostname)),
        "setns" => outcome(
            std::fs::File::open("/proc/self/ns/uts")
                .map_err(|e| nix::Error::from_raw(e.raw_os_error().unwrap_or(0)))
                .and_then(|f| setns(f, CloneFlags::CLONE_NEWUTS)),
        ),
        "setuid" => outcome(nix::unistd::setuid(nix::unistd::Uid::from_raw(12345))),
        "umount" => outcome(umount2("/proc", MntFlags::MNT_DETACH)),
        "unix-socket" => outcome(UnixStream::pair().map_err(|e| nix::Error::from_raw(e.raw_os_error().unwrap_or(0)))),
        "unshare-mount" => outcome(unshare(CloneFlags::CLONE_NEWNS)),
        "unshare-user" => outcome(unshare(CloneFlags::CLONE_NEWUSER)),
        "exec-missing" => outcome(nix::unistd::execv(
            &CString::new("/no/such/file").map_err(|e| e.to_string())?,
            &[CString::new("x").map_err(|e| e.to_string())?],
        )),
        other => return Err(format!("{other}: not among the calls that the probe attempts")),
    })
}
