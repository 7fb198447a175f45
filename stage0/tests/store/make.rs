//! Making archives of every kind, including ones that no archiver writes.

use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// One entry, whose names are not changed.
#[derive(Clone)]
pub struct Entry {
    pub kind: EntryType,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub content: Vec<u8>,
    pub mode: u32,
    pub device: (u32, u32),
    pub xattr: Option<(String, Vec<u8>)>,
    /// The size in the header, if it is not that of the content.
    pub size: Option<u64>,
}

pub fn entry(kind: EntryType, name: &str) -> Entry {
    Entry {
        kind,
        name: name.into(),
        link: Vec::new(),
        content: Vec::new(),
        mode: 0o755,
        device: (1, 3),
        xattr: None,
        size: None,
    }
}

pub fn file(name: &str, content: impl AsRef<[u8]>) -> Entry {
    Entry { content: content.as_ref().to_vec(), ..entry(EntryType::Regular, name) }
}

pub fn dir(name: &str) -> Entry {
    entry(EntryType::Directory, name)
}

pub fn symlink(name: &str, to: &str) -> Entry {
    Entry { link: to.into(), ..entry(EntryType::Symlink, name) }
}

pub fn hardlink(name: &str, to: &str) -> Entry {
    Entry { link: to.into(), ..entry(EntryType::Link, name) }
}

/// A tar file of the entries; long names are in GNU's extra headers.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for one in entries {
        for (kind, text) in [(EntryType::GNULongName, &one.name), (EntryType::GNULongLink, &one.link)] {
            if text.len() > 100 {
                let mut header = Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(text.len() as u64 + 1);
                header.set_cksum();
                builder.append(&header, &[text.as_slice(), b"\0"].concat()[..]).unwrap();
            }
        }
        if let Some((name, value)) = &one.xattr {
            let key = format!("SCHILY.xattr.{name}");
            builder.append_pax_extensions([(key.as_str(), value.as_slice())]).unwrap();
        }
        let mut header = Header::new_gnu();
        let name = &one.name[..one.name.len().min(100)];
        let link = &one.link[..one.link.len().min(100)];
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(one.kind);
        header.set_mode(one.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(one.size.unwrap_or(one.content.len() as u64));
        if matches!(one.kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(one.device.0).unwrap();
            header.set_device_minor(one.device.1).unwrap();
        }
        header.set_cksum();
        builder.append(&header, &one.content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The manifest of an image called `name`, with the fields `more`.
pub fn manifest(name: &str, more: Value) -> Entry {
    let mut manifest = json!({ "acKind": "ImageManifest", "acVersion": "0.8.11", "name": name });
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    file("manifest", manifest.to_string())
}

/// An application container image of these entries.
pub fn aci(name: &str, entries: &[Entry]) -> Vec<u8> {
    tar(&[&[manifest(name, json!({})), dir("rootfs")], entries].concat())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

/// Compresses with a program of the system, as real archivers do.
pub fn packed_by(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new(program)
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program}");
    output.stdout
}

pub fn sha256(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// An OCI image: its uncompressed layers, the function that compresses each, and its configuration's `config`.
#[derive(Clone)]
pub struct Oci {
    pub layers: Vec<Vec<u8>>,
    pub pack: fn(&[u8]) -> Vec<u8>,
    pub kind: &'static str,
    pub config: Value,
    pub architecture: &'static str,
    pub reference: Option<String>,
}

impl Oci {
    pub fn new(layers: Vec<Vec<u8>>, config: Value) -> Self {
        let kind = "application/vnd.oci.image.layer.v1.tar";
        Self { layers, pack: <[u8]>::to_vec, kind, config, architecture: "amd64", reference: None }
    }

    pub fn config_json(&self) -> Vec<u8> {
        let diffs: Vec<String> = self.layers.iter().map(|layer| sha256(layer)).collect();
        json!({
            "os": "linux", "architecture": self.architecture, "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diffs }, "history": [],
        })
        .to_string()
        .into_bytes()
    }

    /// Its blobs and the descriptor of its manifest.
    pub fn blobs(&self) -> (Vec<(String, Vec<u8>)>, Value) {
        let mut blobs = Vec::new();
        let mut add = |kind: &str, bytes: Vec<u8>| {
            let digest = sha256(&bytes);
            let descriptor = json!({ "mediaType": kind, "digest": digest, "size": bytes.len() });
            blobs.push((format!("blobs/{}", digest.replace(':', "/")), bytes));
            descriptor
        };
        let config = add("application/vnd.oci.image.config.v1+json", self.config_json());
        let layers: Vec<Value> = self.layers.iter().map(|layer| add(self.kind, (self.pack)(layer))).collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let mut descriptor = add("application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes());
        descriptor["platform"] = json!({ "os": "linux", "architecture": self.architecture });
        if let Some(reference) = &self.reference {
            descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": reference });
        }
        (blobs, descriptor)
    }

    /// The files of a layout with only this image.
    pub fn layout(&self) -> Vec<(String, Vec<u8>)> {
        layout(&[self])
    }

    /// The older format of `docker save`, with a directory per layer.
    pub fn docker(&self, tag: &str) -> Vec<u8> {
        let config = self.config_json();
        let name = format!("{}.json", sha256(&config).trim_start_matches("sha256:"));
        let layers: Vec<String> = (0..self.layers.len()).map(|n| format!("layer{n}/layer.tar")).collect();
        let manifest = json!([{ "Config": name, "RepoTags": [tag], "Layers": layers }]);
        let mut entries = vec![file(&name, config)];
        for (layer, name) in self.layers.iter().zip(&layers) {
            entries.push(dir(name.split('/').next().unwrap()));
            entries.push(file(name, layer));
        }
        entries.push(file("manifest.json", manifest.to_string()));
        tar(&entries)
    }
}

/// The files of an OCI layout with these images.
pub fn layout(images: &[&Oci]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut manifests = Vec::new();
    for image in images {
        let (blobs, descriptor) = image.blobs();
        files.extend(blobs);
        manifests.push(descriptor);
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    files
}

pub fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    tar(&files.iter().map(|(name, bytes)| file(name, bytes)).collect::<Vec<_>>())
}
