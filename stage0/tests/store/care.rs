//! Damage is found, named, and repaired or refused; several processes work at once; trees in use stay.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use stage0::image::export::export;
use stage0::image::gc::{Which, collect, remove};
use stage0::image::import::import_file;
use stage0::image::options::ImportOptions;
use stage0::image::store::find;
use stage0::image::tree as trees;
use stage0::image::verify::{Health, verify};
use stage0::store::Store;

use crate::Stand;
use crate::make::*;

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    // keep the modification time, as damage on a disk does
    file.set_modified(time).unwrap();
}

fn image() -> Vec<u8> {
    aci("a", &[dir("rootfs/usr"), file("rootfs/usr/tool", "the content of a tool".repeat(100))])
}

#[test]
fn a_flipped_byte_in_a_tree_is_named_and_mended() {
    let stand = Stand::new();
    let imported = stand.import(&image()).unwrap();
    let id = &imported.image.id;
    let tool = stand.root(&imported).join("usr/tool");
    assert_eq!(verify(&stand.store, id).unwrap(), Health::Whole);

    flip(&tool, 700);
    let Health::Mended(fault) = verify(&stand.store, id).unwrap() else { panic!() };
    assert!(fault.contains("/usr/tool: its content differs"), "{fault}");
    assert_eq!(std::fs::read(&tool).unwrap(), "the content of a tool".repeat(100).as_bytes());
    assert_eq!(verify(&stand.store, id).unwrap(), Health::Whole);

    // the quick check before a pod uses the tree also finds the change, a removed file, list or record
    std::thread::sleep(Duration::from_millis(20));
    flip(&tool, 700);
    let fault = trees::quick_fault(&stand.store, id).unwrap().unwrap_or_default();
    assert!(fault.contains("/usr/tool has been changed"), "{fault}");
    drop(trees::ensure(&stand.store, id).unwrap());
    assert_eq!(trees::full_fault(&stand.store, id).unwrap(), None);
    for gone in ["rootfs/usr/tool", "sums", "info"] {
        let path = stand.base.path().join("data/trees").join(id.as_str()).join(gone);
        std::fs::remove_file(path).unwrap();
        drop(trees::ensure(&stand.store, id).unwrap());
        assert_eq!(trees::full_fault(&stand.store, id).unwrap(), None, "{gone}");
    }
    assert!(stand.is_clean());
}

#[test]
fn a_flipped_byte_in_a_blob_is_named_and_refused_until_it_comes_again() {
    let stand = Stand::new();
    let imported = stand.import(&image()).unwrap();
    let id = &imported.image.id;
    let blob = stand.base.path().join("data/images").join(id.as_str()).join("archive");
    // flip bytes in headers, in content, and behind the end marker
    for at in [0, 600, 3000, blob.metadata().unwrap().len() - 1] {
        flip(&blob, at);
        let mut out = Vec::new();
        let error = export(&stand.store, id, &mut out).unwrap_err().one_line();
        assert!(error.contains("damaged"), "{error}");
        let error = trees::rebuild(&stand.store, id).unwrap_err().one_line();
        assert!(!error.is_empty());
        let Health::Damaged(fault) = verify(&stand.store, id).unwrap() else { panic!() };
        assert!(fault.contains("damaged") && fault.contains("import the image again"), "{fault}");
        // the tree is undamaged; pods can still use it
        drop(trees::ensure(&stand.store, id).unwrap());
        stand.import(&image()).unwrap();
        assert_eq!(verify(&stand.store, id).unwrap(), Health::Whole);
    }
    assert!(stand.is_clean());
}

#[test]
fn a_damaged_manifest_is_never_used() {
    let stand = Stand::new();
    let imported = stand.import(&image()).unwrap();
    let dir = stand.base.path().join("data/images").join(imported.image.id.as_str());
    // a valid manifest: only its hash shows the change
    std::fs::write(dir.join("manifest"), r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"b"}"#).unwrap();
    let error = find::find(&stand.store, "a").unwrap_err().one_line();
    assert!(error.contains("manifest of image") && error.contains("damaged"), "{error}");
    let health = verify(&stand.store, &imported.image.id).unwrap();
    assert_eq!(health, Health::Mended("manifest: its content differs".into()));
    assert_eq!(find::find(&stand.store, "a").unwrap().parsed.name.as_ref(), "a");
    std::fs::write(dir.join("info"), "{").unwrap();
    assert!(matches!(verify(&stand.store, &imported.image.id).unwrap(), Health::Damaged(_)));
    stand.import(&image()).unwrap();
    assert_eq!(verify(&stand.store, &imported.image.id).unwrap(), Health::Whole);
}

/// Makes a pod that uses the tree.
fn use_by_pod(stand: &Stand, tree: &str) -> PathBuf {
    let pod = stand.base.path().join("data/pods/run/0d2bd7d8-5b4e-4f0c-9a0a-3b1f0e6a6d11");
    std::fs::create_dir_all(pod.join("appsinfo/app")).unwrap();
    std::fs::write(pod.join("appsinfo/app/treeStoreID"), tree).unwrap();
    pod
}

