//! Building an app's mount namespace: its root file system, the kernel's file systems, devices,
//! volumes and masks, all by descriptor; pinning it in the pod, and unpinning it.
//!
//! The host side opens every source as a detached mount ([`RootfsPlan`]); the pod side assembles them in
//! a namespace of the app's own ([`build()`]), of which the pod sees nothing but one pin.

mod api;
mod build;
pub mod copy;
mod covers;
mod hosts;
mod kernel;
mod memory;
mod mount_point;
mod pin;
mod plan;
pub mod volumes;

pub use build::build;
pub use hosts::Hosts;
pub(crate) use kernel::protect_pod_proc;
pub use pin::{join_pinned, unpin};
pub use plan::{Device, EtcFile, EtcSource, RootfsPlan, Volume, VolumeOptions};
