//! Hostile archives: each is refused with one clear line, and none of its files is found anywhere.

use serde_json::json;
use stage0::image::archive::UnpackLimits;
use stage0::image::options::ImportOptions;
use tar::EntryType as T;

use crate::Stand;
use crate::make::*;

/// The files of a layout.
type Files = Vec<(String, Vec<u8>)>;

/// A description, the archive, and the text that the error must contain.
type Case = (&'static str, Vec<u8>, &'static str);

fn device(kind: T, numbers: (u32, u32)) -> Entry {
    Entry { device: numbers, ..entry(kind, "rootfs/srv/x") }
}

fn with_xattr(name: &str, value: &[u8]) -> Entry {
    Entry { xattr: Some((name.into(), value.to_vec())), ..file("rootfs/f", "x") }
}

/// An archive with an entry whose header `change` has changed, with a correct checksum.
fn bent(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = aci("a", &[file("rootfs/bent", "x")]);
    let at = bytes.windows(11).position(|window| window == b"rootfs/bent").unwrap();
    let header = &mut bytes[at..at + 512];
    change(header);
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

fn aci_cases() -> Vec<Case> {
    let a = |entries: &[Entry]| aci("a", entries);
    let whole = a(&[file("rootfs/f", [7; 5000])]);
    vec![
        ("parent of the archive", a(&[file("../outside/x", "x")]), "leaves the image by"),
        ("parents from within", a(&[file("rootfs/../../outside/x", "x")]), "leaves the image by"),
        ("parents in the middle", a(&[file("rootfs/a/../../../outside/x", "x")]), "leaves the image by"),
        ("parent as a directory", a(&[dir("rootfs/..")]), "leaves the image by"),
        ("parent at the end", a(&[file("rootfs/a/..", "x")]), "leaves the image by"),
        ("beside the root", a(&[file("etc/passwd", "x")]), "neither the manifest nor below rootfs/"),
        ("a name like the root's", a(&[file("rootfsx/f", "x")]), "neither the manifest nor below rootfs/"),
        ("absolute", a(&[file("/etc/podctl-was-here", "x")]), "neither the manifest nor below rootfs/"),
        ("a long name with parents", a(&[file(&format!("rootfs/{}x", "../".repeat(60)), "x")]), "leaves the image by"),
        ("below the manifest", a(&[file("manifest/f", "x")]), "neither the manifest nor below rootfs/"),
        ("root is a link", tar(&[manifest("a", json!({})), symlink("rootfs", "/")]), "is not a directory"),
        ("root is a file", tar(&[manifest("a", json!({})), file("rootfs", "x")]), "is not a directory"),
        ("root is a device", tar(&[manifest("a", json!({})), entry(T::Char, "rootfs")]), "is not a directory"),
        ("manifest is a link", tar(&[symlink("manifest", "/etc/passwd"), dir("rootfs")]), "not a regular file"),
        ("manifest is a fifo", tar(&[entry(T::Fifo, "manifest"), dir("rootfs")]), "not a regular file"),
        ("manifest too large", tar(&[file("manifest", vec![b' '; 5 << 20]), dir("rootfs")]), "larger than 4194304"),
        ("no manifest", tar(&[dir("rootfs"), file("rootfs/manifest", "{}")]), "needs a name"),
        ("no root", tar(&[manifest("a", json!({}))]), "no rootfs"),
        ("manifest is no JSON", tar(&[file("manifest", "{"), dir("rootfs")]), "not a valid image manifest"),
        ("name with parents", tar(&[manifest("../../x", json!({})), dir("rootfs")]), "not a valid image manifest"),
        ("name with a line break", tar(&[manifest("a\nb", json!({})), dir("rootfs")]), "not a valid image manifest"),
        ("hard link with parents", a(&[hardlink("rootfs/l", "rootfs/../../outside/canary")]), "leaves the image by"),
        ("hard link to the manifest", a(&[hardlink("rootfs/l", "manifest")]), "outside rootfs/"),
        ("absolute hard link", a(&[hardlink("rootfs/l", "/etc/passwd")]), "neither the manifest nor below"),
        ("hard link to nothing", a(&[hardlink("rootfs/l", "rootfs/missing")]), "No such file"),
        ("hard link to the root", a(&[hardlink("rootfs/l", "rootfs")]), "which is the root"),
        ("hard link to a directory", a(&[dir("rootfs/d"), hardlink("rootfs/l", "rootfs/d")]), "which is a directory"),
        (
            "hard link through a link out",
            a(&[symlink("rootfs/out", "../../../../../outside"), hardlink("rootfs/l", "rootfs/out/canary")]),
            "No such file",
        ),
        ("file below a file", a(&[file("rootfs/f", "x"), file("rootfs/f/g", "x")]), "Not a directory"),
        ("below a link to nowhere", a(&[symlink("rootfs/l", "/gone"), file("rootfs/l/x", "x")]), "link to nowhere"),
        ("below a link to itself", a(&[symlink("rootfs/l", "l"), file("rootfs/l/x", "x")]), "rootfs/l"),
        (
            "below links in a circle",
            a(&[symlink("rootfs/a", "b"), symlink("rootfs/b", "a"), file("rootfs/a/x", "x")]),
            "rootfs/a/x",
        ),
        ("directory, then a file", a(&[file("rootfs/d/f", "x"), file("rootfs/d", "x")]), "comes twice"),
        ("symbolic link to nothing", a(&[symlink("rootfs/l", "")]), "without a target"),
        ("disk", a(&[device(T::Block, (8, 0))]), "block device 8:0"),
        ("memory", a(&[device(T::Char, (1, 1))]), "character device 1:1"),
        ("whiteout of overlayfs", a(&[device(T::Char, (0, 0))]), "character device 0:0"),
        ("null as a block device", a(&[device(T::Block, (1, 3))]), "block device 1:3"),
        ("redirect of overlayfs", a(&[with_xattr("trusted.overlay.redirect", b"/etc")]), "trusted.overlay.redirect"),
        (
            "opaque of overlayfs",
            a(&[with_xattr("user.x", b"y"), with_xattr("trusted.overlay.opaque", b"y")]),
            "trusted",
        ),
        ("attribute that is too long", a(&[with_xattr("user.x", &[b'x'; 70_000])]), "fsetxattr"),
        ("capability that is none", a(&[with_xattr("security.capability", b"nonsense")]), "fsetxattr"),
        ("unknown kind", a(&[entry(T::new(b'V'), "rootfs/v")]), "unknown kind"),
        ("name that is too long", a(&[file(&format!("rootfs/{}", "n".repeat(300)), "x")]), "File name too long"),
        ("too deep", a(&[file(&format!("rootfs/{}f", "d/".repeat(600)), "x")]), "deeper than 512"),
        ("id beyond the last", bent(|h| h[108..116].copy_from_slice(b"\x80\0\0\x01\0\0\0\0")), "is not an id"),
        (
            "the id that means none",
            bent(|h| h[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff")),
            "is not an id",
        ),
        ("size that is no number", bent(|h| h[124..136].copy_from_slice(b"not a number")), "size of an entry"),
        (
            "size of half the world",
            bent(|h| h[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
            "archive",
        ),
        ("mode that is no number", bent(|h| h[100..108].copy_from_slice(b"rwxr-xr-")), "mode"),
        (
            "wrong checksum",
            {
                let mut b = whole.clone();
                b[600] ^= 1;
                b[1024 + 3] ^= 1;
                b
            },
            "checksum",
        ),
        ("cut within a file", whole[..whole.len() - 4000].to_vec(), "ends within"),
        ("cut within a header", whole[..700].to_vec(), "archive"),
        ("no archive at all", b"#!/bin/sh\necho this is not an archive\n".to_vec(), "is it a tar file?"),
        ("text of a block's length", vec![b'x'; 1024], "not a tar file"),
        ("gzip of nonsense", b"\x1f\x8b\x08\0nonsense nonsense nonsense".to_vec(), "read the archive"),
        (
            "gzip cut short",
            {
                let b = gzip(&whole);
                b[..b.len() / 2].to_vec()
            },
            "read the archive",
        ),
        ("xz of nonsense", b"\xfd7zXZ\0\0\0nonsense nonsense".to_vec(), "read the archive"),
        ("zstd of nonsense", b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "zstd"),
        ("bzip2 of nonsense", b"BZh9nonsense nonsense".to_vec(), "read the archive"),
        (
            "description without end",
            {
                let long = Entry { size: Some(1 << 40), ..entry(T::GNULongName, "././@LongLink") };
                [a(&[])[..1536].to_vec(), tar(&[long])].concat()
            },
            "description of an entry",
        ),
        (
            "pax record that lies",
            {
                let pax = Entry { content: b"99 path=x\n".to_vec(), ..entry(T::XHeader, "pax") };
                a(&[pax, file("rootfs/f", "x")])
            },
            "pax record is damaged",
        ),
        (
            "pax path with parents",
            {
                let pax = Entry { content: b"31 path=rootfs/../../outside/x\n".to_vec(), ..entry(T::XHeader, "pax") };
                a(&[pax, file("rootfs/f", "x")])
            },
            "leaves the image by",
        ),
        (
            "sparse map that lies",
            {
                let records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.realsize=100\n";
                let pax = Entry { content: records.to_vec(), ..entry(T::XHeader, "pax") };
                let mut map = b"1\n50\n600\n".to_vec();
                map.resize(512 + 600, b'x');
                a(&[pax, file("rootfs/f", map)])
            },
            "map of a sparse file is damaged",
        ),
        (
            "sparse file beyond all limits",
            {
                let records =
                    b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n43 GNU.sparse.realsize=9000000000000000000\n";
                let pax = Entry { content: records.to_vec(), ..entry(T::XHeader, "pax") };
                let mut map = b"0\n".to_vec();
                map.resize(512, 0);
                a(&[pax, file("rootfs/f", map)])
            },
            "larger than allowed",
        ),
    ]
}

/// Layouts with one hostile layer, and layouts whose files were changed.
fn oci_cases() -> Vec<Case> {
    let layers = |layers: &[Vec<u8>]| Oci::new(layers.to_vec(), json!({}));
    let one = |entries: &[Entry]| tar_of(&layers(&[tar(entries)]).layout());
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = layers(&[tar(&[file("f", "x")])]).layout();
        change(&mut files);
        tar_of(&files)
    };
    let plain = || layers(&[tar(&[file("f", "x")])]);
    let base = tar(&[file("d/f", "x")]);
    vec![
        ("layer with parents", one(&[file("../../outside/x", "x")]), "leaves the image by"),
        ("layer whose root is a link", one(&[symlink(".", "/")]), "is not a directory"),
        ("layer with a disk", one(&[device(T::Block, (8, 0))]), "block device"),
        ("layer with a hard link out", one(&[hardlink("l", "../../outside/canary")]), "leaves the image by"),
        (
            "whiteout of the parent",
            tar_of(&layers(&[base.clone(), tar(&[file("d/.wh...", "")])]).layout()),
            "whiteout of nothing",
        ),
        (
            "whiteout of nothing",
            tar_of(&layers(&[base.clone(), tar(&[file("d/.wh.", "")])]).layout()),
            "whiteout of nothing",
        ),
        (
            "whiteout with parents",
            tar_of(&layers(&[base, tar(&[file("../../outside/.wh.canary", "")])]).layout()),
            "leaves the image by",
        ),
        (
            "blob with another content",
            changed(&|files| {
                let layer = files.iter_mut().find(|(_, bytes)| bytes.len() > 1000).unwrap();
                let at = layer.1.len() - 1;
                layer.1[at] ^= 1;
            }),
            "damaged",
        ),
        (
            "manifest with another content",
            changed(&|files| {
                let manifest = files.iter_mut().find(|(_, bytes)| bytes.starts_with(b"{\"config\"")).unwrap();
                manifest.1.push(b' ');
            }),
            "damaged",
        ),
        ("missing blob", changed(&|files| files.retain(|(_, bytes)| bytes.len() < 1000)), "is missing in the archive"),
        (
            "missing index",
            changed(&|files| files.retain(|(name, _)| name != "index.json")),
            "is missing in the archive",
        ),
        ("index that is no JSON", changed(&|files| files.last_mut().unwrap().1 = b"[".to_vec()), "is malformed"),
        (
            "digest with parents",
            changed(&|files| {
                files.last_mut().unwrap().1 =
                    br#"{"manifests":[{"digest":"sha256:../../../../../../etc/passwd","size":1}]}"#.to_vec();
            }),
            "is not 64 hexadecimal digits",
        ),
        (
            "unknown digest",
            changed(&|files| {
                files.last_mut().unwrap().1 = br#"{"manifests":[{"digest":"md5:00","size":1}]}"#.to_vec();
            }),
            "neither sha256 nor sha512",
        ),
        ("empty index", changed(&|files| files.last_mut().unwrap().1 = br#"{"manifests":[]}"#.to_vec()), "no image"),
        (
            "index within itself",
            {
                // it can't contain its own digest: the import finds that before it follows the index again
                changed(&|files| {
                    let text = format!(
                        r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}","size":1}}]}}"#,
                        sha256(b"itself")
                    );
                    files.push((format!("blobs/{}", sha256(b"itself").replace(':', "/")), text.clone().into_bytes()));
                    let index = files.iter_mut().find(|(name, _)| name == "index.json").unwrap();
                    index.1 = text.into_bytes();
                })
            },
            "damaged",
        ),
        ("other platform", tar_of(&Oci { architecture: "s390x", ..plain() }.layout()), "no image for linux/amd64"),
        ("unknown kind of layer", tar_of(&Oci { kind: "application/x-encrypted", ..plain() }.layout()), "unknown type"),
        (
            "layer that is a link out",
            {
                let files = plain().layout();
                let entries: Vec<Entry> = files
                    .iter()
                    .map(|(name, bytes)| {
                        if bytes.len() > 1000 { symlink(name, "../../../../outside/canary") } else { file(name, bytes) }
                    })
                    .collect();
                tar(&entries)
            },
            "leaves the image by",
        ),
        (
            "layer that is a link to itself",
            {
                let files = plain().layout();
                let entries: Vec<Entry> = files
                    .iter()
                    .map(|(name, bytes)| {
                        let own = name.rsplit('/').next().unwrap();
                        if bytes.len() > 1000 { symlink(name, own) } else { file(name, bytes) }
                    })
                    .collect();
                tar(&entries)
            },
            "too many levels of links",
        ),
        (
            "name of the layout with parents",
            tar(&[file("oci-layout", "{}"), file("../index.json", "{}")]),
            "leaves the image",
        ),
        (
            "volume that is relative",
            tar_of(&Oci::new(vec![tar(&[dir("d")])], json!({"Volumes":{"../x":{}}})).layout()),
            "not an absolute path",
        ),
        (
            "docker: configuration elsewhere",
            {
                let manifest = json!([{ "Config": "../../../../etc/passwd", "RepoTags": ["a:b"], "Layers": [] }]);
                tar(&[file("manifest.json", manifest.to_string())])
            },
            "is not 64 hexadecimal digits",
        ),
        (
            "docker: layer elsewhere",
            {
                let image = plain();
                let config = image.config_json();
                let name = format!("{}.json", sha256(&config).trim_start_matches("sha256:"));
                let manifest = json!([{ "Config": name, "RepoTags": ["a:b"], "Layers": ["../../outside/canary"] }]);
                tar(&[file(&name, config), file("manifest.json", manifest.to_string())])
            },
            "leaves the image",
        ),
        (
            "docker: layer of another image",
            {
                let text = plain().docker("a:b");
                let mut text = text;
                let at = text.windows(12).position(|window| window == b"layer0/layer").unwrap();
                // flip a byte of the layer's content, behind the headers of the entry and of its first file
                text[at + 1024] ^= 1;
                text
            },
            "damaged",
        ),
    ]
}

#[test]
fn nothing_hostile_leaves_its_root_and_each_gets_one_clear_line() {
    let cases = [aci_cases(), oci_cases()].concat();
    assert!(cases.len() >= 90, "{}", cases.len());
    let mut failed = Vec::new();
    for (what, bytes, want) in cases {
        let stand = Stand::new();
        let error =
            match stand.import_with(&bytes, &ImportOptions { name: Some("x".into()), ..ImportOptions::default() }) {
                Err(error) => error.one_line(),
                Ok(imported) => format!("it was imported as {}", imported.image.id),
            };
        if !error.contains(want) || error.contains('\n') || !stand.is_clean() || !stand.is_empty() {
            failed.push(format!("{what}: clean {}, unchanged {}: {error}", stand.is_clean(), stand.is_empty()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn links_that_point_outside_stay_inside() {
    let stand = Stand::new();
    let outside = stand.base.path().join("outside");
    let outside = outside.to_str().unwrap();
    let up = format!("{}{outside}", "../".repeat(40));
    let imported = stand
        .import(&aci(
            "a",
            &[
                symlink("rootfs/abs", outside),
                dir(&format!("rootfs{outside}")),
                file("rootfs/abs/canary", "inside"),
                symlink("rootfs/up", &up),
                file("rootfs/up/other", "inside"),
                symlink("rootfs/final", &format!("{outside}/canary")),
                file("rootfs/final", "replaced"),
            ],
        ))
        .unwrap();
    assert!(stand.is_clean());
    let inside = stand.root(&imported).join(outside.strip_prefix('/').unwrap());
    assert_eq!(std::fs::read(inside.join("canary")).unwrap(), b"inside");
    assert_eq!(std::fs::read(inside.join("other")).unwrap(), b"inside");
    assert!(stand.root(&imported).join("final").symlink_metadata().unwrap().is_file());
}

#[test]
fn bombs_are_stopped_at_the_limit() {
    let limited = |bytes, entries| ImportOptions {
        name: Some("x".into()),
        limits: UnpackLimits { bytes, entries, ..UnpackLimits::default() },
        ..ImportOptions::default()
    };
    let stand = Stand::new();
    let refused = |bytes: &[u8], options: &ImportOptions, want: &str| {
        let error = stand.import_with(bytes, options).unwrap_err().one_line();
        assert!(error.contains(want), "{error}");
        assert!(stand.is_clean() && stand.is_empty());
    };
    let bomb = aci("a", &[file("rootfs/f", vec![0; 20 << 20])]);
    for packed in [gzip(&bomb), packed_by("xz", &bomb), packed_by("bzip2", &bomb), packed_by("zstd", &bomb)] {
        assert!(packed.len() < 100_000);
        refused(&packed, &limited(1 << 20, 100), "larger than 1048576 bytes uncompressed");
    }
    // a compressed layer in an uncompressed archive: small there, large on the disk
    let layer = tar(&[file("f", vec![0; 20 << 20])]);
    let image = Oci { pack: gzip, ..Oci::new(vec![layer], json!({})) };
    refused(&tar_of(&image.layout()), &limited(1 << 20, 100), "larger than allowed");
    let two = Oci {
        pack: gzip,
        ..Oci::new(vec![tar(&[file("a", vec![0; 700_000])]), tar(&[file("b", vec![0; 700_000])])], json!({}))
    };
    refused(&tar_of(&two.layout()), &limited(1 << 20, 100), "larger than allowed");
    let many: Vec<Entry> = (0..200).map(|n| file(&format!("rootfs/{n}"), "")).collect();
    refused(&aci("a", &many), &limited(1 << 20, 100), "more than 100 entries");
}

#[test]
fn devices_are_accepted_with_the_option() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making devices takes root");
        return;
    }
    let stand = Stand::new();
    let harmless = aci("a", &[device(T::Char, (1, 3))]);
    stand.import(&harmless).unwrap();
    let disk = aci("b", &[device(T::Block, (8, 0))]);
    assert!(stand.import(&disk).is_err());
    let asked =
        ImportOptions { limits: UnpackLimits { devices: true, ..UnpackLimits::default() }, ..ImportOptions::default() };
    let imported = stand.import_with(&disk, &asked).unwrap();
    use std::os::unix::fs::FileTypeExt;
    assert!(stand.root(&imported).join("srv/x").metadata().unwrap().file_type().is_block_device());
}
