//! /etc/hosts of an app: its own writable file, which has localhost and the pod's host name.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::mount_point;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::{MAX_MANIFEST, RuntimeConfig, read_bounded};
use crate::sys::dir::{self, EntryKind};
use crate::sys::mount::{Attributes, DetachedMount, Scope};

const PATH: &str = "/etc/hosts";

/// Maximum size of an image's file, in bytes.
const MAX_HOSTS: u64 = 1 << 20;

/// The content of an app's /etc/hosts.
#[derive(Debug, Default)]
pub struct Hosts(Vec<u8>);

impl Hosts {
    /// The file that the host manager or `run` has provided, otherwise the image's, completed with localhost and the
    /// pod's host name; in mode `host` the provided file as it is. Host side, in the pod directory; `image` is the
    /// app's root.
    ///
    /// # Errors
    /// The file can't be read, or is too large.
    pub fn of(config: &RuntimeConfig, image: &OwnedFd) -> Result<Self> {
        let text = match read_bounded(&layout::hosts(), MAX_MANIFEST) {
            Ok(given) if config.etc_hosts_mode == "host" => return Ok(Self(given)),
            Err(error) if error.errno() == Some(libc::ENOENT) => of_image(image)?,
            given => given?,
        };
        Ok(Self(completed(text, &config.hostname)))
    }

    /// Mounts the file in an app's root. Pod side, in the app's mount namespace, after all masks were cloned: it mounts
    /// over the directory of the masks.
    pub(super) fn attach(&self, root: &DetachedMount) -> Result<()> {
        // In its own file system, so that an app can't fill one that others use.
        let size = (MAX_MANIFEST + MAX_HOSTS).to_string();
        let own = DetachedMount::new("tmpfs", &[("mode", Some("700")), ("size", Some(&size))], Attributes::DATA)?;
        let file = dir::create_in(&own, "hosts", EntryKind::File)?;
        rustix::fs::chmodat(&own, "hosts", Mode::from_raw_mode(0o644), AtFlags::empty()).context(|| "chmod hosts")?;
        let writer = dir::open_beneath(&own, "hosts", OFlags::WRONLY)?;
        std::fs::File::from(writer).write_all(&self.0).context(|| format!("write {PATH}"))?;
        let target = mount_point::of_kind("the pod's /etc/hosts", root, Path::new(PATH), EntryKind::File)?;
        // Before Linux 6.15 only an attached mount can be cloned.
        own.attach_path(layout::MASK_DIR)?;
        DetachedMount::clone_of(file, Scope::One)?.attach(target, Path::new(PATH))
    }
}

/// The content of the image's file; empty if it has none. Anything but a regular file is not opened, and counts as
/// none.
fn of_image(image: &OwnedFd) -> Result<Vec<u8>> {
    let what = || format!("the image's {PATH}");
    let Some(found) = dir::try_open_in(image, PATH, OFlags::PATH)? else { return Ok(Vec::new()) };
    let stat = rustix::fs::fstat(&found).context(what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Vec::new());
    }
    let fd = dir::open_in(image, PATH, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let mut text = Vec::new();
    std::fs::File::from(fd).take(MAX_HOSTS + 1).read_to_end(&mut text).context(what)?;
    if text.len() as u64 > MAX_HOSTS {
        return Err(Error::new(format!("{} is larger than {MAX_HOSTS} bytes", what())));
    }
    Ok(text)
}

/// Adds lines for localhost and for the pod's host name to the text of a hosts(5) file, if it lacks them.
fn completed(mut text: Vec<u8>, hostname: &str) -> Vec<u8> {
    let known = names(&text);
    let (local, own) = (known.contains("localhost"), known.contains(hostname) || hostname.is_empty());
    if !(local && own) && text.last().is_some_and(|&byte| byte != b'\n') {
        text.push(b'\n');
    }
    if !local {
        text.extend(layout::standard_hosts(if own { "" } else { hostname }).bytes());
    } else if !own {
        text.extend(layout::own_hosts_line(hostname).bytes());
    }
    text
}

fn names(text: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(|line| line.split_whitespace().skip(1)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added() {
        let whole = layout::standard_hosts("box");
        for (given, expected) in [
            ("", whole.clone()),
            ("# localhost box\n", format!("# localhost box\n{whole}")),
            ("10.0.0.1 db", format!("10.0.0.1 db\n{whole}")),
            ("127.0.0.1\tlocalhost\n", "127.0.0.1\tlocalhost\n127.0.0.1 box\n".to_owned()),
            ("127.0.0.1 localhost box # x\n", "127.0.0.1 localhost box # x\n".to_owned()),
        ] {
            assert_eq!(completed(given.into(), "box"), expected.as_bytes(), "{given:?}");
        }
        let own = completed(b"10.1.2.3 box\n".to_vec(), "box");
        assert!(String::from_utf8(own).unwrap().starts_with("10.1.2.3 box\n127.0.0.1 localhost localhost.domain"));
    }
}
