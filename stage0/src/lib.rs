//! The host manager ("stage0"): images, trees, pods and their apps on disk, and running a stage1's entrypoints.
//!
//! Nothing here enters a pod. What happens inside is done by the entrypoints of the pod's stage1 image, ours or
//! another of the family, as the contract between the two says.

// From the bottom up; `cli` is at the top, and everything may use `fsutil` and `store`.
pub mod fsutil;
pub mod interrupt;
pub mod store;

pub mod registry;

pub mod image;
pub mod tree;

pub mod pod;

pub mod entrypoint;

pub mod app;

pub mod logs;

pub mod cli;
