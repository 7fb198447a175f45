//! Everything that is true of a pod from the inside and at its border.
//!
//! Modules bottom up; each knows only those above it in this list.

pub mod app;
pub mod appc;
pub mod boot;
pub mod cgroup;
pub mod cli;
pub mod confine;
pub mod cross;
pub mod dev;
pub mod error;
pub mod inherited;
pub mod json;
pub mod launch;
pub mod layout;
pub mod mux;
pub mod net;
pub mod pod;
pub mod rootfs;
pub mod shutdown;
pub mod streams;
pub mod sys;
pub mod systemd;
pub mod terminal;
pub mod uid_range;
pub mod unit;

pub use error::{Context, Error, Result};
