//! Images: the store of those that were imported, their unpacked trees, taking images in and handing them out.

pub mod archive;
pub mod blobs;
pub mod export;
pub mod gc;
pub mod import;
pub mod kept;
pub(crate) mod layered;
pub(crate) mod layered_again;
pub(crate) mod layers;
pub(crate) mod merged;
pub(crate) mod noted;
pub mod oci;
pub mod options;
pub mod placed;
pub mod platform;
pub mod pull;
pub mod push;
pub(crate) mod shelf;
pub mod store;
pub(crate) mod top;
pub mod tree;
pub mod tree_list;
pub mod verify;
