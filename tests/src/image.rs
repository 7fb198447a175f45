//! Images with the probe app.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::process::run;
use crate::target;

/// Path of the probe that cargo builds.
pub fn probe() -> PathBuf {
    target().join("x86_64-unknown-linux-musl/release/probe")
}

/// Makes a root file system with the probe in a new directory: users `nobody` (65534) and `web` (1001, group `www`
/// 2001, also in `extra` 3001), a file owned by 1234:2345, symlinks that lead out of the root, a directory with
/// contents and a file to mount over.
pub fn rootfs(at: &Path) {
    let put = |name: &str, text: &str| {
        let path = at.join(name);
        fs::create_dir_all(path.parent().unwrap_or(at)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    };
    put("etc/passwd", "root:x:0:0::/:/probe\nweb:x:1001:2001::/home:/probe\nnobody:x:65534:65534::/:/probe\n");
    put("etc/group", "root:x:0:\nwww:x:2001:\nextra:x:3001:web\nnogroup:x:65534:\n");
    put("data/owned", "by 1234:2345\n");
    put("data/kept", "from the image\n");
    put("over/this", "to be mounted over\n");
    put("home/readme", "home\n");
    for dir in ["tmp", "out", "shared", "bin"] {
        fs::create_dir_all(at.join(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
        fs::set_permissions(at.join(dir), fs::Permissions::from_mode(0o777)).unwrap_or_else(|e| panic!("{dir}: {e}"));
    }
    chown(at.join("data/owned"), Some(1234), Some(2345)).unwrap_or_else(|e| panic!("chown: {e}"));
    for (name, to) in [("escape", "/../../../../../../etc"), ("up", "../../../../.."), ("bin/probe", "/probe")] {
        symlink(to, at.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    fs::copy(probe(), at.join("probe")).unwrap_or_else(|e| panic!("{}: {e}", probe().display()));
}

/// The manifest of a probe image with these further fields in its app section.
pub fn manifest(name: &str, app: &Value) -> Value {
    let mut section = json!({ "exec": ["/probe", "help"], "user": "0", "group": "0" });
    if let (Some(into), Some(from)) = (section.as_object_mut(), app.as_object()) {
        into.extend(from.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    json!({
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": name,
        "labels": [
            {"name": "version", "value": "1"}, {"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"},
        ],
        "app": section,
    })
}

/// Packs a manifest and a root file system of the probe as an image file in `dir`; returns its path.
pub fn aci(dir: &Path, name: &str, manifest: &Value) -> PathBuf {
    let tree = dir.join(format!("{name}.tree"));
    rootfs(&tree.join("rootfs"));
    fs::write(tree.join("manifest"), manifest.to_string()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let file = dir.join(format!("{name}.aci"));
    run(Command::new("tar").arg("-czf").arg(&file).arg("-C").arg(&tree).args([
        "--numeric-owner",
        "manifest",
        "rootfs",
    ]))
    .ok();
    file
}
