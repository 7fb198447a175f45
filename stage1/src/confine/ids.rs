//! Resolving the user and groups of an app to ids, from its manifest and the account files of its image.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, OFlags};

use super::accounts;
use crate::appc::App;
use crate::error::{Context, Error, Result};
use crate::sys::dir;
use crate::uid_range::UidRange;

/// Maximum size of an image's passwd or group file, in bytes.
const MAX_DATABASE: u64 = 1 << 20;

/// The user and groups of an app, as its manifest has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserRequest<'a> {
    /// A number, an absolute path in the image (its owner), or a name in the image's /etc/passwd. Empty and `root`
    /// are 0.
    pub user: &'a str,
    /// A number, an absolute path in the image (its group), or a name in the image's /etc/group. Empty and `root`
    /// are 0.
    pub group: &'a str,
    /// Supplementary group ids.
    pub supplementary: &'a [u32],
    /// Whether the image was converted from Docker's format: there a group that is not found and equals the user is the
    /// uid.
    pub converted_image: bool,
    /// The pod's range of host ids, if the files of the image were shifted into it: owners of paths are shifted back.
    pub shift: Option<UidRange>,
}

impl<'a> UserRequest<'a> {
    /// The request of `app`.
    pub fn of(app: &'a App, converted_image: bool, shift: Option<UidRange>) -> Self {
        Self { user: &app.user, group: &app.group, supplementary: &app.supplementary_gids, converted_image, shift }
    }
}

/// The ids of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids. [`resolve`] takes them of the request alone: the manifest, not a file of the image,
    /// decides what an app may do.
    pub groups: Vec<u32>,
    /// The user's line in the image's passwd file, for HOME and similar variables.
    pub account: Option<Account>,
}

/// The fields of a user in a passwd(5) file besides the ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// Resolves a user and its groups, with the account files in the app's root directory `root`. Host side.
///
/// # Errors
/// A user or group is unknown or not valid, is beyond the pod's ids, or an account file can't be read. The message
/// names the user or group, and the file.
pub fn resolve(root: BorrowedFd<'_>, request: &UserRequest<'_>) -> Result<Ids> {
    let what = || format!("user {:?}", request.user);
    let user = classify(request.user).context(what)?;
    let passwd = match (read_database(root, "etc/passwd"), &user) {
        (Err(error), Word::Number(_) | Word::Path(_)) => {
            log::debug!("{}: not used", error.one_line());
            Vec::new()
        }
        (read, _) => read?,
    };
    let lines = || accounts::users(&passwd);
    let (uid, account) = match user {
        Word::Number(uid) => (uid, lines().find(|line| line.uid == Some(uid))),
        Word::Path(path) => {
            let uid = owner(root, path, request.shift).context(what)?.0;
            (uid, lines().find(|line| line.uid == Some(uid)))
        }
        Word::Name(name) => {
            let line = lines().find(|line| line.name == name.as_bytes());
            let line = line.context(|| format!("user {name:?} is not in the image's /etc/passwd"))?;
            let uid = line.uid.context(|| format!("user {name:?} has no valid uid in the image's /etc/passwd"))?;
            (uid, Some(line))
        }
    };
    let what = || format!("group {:?}", request.group);
    let gid = match classify(request.group).context(what)? {
        Word::Number(gid) => gid,
        Word::Path(path) => owner(root, path, request.shift).context(what)?.1,
        Word::Name(name) => match find_group(root, name) {
            Err(_) if request.converted_image && request.group == request.user => uid,
            other => other?,
        },
    };
    if let Some(group) = request.supplementary.iter().find(|&&group| group == u32::MAX) {
        return Err(Error::new(format!("supplementary group {group} is out of range")));
    }
    if let Some(shift) = request.shift {
        shift.must_have("user", &[uid])?;
        shift.must_have("group", &[gid])?;
        shift.must_have("supplementary group", request.supplementary)?;
    }
    Ok(Ids { uid, gid, groups: request.supplementary.to_vec(), account: account.as_ref().and_then(self::account) })
}

/// The groups of a user for whom no group was asked: its group in the /etc/passwd of `root`, and those whose lines in
/// /etc/group list it. Group 0 alone if /etc/passwd does not have the user.
///
/// # Errors
/// /etc/passwd or /etc/group exists and can't be read.
pub fn groups_of(root: BorrowedFd<'_>, user: &Ids) -> Result<(u32, Vec<u32>)> {
    let passwd = read_database(root, "etc/passwd")?;
    // Several users may have one uid.
    let is_named = |name: &[u8]| user.account.as_ref().is_none_or(|account| account.name.as_bytes() == name);
    let line = accounts::users(&passwd).find(|line| line.uid == Some(user.uid) && is_named(line.name));
    let Some(line) = line else { return Ok((0, Vec::new())) };
    let own = line.gid.unwrap_or(0);
    Ok((own, accounts::memberships(&read_database(root, "etc/group")?, line.name, own)))
}

