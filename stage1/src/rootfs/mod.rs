//! Building an app's mount namespace: its root file system, the kernel's file systems, devices, volumes and masks, all
//! by descriptor; pinning it in the pod, and unpinning it.
//!
//! The host side opens every source as a detached mount ([`RootfsPlan`]). The pod side assembles them in the app's own
//! mount namespace ([`build()`]); in the pod's there is only its pin.

mod api;
mod build;
pub mod copy;
mod hosts;
mod kernel;
mod masked_paths;
mod memory;
mod mount_point;
mod pin;
mod plan;
mod proc;
pub mod volumes;

pub use build::build;
pub use hosts::Hosts;
pub(crate) use kernel::protect_pod_proc;
pub use pin::{join_pinned, unpin};
pub use plan::{Device, EtcFile, EtcSource, RootfsPlan, Volume, VolumeOptions};
pub use proc::renew_proc;
