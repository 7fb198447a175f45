//! Every supported format, and the image that an import makes of it.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;
use stage0::image::gc::remove;
use stage0::image::import::import_directory;
use stage0::image::options::{ImageFormat, ImportOptions};
use stage0::image::platform::ImageChoice;
use stage0::image::store::find;
use stage1::appc::{self, ImageManifest};

use crate::Stand;
use crate::make::*;

/// The names, modes, sizes and link targets of the files below a directory.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = path.symlink_metadata().unwrap();
        if stat.is_dir() {
            todo.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        }
        let target = std::fs::read_link(&path).unwrap_or_default();
        let size = if stat.is_file() { stat.len() } else { 0 };
        let name = path.strip_prefix(root).unwrap();
        found.push(format!("{name:?} {:o} {} {size} {target:?}", stat.mode(), stat.mtime()));
    }
    found.sort();
    found
}

fn names(root: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        root.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    found
}

#[test]
fn every_compression_gives_the_same_image() {
    let plain = aci("a", &[file("rootfs/f", "content".repeat(10_000)), symlink("rootfs/l", "f")]);
    let half = plain.len() / 2;
    let several = |program: &str| [packed_by(program, &plain[..half]), packed_by(program, &plain[half..])].concat();
    let skipped = [&b"\x50\x2a\x4d\x18\x05\0\0\0skip!"[..], &packed_by("zstd", &plain)].concat();
    let stand = Stand::new();
    let id = stand.import(&plain).unwrap().image.id;
    let all = ["gzip", "bzip2", "xz", "zstd"];
    for packed in all.iter().map(|p| packed_by(p, &plain)).chain(all.iter().map(|p| several(p))).chain([skipped]) {
        assert!(packed.len() < plain.len());
        let other = Stand::new();
        let imported = other.import(&packed).unwrap();
        assert_eq!(imported.image.id, id);
        assert_eq!(std::fs::read(other.root(&imported).join("f")).unwrap().len(), 70_000);
        assert!(other.is_clean());
    }
    // the checksums behind the content find damage
    for program in all {
        let mut packed = packed_by(program, &plain);
        let at = packed.len() - if program == "xz" { 30 } else { 3 };
        packed[at] ^= 0x10;
        assert!(Stand::new().import(&packed).is_err(), "{program}");
    }
}

fn example() -> Oci {
    let base = tar(&[
        dir("etc"),
        file("etc/passwd", "root:x:0:0::/:/x\nweb:x:33:34::/:/x\n"),
        file("bin/app", "#!app"),
        dir("opaque"),
        file("opaque/lower", "x"),
        file("opaque/sub/lower", "x"),
        file("gone", "x"),
        file("tree/of/files", "x"),
        file("was-dir/f", "x"),
        file("was-file", "x"),
        file("kept/f", "x"),
        file("opaque/a/lower", "x"),
    ]);
    let top = tar(&[
        file("opaque/sub/upper", "y"),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/upper", "y"),
        file("opaque/a/b/upper", "y"),
        file(".wh.gone", ""),
        file(".wh.tree", ""),
        file(".wh.never", ""),
        file("none/.wh.never", ""),
        file("was-dir", "now a file"),
        file("was-file/f", "now a directory").clone(),
        file(".wh..wh.plnk", "of an old storage driver"),
        hardlink("hard", "kept/f"),
    ]);
    // an entry below a file is refused unless an entry makes the file a directory
    let top = tar_entries_with_directory(top);
    let config = json!({
        "User": "web", "Env": ["A=1", "PATH=/bin", "A=2"], "Entrypoint": ["/bin/app"], "Cmd": ["-v"],
        "WorkingDir": "/work/here", "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}},
        "Labels": {"org.example.Key": "value", "appc.io/docker/repository": "faked"}, "StopSignal": "SIGINT",
    });
    let reference = Some("example.com/probe:1.5".into());
    Oci {
        pack: gzip,
        kind: "application/vnd.oci.image.layer.v1.tar+gzip",
        reference,
        ..Oci::new(vec![base, top], config)
    }
}

