//! Copies with every kind of file, attribute and id.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let tmp = tempfile::tempdir().unwrap();
    let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
    std::fs::create_dir_all(from.join("a/b")).unwrap();
    std::fs::create_dir(&to).unwrap();
    std::fs::write(tmp.path().join("secret"), "secret").unwrap();
    std::fs::write(from.join("a/f"), "text").unwrap();
    std::fs::set_permissions(from.join("a/f"), PermissionsExt::from_mode(0o4751)).unwrap();
    std::fs::set_permissions(from.join("a"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(from.join("a/f"), Some(12), Some(34)).unwrap();
    std::fs::set_permissions(from.join("a/f"), PermissionsExt::from_mode(0o4751)).unwrap();
    symlink(tmp.path().join("secret"), from.join("link")).unwrap();
    symlink("/", from.join("dir-link")).unwrap();
    let open = |path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    tree(&open(&from), &open(&to), None).unwrap();
    let file = std::fs::metadata(to.join("a/f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4751, 12, 34));
    assert_eq!(std::fs::metadata(to.join("a")).unwrap().mode() & 0o7777, 0o1777);
    assert!(to.join("a/b").is_dir());
    assert_eq!(std::fs::read_link(to.join("link")).unwrap(), tmp.path().join("secret"));
    assert_eq!(std::fs::read_link(to.join("dir-link")).unwrap(), std::path::Path::new("/"));
}

#[test]
fn files_of_others_bring_no_privileges() {
    let tmp = tempfile::tempdir().unwrap();
    let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
    std::fs::create_dir_all(from.join("d/sub")).unwrap();
    std::fs::create_dir_all(to.join("d/old")).unwrap();
    std::fs::set_permissions(to.join("d"), PermissionsExt::from_mode(0o750)).unwrap();
    std::fs::write(from.join("d/suid"), "new").unwrap();
    std::fs::set_permissions(from.join("d/suid"), PermissionsExt::from_mode(0o6755)).unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::setxattr(from.join("d/suid"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    std::fs::hard_link(from.join("d/suid"), from.join("d/again")).unwrap();
    fs::mknodat(fs::CWD, from.join("d/null"), FileType::CharacterDevice, Mode::RUSR, fs::makedev(1, 3)).unwrap();
    symlink(tmp.path().join("secret"), to.join("d/again")).unwrap();
    let open = |path: &std::path::Path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    entry(open(&from), c"d", open(&to), c"d", (7, 8)).unwrap();
    for name in ["d/suid", "d/again"] {
        let stat = std::fs::symlink_metadata(to.join(name)).unwrap();
        assert_eq!((stat.mode(), stat.uid(), stat.gid(), stat.nlink()), (0o100_755, 7, 8, 1), "{name}");
        assert!(fs::lgetxattr(to.join(name), "security.capability", &mut [0; 99][..]).is_err());
    }
    assert!(!tmp.path().join("secret").exists() && !to.join("d/null").exists());
    let there = std::fs::metadata(to.join("d")).unwrap();
    assert_eq!((there.mode() & 0o7777, there.uid(), to.join("d/old").is_dir()), (0o750, 0, true));
    // neither replaces the other
    std::fs::write(from.join("file"), "").unwrap();
    assert!(entry(open(&from), c"file", open(&to), c"d", (0, 0)).is_err());
    std::fs::write(to.join("f"), "").unwrap();
    assert!(entry(open(&from), c"d", open(&to), c"f", (0, 0)).is_err());
}

fn attribute(path: &std::path::Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 100];
    let length = fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

#[test]
fn ids_are_shifted_wherever_they_are() {
    let tmp = tempfile::tempdir().unwrap();
    let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
    std::fs::create_dir_all(from.join("d")).unwrap();
    std::fs::create_dir(&to).unwrap();
    std::fs::write(from.join("d/f"), "text").unwrap();
    std::fs::hard_link(from.join("d/f"), from.join("again")).unwrap();
    symlink("d/f", from.join("link")).unwrap();
    std::fs::write(from.join("far"), "of an id that is not mapped").unwrap();
    let own = |name: &str, uid, gid| std::os::unix::fs::lchown(from.join(name), Some(uid), Some(gid)).unwrap();
    own("d", 7, 8);
    own("d/f", 0, 99);
    own("link", 1, 2);
    own("far", 5000, 1);
    for (name, mode) in [("d/f", 0o6755), ("far", 0o4755)] {
        std::fs::set_permissions(from.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    // cap_net_raw, effective; and a list in which user 11 and group 12 are named
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::setxattr(from.join("d/f"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    let capability_before = capability;
    let none = [0xff; 4];
    let acl = |user: u32, group: u32| -> Vec<u8> {
        let mut list = vec![2, 0, 0, 0];
        for (tag, id) in
            [(1, none), (2, user.to_le_bytes()), (4, none), (8, group.to_le_bytes()), (16, none), (32, none)]
        {
            list.extend([tag, 0, 5, 0]);
            list.extend(id);
        }
        list
    };
    fs::setxattr(from.join("d"), "system.posix_acl_default", &acl(11, 12), XattrFlags::empty()).unwrap();

    let open = |path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let shift = UidRange { first: 100_000, count: 1000 };
    tree(&open(&from), &open(&to), Some(shift)).unwrap();
    let owner = |name: &str| {
        let stat = std::fs::symlink_metadata(to.join(name)).unwrap();
        (stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.nlink())
    };
    assert_eq!(owner("d/f"), (100_000, 100_099, 0o6755, 2));
    assert_eq!((owner("d").0, owner("d").1, owner("link").0, owner("link").1), (100_007, 100_008, 100_001, 100_002));
    assert_eq!(owner("far"), (65534, 100_001, 0o755, 1), "nobody's, and nobody becomes nobody by it");
    // as the pod's root would have set it
    let capability = attribute(&to.join("again"), "security.capability");
    assert_eq!((capability.len(), capability[3], &capability[20..]), (24, 3, &100_000_u32.to_le_bytes()[..]));
    assert_eq!(attribute(&to.join("d"), "system.posix_acl_default"), acl(100_011, 100_012));

    let back = tmp.path().join("back");
    std::fs::create_dir(&back).unwrap();
    tree_from(&open(&to), &open(&back), shift).unwrap();
    let stat = std::fs::symlink_metadata(back.join("d/f")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0, 99, 0o6755));
    assert_eq!(attribute(&back.join("again"), "security.capability"), capability_before);
    assert_eq!(attribute(&back.join("d"), "system.posix_acl_default"), acl(11, 12));
}

#[test]
fn holes_and_several_names_are_kept() {
    use std::os::unix::fs::FileExt;
    let tmp = tempfile::tempdir().unwrap();
    let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
    std::fs::create_dir_all(from.join("a")).unwrap();
    std::fs::create_dir_all(from.join("b")).unwrap();
    std::fs::create_dir(&to).unwrap();
    let holes = File::create(from.join("holes")).unwrap();
    holes.set_len(32 << 20).unwrap();
    holes.write_all_at(b"middle", 8 << 20).unwrap();
    holes.write_all_at(b"end", (32 << 20) - 3).unwrap();
    File::create(from.join("hole")).unwrap().set_len(1 << 20).unwrap();
    for n in 0..3 {
        std::fs::hard_link(from.join("holes"), from.join(format!("b/{n}"))).unwrap();
    }
    symlink("x", from.join("a/link")).unwrap();
    std::fs::hard_link(from.join("a/link"), from.join("b/link")).unwrap();
    let open = |path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    tree(&open(&from), &open(&to), None).unwrap();
    let (was, is) = (std::fs::metadata(from.join("holes")).unwrap(), std::fs::metadata(to.join("b/1")).unwrap());
    assert_eq!((is.nlink(), is.len(), is.mtime_nsec()), (4, 32 << 20, was.mtime_nsec()));
    assert!(is.blocks() <= was.blocks() + 64, "{} blocks of {}", is.blocks(), was.blocks());
    assert!(std::fs::read(from.join("holes")).unwrap() == std::fs::read(to.join("b/2")).unwrap());
    let hole = std::fs::metadata(to.join("hole")).unwrap();
    assert!(hole.len() == 1 << 20 && hole.blocks() <= 8);
    assert_eq!(std::fs::symlink_metadata(to.join("b/link")).unwrap().nlink(), 2);
}

#[test]
fn layers_lie_over_each_other() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |path: &str| tmp.path().join(path);
    for dir in ["low/d/e", "low/opaque/x", "low/was-dir", "mid/d", "mid/opaque", "high/d", "high/was-file", "to"] {
        std::fs::create_dir_all(at(dir)).unwrap();
    }
    for file in ["low/d/f", "low/d/gone", "low/opaque/x/f", "low/was-dir/f", "low/was-file", "mid/opaque/new"] {
        std::fs::write(at(file), file).unwrap();
    }
    std::fs::write(at("mid/was-dir"), "a file").unwrap();
    std::fs::write(at("high/d/f"), "high").unwrap();
    std::fs::set_permissions(at("high/d"), PermissionsExt::from_mode(0o1777)).unwrap();
    let open = |name: &str| fs::open(at(name), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for path in ["d/gone", "d/never"] {
        fs::mknodat(open("mid"), path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }
    fs::fsetxattr(open("mid/opaque"), c"trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    layers(&[open("low"), open("mid"), open("high")], &open("to"), None).unwrap();
    let names = |dir: &str| {
        let mut names: Vec<String> =
            at(dir).read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("to"), ["d", "opaque", "was-dir", "was-file"]);
    assert_eq!((names("to/d"), names("to/opaque")), (vec!["e".into(), "f".into()], vec!["new".to_owned()]));
    assert_eq!(std::fs::read_to_string(at("to/d/f")).unwrap(), "high");
    assert_eq!(std::fs::read_to_string(at("to/was-dir")).unwrap(), "a file");
    assert!(at("to/was-file").is_dir() && names("to/was-file").is_empty());
    assert_eq!(std::fs::metadata(at("to/d")).unwrap().mode() & 0o7777, 0o1777);
    let mut value = [0; 8];
    assert!(fs::fgetxattr(open("to/opaque"), c"trusted.overlay.opaque", &mut value[..]).is_err());
}

#[test]
fn bottomless_directories_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let deep: std::path::PathBuf = std::iter::repeat_n("d", 300).collect();
    std::fs::create_dir_all(tmp.path().join("from").join(deep)).unwrap();
    std::fs::create_dir(tmp.path().join("to")).unwrap();
    let open = |name| fs::open(tmp.path().join(name), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    assert!(tree(&open("from"), &open("to"), None).unwrap_err().one_line().contains("nested"));
}
