//! Everything that is true of a pod from the inside and at its border.
//!
//! Modules bottom up; each knows only those above it in this list.

pub mod error;

// Whatever it is about.
pub mod json;
pub mod sys;
pub mod uid_range;

// What a pod is made of, each by itself.
pub mod appc;
pub mod dev;
pub mod inherited;
pub mod systemd;
pub mod terminal;

// A program, a process, the paths.
pub mod cli;
pub mod confine;
pub mod layout;

// A pod on disk and in the host's cgroups.
pub mod cgroup;
pub mod pod;

// A pod that runs, its networks, its units.
pub mod cross;
pub mod net;
pub mod unit;

// An app's mounts and streams.
pub mod rootfs;
pub mod streams;

// Becoming an app; the monitor's side of its streams.
pub mod launch;
pub mod mux;

// The verbs.
pub mod app;

// The pod's birth, its monitor, and its end.
pub mod boot;
pub mod shutdown;

pub use error::{Context, Error, Result};