fn find_group(root: BorrowedFd<'_>, name: &str) -> Result<u32> {
    let groups = read_database(root, "etc/group")?;
    let line = accounts::groups(&groups).find(|line| line.name == name.as_bytes());
    let line = line.context(|| format!("group {name:?} is not in the image's /etc/group"))?;
    line.gid.context(|| format!("group {name:?} has no valid gid in the image's /etc/group"))
}

#[derive(Debug, PartialEq, Eq)]
enum Word<'a> {
    Number(u32),
    Path(&'a str),
    Name(&'a str),
}

/// Whether a user or group is given by number, path or name. `root` is 0, whatever the image has. Digits are always a
/// number, even if a user has such a name.
fn classify(word: &str) -> Result<Word<'_>> {
    match word {
        "" | "root" => Ok(Word::Number(0)),
        _ if word.bytes().all(|b| b.is_ascii_digit()) => {
            accounts::id(word.as_bytes()).map(Word::Number).context(|| "the number is out of range (0 to 4294967294)")
        }
        _ if word.starts_with('/') => Ok(Word::Path(word)),
        _ if word.bytes().any(|b| matches!(b, b':' | b'/' | 0) || b.is_ascii_control()) => {
            Err(Error::new("it is not a number, an absolute path or a name"))
        }
        _ => Ok(Word::Name(word)),
    }
}

/// The account of a user; `None` if a field can't be the value of an environment variable.
fn account(line: &accounts::User<'_>) -> Option<Account> {
    let text = |bytes: &[u8], default: &str| {
        let text = std::str::from_utf8(bytes).ok().filter(|t| !t.chars().any(char::is_control))?;
        Some(if text.is_empty() { default } else { text }.to_owned())
    };
    Some(Account { name: text(line.name, "root")?, home: text(line.home, "/")?, shell: text(line.shell, "/bin/sh")? })
}

/// Reads an account file of the image; empty if it has none. Only a regular file of a bounded size is read, because the
/// image may have anything there.
fn read_database(root: BorrowedFd<'_>, path: &str) -> Result<Vec<u8>> {
    let what = || format!("the image's /{path}");
    // With O_PATH first: opening a file of another kind may block or have effects.
    let Some(found) = dir::try_open_in(root, path, OFlags::PATH)? else { return Ok(Vec::new()) };
    let stat = rustix::fs::fstat(&found).context(what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::new(format!("{} is not a regular file", what())));
    }
    let fd = dir::open_in(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    if !dir::same_file(&found, &fd)? {
        return Err(Error::new(format!("{} was replaced while it was opened", what())));
    }
    read_bounded(fd, MAX_DATABASE).context(what)
}

