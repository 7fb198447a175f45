//! Images: the store of those that were imported, their unpacked trees, taking images in and handing them out.

pub mod archive;
pub mod blobs;
pub mod export;
pub mod gc;
pub mod import;
pub mod kept;
pub mod oci;
pub mod options;
pub mod platform;
pub mod pull;
pub mod push;
pub mod store;
pub mod tree;
pub mod tree_list;
pub mod verify;
