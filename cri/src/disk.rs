//! The disk space that images and pods take.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use stage0::fsutil::time::nanoseconds;

use crate::api::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoResponse, UInt64Value};
use crate::fault::Result;
use crate::image;
use crate::node::Node;

/// Disk space and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes in allocated blocks.
    pub bytes: u64,
    /// Inodes: of files, directories and anything else; a file with two links counts twice.
    pub inodes: u64,
}

impl Taken {
    fn add(&mut self, stat: &Metadata) {
        self.bytes += stat.blocks() * 512;
        self.inodes += 1;
    }

    fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, inodes: self.inodes + other.inodes }
    }
}

/// Adds up what the files below a directory take, without what is mounted there. Files that can't be read, or that are
/// removed meanwhile, are not counted.
pub fn below(dir: &Path) -> Taken {
    let mut taken = Taken::default();
    let Ok(top) = dir.symlink_metadata() else { return taken };
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(stat) = entry.path().symlink_metadata() else { continue };
            if stat.dev() != top.dev() {
                continue;
            }
            taken.add(&stat);
            if stat.is_dir() {
                next.push(entry.path());
            }
        }
    }
    taken
}

/// `ImageFsInfo`: the usage of images and of containers, both on the file system of the data directory.
///
/// # Errors
/// Never: files that can't be read are not counted.
pub fn info(node: &Node) -> Result<ImageFsInfoResponse> {
    let images = image::directories(node).iter().map(|dir| below(dir)).fold(Taken::default(), Taken::plus);
    let usage = |taken: Taken| FilesystemUsage {
        timestamp: nanoseconds(SystemTime::now()),
        fs_id: Some(FilesystemIdentifier { mountpoint: node.store.dir().to_string_lossy().into_owned() }),
        used_bytes: Some(UInt64Value { value: taken.bytes }),
        inodes_used: Some(UInt64Value { value: taken.inodes }),
    };
    Ok(ImageFsInfoResponse {
        image_filesystems: vec![usage(images)],
        container_filesystems: vec![usage(below(&node.store.pods()))],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_counted() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("d")).unwrap();
        std::fs::write(base.path().join("d/f"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink("/", base.path().join("link")).unwrap();
        let taken = below(base.path());
        assert_eq!(taken.inodes, 3);
        assert!((10_000..100_000).contains(&taken.bytes), "{taken:?}");
        assert_eq!(below(&base.path().join("none")), Taken::default());
    }
}
