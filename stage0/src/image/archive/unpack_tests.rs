use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{self, FileType, Mode};
use tar::{Builder, Header};

use super::super::pack;
use super::*;

/// One entry of a test archive: kind, name, link target, content.
type Made<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

/// An archive with a manifest and the given entries, whose names are not changed.
fn archive(entries: &[Made<'_>]) -> Vec<u8> {
    archive_of([(EntryType::Regular, "manifest", "", &b"{}"[..])].iter().chain(entries))
}

/// An archive of these entries alone.
fn archive_of<'a>(entries: impl IntoIterator<Item = &'a Made<'a>>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Sandbox {
    base: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("root")).unwrap();
        std::fs::create_dir(base.path().join("outside")).unwrap();
        Self { base }
    }

    fn root(&self) -> PathBuf {
        self.base.path().join("root")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let root = std::fs::File::open(self.root()).unwrap();
        unpack(bytes, root.as_fd(), UnpackLimits::default())
    }

    /// Whether no file was made or removed beside the root.
    fn outside_is_untouched(&self) -> bool {
        let names = |path: &Path| path.read_dir().unwrap().count();
        names(self.base.path()) == 2 && names(&self.base.path().join("outside")) == 0
    }
}

use EntryType as T;

#[test]
fn hostile_entries_are_refused_in_one_line() {
    let cases: &[(&str, &[Made<'_>])] = &[
        ("leaves the image", &[(T::Regular, "../outside/a", "", b"x")]),
        ("leaves the image", &[(T::Regular, "rootfs/../../outside/a", "", b"x")]),
        ("leaves the image", &[(T::Directory, "rootfs/..", "", b"")]),
        ("neither the manifest nor below rootfs/", &[(T::Regular, "etc/passwd", "", b"x")]),
        ("neither the manifest nor below rootfs/", &[(T::Regular, "rootfsx/a", "", b"x")]),
        ("neither the manifest nor below rootfs/", &[(T::Regular, "manifest/a", "", b"x")]),
        ("not a regular file", &[(T::Symlink, "manifest", "/etc/passwd", b"")]),
        ("is not a directory", &[(T::Symlink, "rootfs", "/", b"")]),
        ("is not a directory", &[(T::Regular, "rootfs", "", b"x")]),
        ("leaves the image", &[(T::Link, "rootfs/a", "rootfs/../../outside/b", b"")]),
        ("outside rootfs", &[(T::Link, "rootfs/a", "manifest", b"")]),
        ("neither the manifest nor below rootfs/", &[(T::Link, "rootfs/a", "/etc/passwd", b"")]),
        ("hard link to \"rootfs/missing\"", &[(T::Link, "rootfs/a", "rootfs/missing", b"")]),
        ("which is the root", &[(T::Link, "rootfs/a", "rootfs", b"")]),
        ("Not a directory", &[(T::Regular, "rootfs/a", "", b"x"), (T::Regular, "rootfs/a/b", "", b"x")]),
        ("link to nowhere", &[(T::Symlink, "rootfs/l", "/gone", b""), (T::Regular, "rootfs/l/x", "", b"x")]),
        ("rootfs/l", &[(T::Symlink, "rootfs/l", "l", b""), (T::Regular, "rootfs/l/x", "", b"x")]),
        ("comes twice", &[(T::Regular, "rootfs/d/f", "", b"x"), (T::Regular, "rootfs/d", "", b"x")]),
        ("unknown kind", &[(T::new(b'V'), "rootfs/v", "", b"")]),
    ];
    for (want, entries) in cases {
        let sandbox = Sandbox::new();
        let error = sandbox.unpack(&archive(entries)).unwrap_err().one_line();
        assert!(error.contains(want), "{entries:?}: {error}");
        assert!(sandbox.outside_is_untouched(), "{entries:?}");
    }
}

#[test]
fn links_that_point_outside_stay_inside() {
    let sandbox = Sandbox::new();
    let outside = sandbox.base.path().join("outside");
    let outside = outside.to_str().unwrap();
    let up = "../../../../../../../../../../tmp";
    sandbox
        .unpack(&archive(&[
            (T::Symlink, "rootfs/abs", outside, b""),
            (T::Directory, &format!("rootfs{outside}"), "", b""),
            (T::Regular, "rootfs/abs/file", "", b"x"),
            (T::Symlink, "rootfs/up", up, b""),
            (T::Directory, "rootfs/tmp", "", b""),
            (T::Regular, "rootfs/up/other", "", b"y"),
            (T::Symlink, "rootfs/final", outside, b""),
            (T::Regular, "rootfs/final", "", b"replaced"),
        ]))
        .unwrap();
    assert!(sandbox.outside_is_untouched());
    let inside = sandbox.root().join(outside.strip_prefix('/').unwrap());
    assert_eq!(std::fs::read(inside.join("file")).unwrap(), b"x");
    assert_eq!(std::fs::read(sandbox.root().join("tmp/other")).unwrap(), b"y");
    assert_eq!(std::fs::read(sandbox.root().join("final")).unwrap(), b"replaced");
    assert!(sandbox.root().join("final").symlink_metadata().unwrap().is_file());
}

#[test]
fn the_last_of_two_entries_counts_and_a_hard_link_to_itself_is_kept() {
    let sandbox = Sandbox::new();
    sandbox
        .unpack(&archive(&[
            (T::Regular, "rootfs/f", "", b"first, and longer"),
            (T::Regular, "rootfs/f", "", b"second"),
            (T::Regular, "./rootfs/g", "", b"g"),
            (T::Link, "rootfs/h", "rootfs/g", b""),
            (T::Link, "rootfs/g", "rootfs/h", b""),
            (T::Directory, "rootfs/d", "", b""),
            (T::Symlink, "rootfs/d", "f", b""),
        ]))
        .unwrap();
    assert_eq!(std::fs::read(sandbox.root().join("f")).unwrap(), b"second");
    assert_eq!(std::fs::read(sandbox.root().join("g")).unwrap(), b"g");
    assert_eq!(sandbox.root().join("g").metadata().unwrap().nlink(), 2);
    assert_eq!(std::fs::read_link(sandbox.root().join("d")).unwrap(), Path::new("f"));
}

#[test]
fn damage_is_found() {
    let sandbox = Sandbox::new();
    let whole = archive(&[(T::Regular, "rootfs/f", "", &[7; 5000])]);
    assert!(sandbox.unpack(&whole[..whole.len() - 4000]).is_err());
    let error = sandbox.unpack(b"this is not an archive").unwrap_err().one_line();
    assert!(error.contains("tar"), "{error}");
    let error = sandbox.unpack(&whole[512 * 2..]).unwrap_err().one_line();
    assert!(error.contains("no manifest"), "{error}");
    let error = sandbox.unpack(&archive(&[])).unwrap_err().one_line();
    assert!(error.contains("no rootfs"), "{error}");
}

#[test]
fn limits_hold() {
    let sandbox = Sandbox::new();
    let root = std::fs::File::open(sandbox.root()).unwrap();
    let bytes = archive(&[(T::Regular, "rootfs/a", "", &[1; 600]), (T::Regular, "rootfs/b", "", &[1; 600])]);
    let with = |bytes: &[u8], limits| unpack(bytes, root.as_fd(), limits).unwrap_err().one_line();
    assert!(with(&bytes, UnpackLimits { bytes: 1000, entries: 10, devices: false }).contains("larger than allowed"));
    assert!(with(&bytes, UnpackLimits { bytes: 10_000, entries: 2, devices: false }).contains("more than 2 entries"));
}

#[test]
fn overlay_attributes_are_refused() {
    let sandbox = Sandbox::new();
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.trusted.overlay.redirect", &b"/etc"[..])]).unwrap();
    let mut header = Header::new_gnu();
    header.set_entry_type(T::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_data(&mut header, "rootfs/d", std::io::empty()).unwrap();
    header.set_entry_type(T::Regular);
    builder.append_data(&mut header, "manifest", std::io::empty()).unwrap();
    let error = sandbox.unpack(&builder.into_inner().unwrap()).unwrap_err().one_line();
    assert!(error.contains("trusted.overlay.redirect"), "{error}");
}

#[test]
fn devices_below_dev_are_left_out_and_elsewhere_refused() {
    let (null, console) = ((1, 3), (5, 1));
    let archive = |path: &str, (major, minor)| {
        let mut builder = Builder::new(Vec::new());
        for (kind, path) in [(T::Char, path), (T::Directory, "rootfs/kept"), (T::Regular, "manifest")] {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
            builder.append_data(&mut header, path, std::io::empty()).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let sandbox = Sandbox::new();
    sandbox.unpack(&archive("rootfs/dev/console", console)).unwrap();
    assert!(sandbox.root().join("kept").exists() && !sandbox.root().join("dev/console").exists());
    let error = sandbox.unpack(&archive("rootfs/srv/console", console)).unwrap_err().one_line();
    assert!(error.contains("5:1") && error.contains("--devices"), "{error}");
    if rustix::process::geteuid().is_root() {
        sandbox.unpack(&archive("rootfs/dev/null", null)).unwrap();
        assert!(sandbox.root().join("dev/null").exists());
    }
}

#[test]
fn a_layer_that_stands_alone_marks_what_it_removes() {
    use crate::image::archive::{OPAQUE, is_whiteout, unpack_alone};
    assert!(rustix::process::geteuid().is_root(), "overlayfs's marks take root");
    let unpack = |entries: &[(EntryType, &str, &[u8])]| {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let made: Vec<Made<'_>> = entries.iter().map(|(kind, name, content)| (*kind, *name, "", *content)).collect();
        let alone = unpack_alone(&archive_of(&made)[..], root.as_fd(), &mut UnpackLimits::default());
        (dir, alone.map_err(|error| error.one_line()))
    };
    let opaque = |path: &std::path::Path| {
        let mut value = [0; 2];
        fs::getxattr(path, OPAQUE, &mut value[..]).is_ok()
    };
    let (dir, alone) = unpack(&[
        (T::Directory, "d", b""),
        (T::Regular, "d/.wh.gone", b""),
        (T::Regular, "d/.wh.made", b""),
        (T::Regular, "d/made", b"content"),
        (T::Directory, "o", b""),
        (T::Regular, "o/.wh..wh..opq", b""),
        (T::Regular, ".wh.again", b""),
        (T::Directory, "again", b""),
        (T::Directory, "first", b""),
        (T::Regular, ".wh.first", b""),
        (T::Regular, ".wh..wh.plnk", b""),
    ]);
    let alone = alone.unwrap();
    assert!(!alone.implied && !alone.root);
    let at = |name: &str| dir.path().join(name);
    assert!(is_whiteout(&fs::lstat(at("d/gone")).unwrap()));
    let made = fs::lstat(at("d/made")).unwrap();
    // printf content | sha256sum
    assert_eq!(alone.hashes.get(made.st_ino).unwrap().hash[..4], [0xed, 0x70, 0x02, 0xb4]);
    for (name, is_opaque) in [("d", false), ("o", true), ("again", true), ("first", true)] {
        assert_eq!(opaque(&at(name)), is_opaque, "{name}");
    }
    assert!(unpack(&[(T::Regular, "d/f", b"x")]).1.unwrap().implied, "d is described nowhere");
    let later = [(T::Regular, "d/f", &b"x"[..]), (T::Directory, "d", b""), (T::Directory, "./", b"")];
    let alone = unpack(&later).1.unwrap();
    assert!(!alone.implied && alone.root);
    assert!(unpack(&[(T::Regular, ".wh..wh..opq", b"")]).1.unwrap_err().contains("root"));
    assert!(unpack(&[(T::Regular, ".wh.", b"")]).1.unwrap_err().contains("nothing"));
}

/// The name, mode, owner, time and content of each file of a tree.
fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = path.symlink_metadata().unwrap();
        let detail = match stat.file_type() {
            kind if kind.is_symlink() => format!("{:?}", std::fs::read_link(&path).unwrap()),
            kind if kind.is_file() => format!("{:?} x{}", std::fs::read(&path).unwrap(), stat.nlink()),
            kind if kind.is_dir() => {
                todo.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            }
            _ => format!("{:x}", stat.rdev()),
        };
        let name = path.strip_prefix(root).unwrap();
        let (mode, uid, gid, time) = (stat.mode(), stat.uid(), stat.gid(), stat.mtime());
        found.push(format!("{name:?} {mode:o} {uid}:{gid} {time} {detail}"));
    }
    found.sort();
    found
}

#[test]
fn a_tree_packed_and_unpacked_is_the_same_and_packs_to_the_same_bytes() {
    let privileged = rustix::process::geteuid().is_root();
    let base = tempfile::tempdir().unwrap();
    let tree = base.path().join("tree");
    std::fs::create_dir_all(tree.join("usr/bin")).unwrap();
    std::fs::create_dir(tree.join("tmp")).unwrap();
    std::fs::set_permissions(tree.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::write(tree.join("usr/bin/tool"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tree.join("usr/bin/tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::hard_link(tree.join("usr/bin/tool"), tree.join("usr/bin/alias")).unwrap();
    std::os::unix::fs::symlink("usr/bin", tree.join("bin")).unwrap();
    std::fs::write(tree.join("x".repeat(200)), vec![0; 300_000]).unwrap();
    let mut sparse = std::fs::File::create(tree.join("holes")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all(b"data").unwrap();
    drop(sparse);
    if privileged {
        let file = std::fs::File::open(tree.join("usr/bin/tool")).unwrap();
        std::os::unix::fs::chown(tree.join("tmp"), Some(1000), Some(2000)).unwrap();
        fs::mknodat(
            fs::CWD,
            tree.join("null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            fs::makedev(1, 3),
        )
        .unwrap();
        // cap_net_raw+ep
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        fs::fsetxattr(&file, "security.capability", &capability, fs::XattrFlags::empty()).unwrap();
    }

    let mut first = Vec::new();
    pack(b"{}", &tree, &mut first, true).unwrap();
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.unpack(&first).unwrap(), b"{}");
    assert_eq!(listing(&tree), listing(&sandbox.root()));
    assert!(sandbox.root().join("holes").metadata().unwrap().blocks() < 1024);

    let mut again = Vec::new();
    pack(b"{}", &sandbox.root(), &mut again, true).unwrap();
    assert!(first == again, "the second archive differs");
    if privileged {
        let text = String::from_utf8_lossy(&first);
        assert!(text.contains("SCHILY.xattr.security.capability"));
    }

    // hashes computed while unpacking give the same list as hashes computed from disk
    let dir = tempfile::tempdir().unwrap();
    let root = std::fs::File::open(dir.path()).unwrap();
    let mut limits = UnpackLimits { devices: true, ..UnpackLimits::default() };
    let alone = unpack_alone(&first[..], root.as_fd(), &mut limits).unwrap();
    let list = |hashes: &Hashes| {
        let mut list = Vec::new();
        crate::image::tree::list::write(dir.path(), hashes, &mut list).unwrap();
        String::from_utf8(list).unwrap()
    };
    assert_eq!(list(&alone.hashes), list(&Hashes::default()));
    assert_eq!(listing(&tree), listing(&dir.path().join("rootfs")));
}
