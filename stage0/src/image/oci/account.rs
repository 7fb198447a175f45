//! The user and groups of an OCI image's app, resolved by the image's /etc/passwd and /etc/group.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use stage1::confine::accounts;
use stage1::error::{Context, Result};

use crate::image::overlay_lookup::Merged;

/// How much of an image's `/etc/passwd` and `/etc/group` is read, in bytes.
const ACCOUNT_BYTES: u64 = 4 << 20;

/// The user and groups that an app runs with.
#[derive(Debug, PartialEq)]
pub(crate) struct Account {
    /// A name or number.
    pub(crate) user: String,
    /// A name or number.
    pub(crate) group: String,
    /// The GIDs of the supplementary groups.
    pub(crate) others: Vec<u32>,
}

impl Account {
    /// Parses `User` of an image's configuration (OCI image-spec, config.md): a name or UID, with `:` and a name or
    /// GID, or without. Without a group, the user has the group of `/etc/passwd` and the supplementary groups of
    /// `/etc/group`; a UID that `/etc/passwd` does not list has group 0.
    pub(crate) fn of(text: &str, files: &Merged) -> Result<Self> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let user = if user.is_empty() { "0" } else { user };
        if !group.is_empty() {
            return Ok(Self { user: user.into(), group: group.into(), others: Vec::new() });
        }
        let passwd = read(files, "etc/passwd")?;
        let number = user.parse::<u32>().ok();
        let account = accounts::users(&passwd)
            .find(|line| line.name == user.as_bytes() || (number.is_some() && line.uid == number));
        let Some(account) = account else {
            let group = if number.is_some() { "0" } else { user };
            return Ok(Self { user: user.into(), group: group.into(), others: Vec::new() });
        };
        let group = account.gid.unwrap_or_else(|| {
            let word = String::from_utf8_lossy(account.group);
            log::warn!("/etc/passwd of the image has the group {word:?} for {user:?}: taken for 0");
            0
        });
        let file = read(files, "etc/group")?;
        let others = accounts::memberships(&file, account.name, group);
        Ok(Self { user: user.into(), group: group.to_string(), others })
    }
}

/// The content of a file of the image; empty if it is missing or not a regular file.
fn read(files: &Merged, path: &str) -> Result<Vec<u8>> {
    let file = match files.open_file(Path::new(path))? {
        Some(Ok(file)) => file,
        Some(Err(_)) => {
            log::warn!("/{path} of the image is not a regular file: taken for empty");
            return Ok(Vec::new());
        }
        None => return Ok(Vec::new()),
    };
    let mut bytes = Vec::new();
    File::from(file).take(ACCOUNT_BYTES).read_to_end(&mut bytes).context(|| format!("read /{path} of the image"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_in_all_forms() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/x\nweb:x:33:34::/:/x\nodd:x:7:::/:/x\n")
            .unwrap();
        std::fs::write(root.path().join("etc/group"), "www:x:34:web\nextra:x:50:root,web\nlog:x:40:web\n").unwrap();
        let files = Merged::open([root.path()]).unwrap();
        let account = |text| {
            let found = Account::of(text, &files).unwrap();
            (found.user, found.group, found.others)
        };
        let expect = |user: &str, group: &str, others: &[u32]| (user.to_owned(), group.to_owned(), others.to_vec());
        assert_eq!(account(""), expect("0", "0", &[50]));
        assert_eq!(account("web"), expect("web", "34", &[40, 50]));
        assert_eq!(account("33"), expect("33", "34", &[40, 50]));
        assert_eq!(account("1000"), expect("1000", "0", &[]));
        assert_eq!(account("1000:2000"), expect("1000", "2000", &[]));
        assert_eq!(account("web:log"), expect("web", "log", &[]));
        assert_eq!(account("nobody"), expect("nobody", "nobody", &[]));
        assert_eq!(account("odd"), expect("odd", "0", &[]));
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        std::fs::create_dir(root.path().join("etc/passwd")).unwrap();
        assert_eq!(account("web"), expect("web", "web", &[]));
    }
}
