//! The library of the entrypoints: what runs inside a pod and at its border.
//!
//! The modules are listed bottom up; each uses only those above it in this list.

pub mod error;

// Not specific to pods.
pub mod json;
pub mod sys;
pub mod uid_range;

// The parts of a pod, independent of each other.
pub mod appc;
pub mod dev;
pub mod inherited;
pub mod systemd;
pub mod terminal;

// Command lines, confinement of a process, paths of a pod.
pub mod cli;
pub mod confine;
pub mod layout;

// A pod on disk and in the host's cgroups.
pub mod cgroup;
pub mod pod;

// Crossing into a running pod, its networks, its units.
pub mod cross;
pub mod net;
pub mod unit;

// An app's mounts and streams.
pub mod rootfs;
pub mod streams;

// Executing an app's command; the monitor's side of its streams.
pub mod launch;
pub mod mux;

// The verbs.
pub mod app;

// Booting a pod, its monitor, its shutdown.
pub mod boot;
pub mod shutdown;

pub use error::{Context, Error, Result};
