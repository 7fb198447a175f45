//! Builds the stage1 image that `PODCTL_STAGE1_ACI` names into podctl, with the hash of its content.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha512};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(podctl_stage1)");
    println!("cargo::rerun-if-env-changed=PODCTL_STAGE1_ACI");
    println!("cargo::rerun-if-changed=build.rs");
    let Some(path) = std::env::var_os("PODCTL_STAGE1_ACI").filter(|path| !path.is_empty()) else { return };
    let path = Path::new(&path).canonicalize().unwrap_or_else(|e| panic!("PODCTL_STAGE1_ACI={path:?}: {e}"));
    let path = path.to_str().expect("PODCTL_STAGE1_ACI is UTF-8");
    println!("cargo::rerun-if-changed={path}");
    println!("cargo::rustc-cfg=podctl_stage1");
    println!("cargo::rustc-env=PODCTL_STAGE1_FILE={path}");
    println!("cargo::rustc-env=PODCTL_STAGE1_ID={}", id_of(path).unwrap_or_else(|e| panic!("{path}: {e}")));
}

/// The id of a gzip'd image archive: the hash of its uncompressed content.
fn id_of(path: &str) -> std::io::Result<String> {
    let mut archive = flate2::read::MultiGzDecoder::new(File::open(path)?);
    let mut hasher = Sha512::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match archive.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().fold(String::from("sha512-"), |mut id, byte| {
        write!(id, "{byte:02x}").expect("writing to a string");
        id
    }))
}
