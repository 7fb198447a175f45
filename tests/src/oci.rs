//! OCI images with the probe app.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::image;
use crate::process::run;

/// Media type of the manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image, with all its blobs in memory.
#[derive(Debug, Clone)]
pub struct OciImage {
    /// By digest, without the manifest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Digests of the layers.
    pub layers: Vec<String>,
    /// The configuration's digest.
    pub config: String,
}

/// `sha256:…`
pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// Bytes that can't be compressed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(length).collect()
}

impl OciImage {
    /// The probe's root file system as the lowest layer, and one layer with `/layer-N` for each further size in bytes.
    /// The directory must be new.
    pub fn new(scratch: &Path, sizes: &[usize]) -> Self {
        Self::changed(scratch, sizes, &[], |_| ())
    }

    /// The probe's root file system as the lowest layer, and a layer of each directory in `trees` above it. A file
    /// `.wh.NAME` in them is a whiteout: the layer removes NAME.
    pub fn stack(scratch: &Path, trees: &[PathBuf]) -> Self {
        let lowest = scratch.join("lowest");
        if !lowest.exists() {
            image::rootfs(&lowest);
        }
        let all: Vec<&Path> = std::iter::once(lowest.as_path()).chain(trees.iter().map(PathBuf::as_path)).collect();
        Self::packed(scratch, &all, &[])
    }

    /// As [`Self::new`], with a root file system that `change` has changed, and with pax records (`KEYWORD:=VALUE`) for
    /// every file of every layer.
    pub fn changed(scratch: &Path, sizes: &[usize], records: &[&str], change: impl FnOnce(&Path)) -> Self {
        let mut change = Some(change);
        let mut trees = Vec::new();
        for number in 0..=sizes.len() {
            let tree = scratch.join(format!("layer-{number}"));
            fs::create_dir_all(&tree).unwrap_or_else(|e| panic!("{}: {e}", tree.display()));
            match number.checked_sub(1) {
                None => {
                    image::rootfs(&tree);
                    change.take().into_iter().for_each(|change| change(&tree));
                }
                Some(index) => {
                    let file = tree.join(format!("layer-{number}"));
                    fs::write(&file, noise(number as u64, sizes[index])).unwrap_or_else(|e| panic!("{e}"));
                }
            }
            trees.push(tree);
        }
        Self::packed(scratch, &trees.iter().map(PathBuf::as_path).collect::<Vec<_>>(), records)
    }

    fn packed(scratch: &Path, trees: &[&Path], records: &[&str]) -> Self {
        let mut blobs = BTreeMap::new();
        let (mut layers, mut diffs) = (Vec::new(), Vec::new());
        for (number, tree) in trees.iter().enumerate() {
            let tar = scratch.join(format!("layer-{number}.tar"));
            let mut command = Command::new("tar");
            command.arg("-cf").arg(&tar).arg("--numeric-owner");
            command.args(records.iter().map(|record| format!("--pax-option={record}")));
            run(command.arg("-C").arg(tree).arg(".")).ok();
            diffs.push(digest(&fs::read(&tar).expect("a layer")));
            run(Command::new("gzip").arg("-n1").arg(&tar)).ok();
            let tar = tar.with_extension("tar.gz");
            let packed = fs::read(&tar).expect("a layer");
            fs::remove_file(&tar).expect("a layer");
            layers.push(digest(&packed));
            blobs.insert(digest(&packed), packed);
        }
        let config = json!({
            "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diffs },
            "config": { "Entrypoint": ["/probe"], "Cmd": ["print", "pulled"], "Env": ["GREETING=hello"] },
        });
        let config = config.to_string().into_bytes();
        let name = digest(&config);
        blobs.insert(name.clone(), config);
        let mut image = Self { blobs, manifest: Vec::new(), layers, config: name };
        image.manifest = image.describe().to_string().into_bytes();
        image
    }

    /// Adds a layer of these files alone: no directory of theirs is described.
    pub fn add_files(&mut self, scratch: &Path, tree: &Path, files: &[&str]) {
        let tar = scratch.join("files.tar");
        run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(tree).args(files)).ok();
        let bytes = fs::read(&tar).expect("a layer");
        let (name, old) = (digest(&bytes), self.blobs[&self.config].clone());
        self.layers.push(name.clone());
        self.blobs.insert(name.clone(), bytes);
        let mut config: Value = serde_json::from_slice(&old).expect("JSON");
        config["rootfs"]["diff_ids"].as_array_mut().expect("a list").push(json!(name));
        *self = self.clone().configured(|to| *to = config);
    }

    /// With another configuration.
    #[must_use]
    pub fn configured(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let old = self.blobs.remove(&self.config).expect("a configuration");
        let mut config: Value = serde_json::from_slice(&old).expect("JSON");
        change(&mut config);
        let config = config.to_string().into_bytes();
        self.config = digest(&config);
        self.blobs.insert(self.config.clone(), config);
        self.manifest = self.describe().to_string().into_bytes();
        self
    }

    /// The manifest, to be changed.
    pub fn describe(&self) -> Value {
        let pointer = |kind: &str, digest: &String| json!({ "mediaType": kind, "digest": digest, "size": self.blobs[digest].len() });
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": pointer(CONFIG, &self.config),
            "layers": self.layers.iter().map(|layer| pointer(LAYER, layer)).collect::<Vec<_>>(),
        })
    }

    /// The manifest's digest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Writes it as an OCI layout; gives the path with the tag, as skopeo takes it.
    pub fn layout(&self, dir: &Path, tag: &str) -> String {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap_or_else(|e| panic!("{}: {e}", blobs.display()));
        let write = |path: PathBuf, bytes: &[u8]| fs::write(&path, bytes).unwrap_or_else(|e| panic!("{e}"));
        for (digest, bytes) in &self.blobs {
            write(blobs.join(&digest["sha256:".len()..]), bytes);
        }
        write(blobs.join(&self.digest()["sha256:".len()..]), &self.manifest);
        write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": self.digest(), "size": self.manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }]});
        write(dir.join("index.json"), index.to_string().as_bytes());
        format!("oci:{}:{tag}", dir.display())
    }
}
