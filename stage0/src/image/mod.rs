//! Images: their store and unpacked trees; importing, pulling, pushing, exporting, verifying and removing them.

pub mod archive;
pub mod export;
pub mod gc;
pub mod import;
pub mod oci;
pub mod options;
pub mod overlay_lookup;
pub mod platform;
pub mod pull;
pub mod push;
pub mod store;
pub mod tree;
pub mod verify;
