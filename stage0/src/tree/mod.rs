//! Rendered images, which all pods that use them share, and the root file systems that pods make of them.

pub mod manifest;
pub mod overlay;
pub mod rootfs;
pub mod store;