/// Adds the entry of a directory `was-file` before the file in it.
fn tar_entries_with_directory(top: Vec<u8>) -> Vec<u8> {
    let directory = tar(&[dir("was-file")]);
    [&directory[..512], &top].concat()
}

#[test]
fn oci_directory_oci_tar_and_docker_tar_are_the_same_image() {
    let image = example();
    let stand = Stand::new();
    let directory = stand.base.path().join("data/layout");
    for (name, bytes) in image.layout() {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let from_directory = import_directory(&stand.store, &directory, &ImportOptions::default()).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    // a second apart, so that a tree that depends on the time of the import differs
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let from_tar = stand.import(&tar_of(&image.layout())).unwrap();
    let from_docker = stand.import(&image.docker("example.com/probe:1.5")).unwrap();
    let zstd =
        Oci { pack: |bytes| packed_by("zstd", bytes), kind: "application/vnd.oci.image.layer.v1.tar+zstd", ..image };
    let other = Stand::new().import(&tar_of(&zstd.layout())).unwrap();
    for imported in [&from_tar, &from_docker, &other] {
        assert_eq!(imported.image.id, from_directory.image.id);
        assert_eq!(imported.name, "example.com/probe");
    }
    assert!(stand.is_clean());
    assert_eq!(find::list(&stand.store).unwrap().len(), 1);

    let root = stand.root(&from_tar);
    assert_eq!(
        names(&root),
        ["bin", "etc", "hard", "kept", "opaque", "was-dir", "was-file", "work"].map(str::to_owned)
    );
    assert_eq!(names(&root.join("opaque")), ["a", "sub", "upper"].map(str::to_owned));
    assert_eq!(names(&root.join("opaque/sub")), ["upper".to_owned()]);
    assert_eq!(std::fs::read(root.join("was-dir")).unwrap(), b"now a file");
    assert!(root.join("was-file/f").is_file() && root.join("work/here").is_dir());
    assert_eq!(root.join("hard").metadata().unwrap().nlink(), 2);
}

#[test]
fn the_configuration_becomes_the_app() {
    let manifest = Stand::new().import(&tar_of(&example().layout())).unwrap().image.parsed;
    let app = manifest.app.clone().unwrap();
    assert_eq!(app.exec, ["/bin/app", "-v"]);
    assert_eq!((app.user.as_str(), app.group.as_str()), ("web", "34"));
    assert_eq!(app.working_directory, "/work/here");
    let environment: Vec<String> = app.environment.iter().map(|v| format!("{}={}", v.name, v.value)).collect();
    assert_eq!(environment, ["PATH=/bin", "A=2"]);
    assert_eq!((app.mount_points[0].name.as_str(), app.mount_points[0].path.as_str()), ("volume-data", "/data"));
    assert_eq!((app.ports[0].name.as_str(), app.ports[0].port), ("80-tcp", 80));
    let annotation = |name| appc::find(&manifest.annotations, name).unwrap_or_default();
    assert!(manifest.is_converted());
    assert_eq!(annotation("appc.io/docker/repository"), "example.com/probe");
    assert_eq!(annotation("appc.io/docker/entrypoint"), r#"["/bin/app"]"#);
    assert_eq!(annotation("org.example.key"), "value");
    assert_eq!(annotation("org.opencontainers.image.stopSignal"), "SIGINT");
    assert_eq!(appc::find(&manifest.labels, "version"), Some("1.5"));
    assert_eq!(appc::find(&manifest.labels, "arch"), Some("amd64"));
}

#[test]
fn one_of_several_is_chosen_by_platform_and_reference() {
    let one = |text: &str, architecture, reference: Option<&str>| Oci {
        architecture,
        reference: reference.map(str::to_owned),
        ..Oci::new(vec![tar(&[file(text, "x")])], json!({}))
    };
    let (amd, arm) = (one("amd", "amd64", None), one("arm", "arm64", None));
    let by_platform = tar_of(&layout(&[&arm, &amd]));
    let import = |bytes: &[u8], reference: Option<&str>, platform: Option<&str>| {
        let stand = Stand::new();
        let wanted =
            ImageChoice { reference: reference.map(Into::into), platform: platform.map(Into::into), name: None };
        let options = ImportOptions { name: Some("x".into()), choice: wanted, ..ImportOptions::default() };
        stand.import_with(bytes, &options).map(|imported| names(&stand.root(&imported)))
    };
    assert_eq!(import(&by_platform, None, None).unwrap(), ["amd".to_owned()]);
    assert_eq!(import(&by_platform, None, Some("linux/arm64")).unwrap(), ["arm".to_owned()]);
    let error = import(&by_platform, None, Some("linux/mips")).unwrap_err().one_line();
    assert!(error.contains("only for: linux/arm64, linux/amd64"), "{error}");
    assert!(import(&by_platform, None, Some("linux")).is_err());

    let (old, new) = (one("old", "amd64", Some("app:1")), one("new", "amd64", Some("app:2")));
    let by_name = tar_of(&layout(&[&old, &new]));
    assert_eq!(import(&by_name, Some("app:1"), None).unwrap(), ["old".to_owned()]);
    assert_eq!(import(&by_name, Some("2"), None).unwrap(), ["new".to_owned()]);
    for reference in [None, Some("3")] {
        let error = import(&by_name, reference, None).unwrap_err().one_line();
        assert!(error.contains("app:1, app:2"), "{error}");
    }

    // an index within the index, as builds for several platforms make
    let mut files = layout(&[&arm, &amd]);
    let inner = files.pop().unwrap().1;
    let digest = sha256(&inner);
    let kind = "application/vnd.oci.image.index.v1+json";
    let outer = json!({ "manifests": [{ "mediaType": kind, "digest": digest, "size": inner.len() }] });
    files.push((format!("blobs/{}", digest.replace(':', "/")), inner));
    files.push(("index.json".into(), outer.to_string().into_bytes()));
    assert_eq!(import(&tar_of(&files), None, Some("linux/arm64")).unwrap(), ["arm".to_owned()]);
}

#[test]
fn root_file_systems_come_as_directory_or_archive() {
    let stand = Stand::new();
    let source = stand.base.path().join("data/source");
    std::fs::create_dir_all(source.join("bin")).unwrap();
    std::fs::write(source.join("bin/tool"), "x").unwrap();
    std::fs::set_permissions(source.join("bin/tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::write(source.join(".wh.kept"), "no whiteout here").unwrap();
    let options =
        ImportOptions { manifest: Some(ImageManifest::new("plain".parse().unwrap())), ..ImportOptions::default() };
    let from_directory = import_directory(&stand.store, &source, &options).unwrap();
    let tarball = std::process::Command::new("tar").args(["-cC"]).arg(&source).arg(".").output().unwrap().stdout;
    let from_tar = stand.import_with(&packed_by("xz", &tarball), &options).unwrap();
    std::fs::remove_dir_all(&source).unwrap();
    assert_eq!(tree(&stand.root(&from_directory)), tree(&stand.root(&from_tar)));
    assert_eq!(from_directory.image.id, from_tar.image.id);
    assert_eq!(stand.root(&from_tar).join("bin/tool").metadata().unwrap().mode() & 0o7777, 0o4755);
    assert!(stand.root(&from_tar).join(".wh.kept").exists());
    assert!(stand.is_clean());
    let options = ImportOptions { kind: Some(ImageFormat::Oci), name: Some("x".into()), ..ImportOptions::default() };
    assert!(stand.import_with(&tarball, &options).unwrap_err().one_line().contains("index.json"));
}

#[test]
fn dependencies_lie_below_and_whitelists_cut() {
    let stand = Stand::new();
    let image = |name: &str, more: serde_json::Value, entries: &[Entry]| {
        tar(&[&[manifest(name, more), dir("rootfs")], entries].concat())
    };
    let labels = json!([{"name": "version", "value": "2"}]);
    let low = image(
        "example.com/low",
        json!({ "labels": labels, "pathWhitelist": ["/d/low", "/shared", "/low-only", "/d2"] }),
        &[
            file("rootfs/d/low", "low"),
            file("rootfs/d/cut-by-itself", "low"),
            file("rootfs/shared", "low"),
            file("rootfs/low-only", "low"),
            dir("rootfs/d2"),
            file("rootfs/d2/below", "low"),
        ],
    );
    let mid = image("example.com/mid", json!({}), &[file("rootfs/d/mid", "mid"), file("rootfs/shared", "mid")]);
    let dependencies = json!([
        { "imageName": "example.com/low", "labels": labels },
        { "imageName": "example.com/mid" },
    ]);
    let top = image(
        "example.com/top",
        json!({ "dependencies": dependencies, "pathWhitelist": ["/d/low", "/d/mid", "/shared", "/own"] }),
        &[file("rootfs/own", "top"), file("rootfs/cut", "top")],
    );
    let error = stand.import(&top).unwrap_err().one_line();
    assert!(error.contains("example.com/low") && error.contains("version=2"), "{error}");
    assert!(stand.is_clean() && stand.is_empty());

    let low = stand.import(&low).unwrap();
    stand.import(&mid).unwrap();
    let imported = stand.import(&top).unwrap();
    let root = stand.root(&imported);
    assert_eq!(names(&root), ["d", "own", "shared"].map(str::to_owned));
    assert_eq!(names(&root.join("d")), ["low", "mid"].map(str::to_owned));
    assert_eq!(std::fs::read(root.join("shared")).unwrap(), b"mid");
    assert_eq!(names(&stand.root(&low)), ["d", "d2", "low-only", "shared"].map(str::to_owned));
    assert_eq!(names(&stand.root(&low).join("d2")), Vec::<String>::new());
    let error = remove(&stand.store, &low.image.id).unwrap_err().one_line();
    assert!(error.contains("example.com/top"), "{error}");

    let circle = image("example.com/circle", json!({ "dependencies": [{ "imageName": "example.com/circle" }] }), &[]);
    assert!(stand.import(&circle).unwrap_err().one_line().contains("not in the store"));
}

#[test]
fn a_hundred_thousand_files_long_names_and_holes() {
    let stand = Stand::new();
    let holes = stand.base.path().join("data/holes");
    let sparse = std::fs::File::create(&holes).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
    let made = std::process::Command::new("tar")
        .args(["--transform=s,^,rootfs/,", "-ScC"])
        .args([holes.parent().unwrap(), Path::new("holes")])
        .output()
        .unwrap();
    std::fs::remove_file(&holes).unwrap();
    let long = format!("rootfs/{}/{}", "l".repeat(200), "n".repeat(200));
    let mut entries = vec![manifest("many", json!({})), dir("rootfs"), file(&long, "x")];
    entries.extend((0..100_000).map(|n| file(&format!("rootfs/{}/{n}", n / 1000), "")));
    let many = tar(&entries);
    let imported = stand.import(&gzip(&[&many[..many.len() - 1024], &made.stdout].concat())).unwrap();
    let root = stand.root(&imported);
    assert_eq!(names(&root.join("99")).len(), 1000);
    assert!(stand.base.path().join("data/trees").join(imported.image.id.as_str()).join(&long).is_file());
    let stat = root.join("holes").metadata().unwrap();
    assert!(stat.len() == 64 << 20 && stat.blocks() < 1024, "{} blocks", stat.blocks());
    assert_eq!(stage0::image::tree::full_fault(&stand.store, &imported.image.id).unwrap(), None);
}
