//! The host manager ("stage0"): images, trees, pods and their apps on disk, and running a stage1's entrypoints.
//!
//! Nothing here enters a pod. What happens inside is done by the entrypoints of the pod's stage1 image, ours or
//! another of the family, as the contract between the two says.

pub mod apps;
pub mod archive;
pub mod attach;
pub mod cli;
pub mod digest;
pub mod enter;
pub mod entrypoint;
pub mod gc;
pub mod images;
pub mod immutable;
pub mod journal;
pub mod launch;
pub mod logs;
pub mod names;
pub mod networks;
pub mod oci;
pub mod overlay;
pub mod pods;
mod remove;
pub mod roots;
pub mod sandbox;
pub mod spec;
pub mod stage1_image;
pub mod stop;
pub mod store;
pub mod sums;
mod time;
pub mod trees;
pub mod users;
pub mod wait;
pub mod when;
