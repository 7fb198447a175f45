//! The host manager ("stage0"): images, trees, pods and their apps on disk, and running a stage1's entrypoints.
//!
//! Nothing here enters a pod. What happens inside is done by the entrypoints of the pod's stage1 image, ours or
//! another of the family, as the contract between the two says.

// From the bottom up: each uses those above it in this list, never those below.
pub mod interrupt;

pub mod fsutil;

pub mod store;

pub mod poddir;

pub mod registry;

pub mod image;

pub mod rootfs;

pub mod entrypoint;

pub mod volume;

pub mod app;

pub mod pod;

pub mod podfile;

pub mod logs;

pub mod machine;

pub mod cli;
