//! The host manager ("stage0"): images, trees, pods and their apps on disk, and running a stage1's entrypoints.
//!
//! Nothing here enters a pod. The entrypoints of the pod's stage1 image (ours, or another one that keeps the contract
//! in docs/contract.md) do the work inside.

// From the bottom up: a module uses only modules above it in this list; tests/house checks that.
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

pub mod cdi;

pub mod pod;

pub mod podfile;

pub mod logs;

pub mod machine;

pub mod cli;
