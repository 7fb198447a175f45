//! Images: the store of those that were imported, their unpacked trees, taking images in and handing them out.
//!
//! Each module uses those listed above it, not those below.

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