#[test]
fn images_and_trees_in_use_stay() {
    let stand = Stand::new();
    let old = stand.import(&aci("a", &[file("rootfs/old", "")])).unwrap().image.id;
    let new = stand.import(&aci("a", &[file("rootfs/new", "")])).unwrap();
    assert_eq!(new.replaced.as_ref(), Some(&old));
    let pod = use_by_pod(&stand, old.as_str());
    let error = remove(&stand.store, &old).unwrap_err().one_line();
    assert!(error.contains("pods use it: 0d2bd7d8"), "{error}");
    assert!(collect(&stand.store, Duration::ZERO, Which::Unnamed).unwrap().images.is_empty());

    // the old tree of a pod is kept until the pod is gone, although the tree was rendered again
    std::fs::remove_file(trees::rootfs(&stand.store, old.as_str()).join("old")).unwrap();
    let held = File::open(trees::rootfs(&stand.store, old.as_str())).unwrap();
    drop(trees::ensure(&stand.store, &old).unwrap());
    let trees = || stand.base.path().join("data/trees").read_dir().unwrap().count();
    assert_eq!(trees(), 3);
    assert!(collect(&stand.store, Duration::ZERO, Which::Unnamed).unwrap().trees.is_empty());
    drop(held);

    std::fs::remove_dir_all(pod).unwrap();
    let hour = Duration::from_secs(3600);
    let collected = collect(&stand.store, hour, Which::Unnamed).unwrap();
    assert_eq!((collected.images.len(), collected.trees.len()), (0, 1), "the image was used just now");
    let collected = collect(&stand.store, Duration::ZERO, Which::Unnamed).unwrap();
    assert_eq!((collected.images, collected.trees.len(), trees()), (vec![old], 0, 1));
    remove(&stand.store, &new.image.id).unwrap();
    assert!(stand.is_clean() && stand.is_empty());
}

#[test]
fn eight_imports_at_once_of_the_same_and_of_others() {
    let stand = Stand::new();
    let own = |n: usize| aci(&format!("own-{n}"), &[file("rootfs/f", format!("{n}").repeat(50_000))]);
    let data = stand.base.path().join("data");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let data = &data;
            scope.spawn(move || {
                let store = Store::open(data).unwrap();
                for bytes in [image(), own(n), image(), own(n % 2)] {
                    let imported = import_file(&store, &bytes[..], &ImportOptions::default()).unwrap();
                    drop(trees::ensure(&store, &imported.image.id).unwrap());
                    find::list(&store).unwrap();
                }
            });
        }
    });
    assert_eq!(find::list(&stand.store).unwrap().len(), 9);
    assert_eq!(data.join("trees").read_dir().unwrap().count(), 9);
    for (image, names) in find::list(&stand.store).unwrap() {
        assert_eq!(verify(&stand.store, &image.id).unwrap(), Health::Whole);
        assert_eq!(names, [image.parsed.name.to_string()]);
    }
    assert!(stand.is_clean());
}

#[test]
fn imports_removals_and_collections_at_once_never_fail() {
    let stand = Stand::new();
    let data = stand.base.path().join("data");
    let bytes = |n: usize| aci("same", &[file("rootfs/f", format!("{n}"))]);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let data = &data;
            scope.spawn(move || {
                let store = Store::open(data).unwrap();
                for turn in 0..8 {
                    import_file(&store, &bytes(n + turn)[..], &ImportOptions::default()).unwrap();
                    collect(&store, Duration::ZERO, Which::Unnamed).unwrap();
                    find::list(&store).unwrap();
                }
            });
        }
    });
    collect(&stand.store, Duration::ZERO, Which::Unnamed).unwrap();
    let left = find::list(&stand.store).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(verify(&stand.store, &left[0].0.id).unwrap(), Health::Whole);
    assert!(stand.is_clean());
}

#[test]
fn exported_is_what_was_imported() {
    let stand = Stand::new();
    let imported = stand.import(&gzip(&image())).unwrap();
    let mut out = Vec::new();
    export(&stand.store, &imported.image.id, &mut out).unwrap();
    assert_eq!(out, image());
    let converted = Oci::new(vec![tar(&[file("f", "x")])], json!({ "Cmd": ["/f"] })).docker("example.com/x:1");
    let imported = stand.import(&converted).unwrap();
    let mut out = Vec::new();
    export(&stand.store, &imported.image.id, &mut out).unwrap();
    // an image with layers has no archive: export packs one from all layers
    let other = Stand::new();
    let again = other.import(&out).unwrap();
    assert_eq!(again.image.parsed.app, imported.image.parsed.app);
    assert_eq!(std::fs::read(other.root(&again).join("f")).unwrap(), b"x");
    assert!(stand.is_clean());
}

#[test]
fn rendered_is_what_pods_use() {
    let stand = Stand::new();
    let entries =
        [dir("rootfs/d"), file("rootfs/d/f", "x"), hardlink("rootfs/again", "rootfs/d/f"), symlink("rootfs/l", "/")];
    let imported = stand.import(&aci("a", &entries)).unwrap();
    let out = stand.base.path().join("data/out");
    trees::copy_out(&stand.store, &imported.image.id, &out).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        (std::fs::read(out.join("again")).unwrap(), out.join("d/f").metadata().unwrap().nlink()),
        (b"x".into(), 2)
    );
    assert_eq!(std::fs::read_link(out.join("l")).unwrap(), Path::new("/"));
    let error = trees::copy_out(&stand.store, &imported.image.id, &out).unwrap_err().one_line();
    assert!(error.contains("already exists"), "{error}");
    // a failed copy leaves no files
    std::fs::remove_dir_all(&out).unwrap();
    let error = trees::copy_out(&stand.store, &imported.image.id, &out.join("no/such")).unwrap_err().one_line();
    assert!(error.contains("No such file"), "{error}");
    assert!(!out.exists() && stand.is_clean());
}