/// Reads an open file of at most `limit` bytes.
fn read_bounded(fd: OwnedFd, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(limit + 1).read_to_end(&mut bytes).context(|| "read")?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Owner and group of a file of the image. Symlinks are followed inside the image, the last one too.
fn owner(root: BorrowedFd<'_>, path: &str, shift: Option<UidRange>) -> Result<(u32, u32)> {
    let fd = dir::try_open_in(root, OsStr::from_bytes(path.as_bytes()), OFlags::PATH)?;
    let fd = fd.context(|| format!("{path:?} is not in the image: no such file or directory"))?;
    let stat = rustix::fs::fstat(&fd).context(|| format!("fstat({path:?})"))?;
    match shift {
        None => Ok((stat.st_uid, stat.st_gid)),
        Some(shift) => Ok((shift.to_inside(stat.st_uid)?, shift.to_inside(stat.st_gid)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{chown, symlink};

    struct Image(tempfile::TempDir);

    impl Image {
        fn new(passwd: &str, group: &str) -> Self {
            let tmp = tempfile::tempdir().unwrap();
            std::fs::create_dir(tmp.path().join("etc")).unwrap();
            std::fs::write(tmp.path().join("etc/passwd"), passwd).unwrap();
            std::fs::write(tmp.path().join("etc/group"), group).unwrap();
            Self(tmp)
        }

        fn resolve(&self, request: &UserRequest<'_>) -> Result<Ids> {
            resolve(dir::open_dir(self.0.path()).unwrap().as_fd(), request)
        }

        fn numbers(&self, user: &str, group: &str) -> Result<(u32, u32)> {
            self.resolve(&UserRequest { user, group, ..UserRequest::default() }).map(|ids| (ids.uid, ids.gid))
        }

        fn failure(&self, user: &str, group: &str) -> String {
            self.numbers(user, group).unwrap_err().one_line()
        }
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# web:x:7:7::/:/bin/sh\nbroken\n\
        web:x:33:34:web,,,:/var/www:/bin/false\nweb:x:0:0::/:\nbad:x:-1:0::/:/bin/sh\nlast:x:4294967295:1::/:\n\
        77:x:99:99::/:\nbare:x:12:12::/home/bare";
    const GROUP: &str = "root:x:0:\nwww:x:34:web,root\nbad:x::\n77:x:99:";

    #[test]
    fn numbers_names_and_empty() {
        let image = Image::new(PASSWD, GROUP);
        for (user, group, expected) in [
            ("", "", (0, 0)),
            ("0", "0", (0, 0)),
            ("1000", "2000", (1000, 2000)),
            ("4294967294", "0", (4_294_967_294, 0)),
            ("root", "root", (0, 0)),
            ("web", "www", (33, 34)),
            ("77", "77", (77, 77)),
            ("bare", "0", (12, 0)),
        ] {
            assert_eq!(image.numbers(user, group).unwrap(), expected, "{user:?} {group:?}");
        }
        let ids =
            image.resolve(&UserRequest { user: "web", supplementary: &[5, 6], ..UserRequest::default() }).unwrap();
        let account = Account { name: "web".into(), home: "/var/www".into(), shell: "/bin/false".into() };
        assert_eq!(ids, Ids { uid: 33, gid: 0, groups: vec![5, 6], account: Some(account.clone()) });
        assert_eq!(
            image.resolve(&UserRequest { user: "33", ..UserRequest::default() }).unwrap().account,
            Some(account)
        );
        assert_eq!(image.resolve(&UserRequest { user: "5000", ..UserRequest::default() }).unwrap().account, None);
    }

    #[test]
    fn what_can_not_be_resolved_is_named() {
        let image = Image::new(PASSWD, GROUP);
        for (user, group, words) in [
            ("nobody", "0", "user \"nobody\" is not in the image's /etc/passwd"),
            ("0", "staff", "group \"staff\" is not in the image's /etc/group"),
            ("bad", "0", "no valid uid"),
            ("last", "0", "no valid uid"),
            ("0", "bad", "no valid gid"),
            ("4294967295", "0", "out of range"),
            ("99999999999999999999", "0", "out of range"),
            ("-1", "0", "\"-1\" is not in"),
            ("broken", "0", "is not in"),
            ("# web", "0", "is not in"),
            ("we:b", "0", "not a number, an absolute path or a name"),
            ("we\nb", "0", "not a number, an absolute path or a name"),
            ("a/b", "0", "not a number, an absolute path or a name"),
            ("/nowhere", "0", "\"/nowhere\" is not in the image: no such file or directory"),
            ("0", "/nowhere", "\"/nowhere\" is not in the image: no such file or directory"),
        ] {
            let error = image.failure(user, group);
            assert!(error.contains(words), "{user:?} {group:?}: {error}");
        }
        let beyond = image.resolve(&UserRequest { supplementary: &[u32::MAX], ..UserRequest::default() });
        assert!(beyond.unwrap_err().one_line().contains("4294967295"));
    }

    #[test]
    fn root_is_always_0() {
        for (passwd, group) in [("", ""), ("web:x:1:1::/:\n", "web:x:1:\n"), ("root:x:5:5::/:\n", "root:x:5:\n")] {
            let image = Image::new(passwd, group);
            assert_eq!(image.numbers("root", "root").unwrap(), (0, 0));
        }
        let image = Image::new("", "");
        std::fs::remove_dir_all(image.0.path().join("etc")).unwrap();
        assert_eq!(image.numbers("root", "root").unwrap(), (0, 0));
        let image = Image::new(PASSWD, GROUP);
        assert_eq!(
            image.resolve(&UserRequest { user: "root", ..UserRequest::default() }).unwrap().account.unwrap().home,
            "/root"
        );
    }

    #[test]
    fn converted_images_fall_back_to_the_uid() {
        let image = Image::new(PASSWD, "");
        let request =
            |user, group, converted_image| UserRequest { user, group, converted_image, ..UserRequest::default() };
        assert_eq!(image.resolve(&request("web", "web", true)).unwrap().gid, 33);
        assert!(image.resolve(&request("web", "web", false)).is_err());
        assert!(image.resolve(&request("web", "www", true)).is_err());
    }

    #[test]
    fn a_pod_has_only_its_own_ids() {
        let image = Image::new(PASSWD, GROUP);
        let ids = |user, group, supplementary: &[u32]| {
            let shift = Some(UidRange { first: 100_000, count: 34 });
            image.resolve(&UserRequest { user, group, supplementary, shift, ..UserRequest::default() })
        };
        ids("web", "33", &[0, 33]).unwrap();
        for (user, group, supplementary, words) in [
            ("34", "0", &[][..], "user 34 is beyond the 34 ids"),
            ("web", "www", &[], "group 34 is beyond"),
            ("0", "0", &[1, 70_000], "supplementary group 70000 is beyond"),
        ] {
            let error = ids(user, group, supplementary).unwrap_err().one_line();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn groups_by_the_account_files() {
        let passwd = "root:x:0:0::/:/x\nweb:x:33:34::/:/x\nalias:x:33:35::/:/x\nodd:x:7:::/:/x\n";
        let image = Image::new(passwd, "www:x:34:web\nextra:x:50:root,web\nlog:x:40:web,odd\n");
        let root = dir::open_dir(image.0.path()).unwrap();
        for (user, group, others) in [
            ("root", 0, &[50][..]),
            ("web", 34, &[40, 50]),
            ("33", 34, &[40, 50]),
            ("alias", 35, &[]),
            ("odd", 0, &[40]),
            ("5000", 0, &[]),
        ] {
            let ids = image.resolve(&UserRequest { user, ..UserRequest::default() }).unwrap();
            assert_eq!(groups_of(root.as_fd(), &ids).unwrap(), (group, others.to_vec()), "{user}");
        }
    }

    #[test]
    fn the_owner_of_a_file() {
        let image = Image::new(PASSWD, GROUP);
        let root = image.0.path();
        std::fs::write(root.join("data"), "").unwrap();
        chown(root.join("data"), Some(100_033), Some(100_034)).expect("chown needs root");
        symlink("/data", root.join("link")).unwrap();
        symlink("../../../../etc/passwd", root.join("up")).unwrap();
        assert_eq!(image.numbers("/data", "/link").unwrap(), (100_033, 100_034));
        // A symlink that leads out of the image is resolved inside it.
        chown(root.join("etc/passwd"), Some(5), Some(6)).unwrap();
        assert_eq!(image.numbers("/up", "/up").unwrap(), (5, 6));
        let shifted = |first, count| {
            let shift = Some(UidRange { first, count });
            image.resolve(&UserRequest { user: "/data", group: "/data", shift, ..UserRequest::default() })
        };
        let ids = shifted(100_000, 65_536).unwrap();
        assert_eq!((ids.uid, ids.gid, ids.account.unwrap().name.as_str()), (33, 34, "web"));
        assert!(shifted(100_000, 33).unwrap_err().one_line().contains("not in the user namespace"));
        assert!(shifted(200_000, 33).is_err());
    }

    #[test]
    fn hostile_databases() {
        let image = Image::new("", "");
        let passwd = image.0.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        assert_eq!(image.numbers("5", "5").unwrap(), (5, 5), "none at all");
        symlink("/proc/self/environ", &passwd).unwrap();
        assert_eq!(image.numbers("5", "5").unwrap(), (5, 5), "a link out of the image leads nowhere");
        std::fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(image.failure("web", "0").contains("not a regular file"));
        assert_eq!(image.numbers("5", "5").unwrap(), (5, 5), "a number needs no file");
        std::fs::remove_file(&passwd).unwrap();
        std::fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
        assert!(image.failure("web", "0").contains("larger than"));
    }

    proptest! {
        #[test]
        fn lines_never_panic_and_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..60), uid in 0..u32::MAX) {
            for line in accounts::users(&bytes) {
                let account = account(&line);
                prop_assert!(account.is_none_or(|a| !a.home.contains('\n') && !a.name.contains(':')));
            }
            prop_assert!(accounts::groups(&bytes).all(|group| !group.name.is_empty()));
            let line = format!("x:y:{uid}:0::/h:/s");
            prop_assert_eq!(accounts::users(line.as_bytes()).next().unwrap().uid, Some(uid));
        }
    }
}
