//! The apps of a pod: describing them, and adding, starting, stopping and removing one.

pub mod add;
mod crossing;
pub mod files;
pub mod lifecycle;
pub mod mountinfo;
pub mod mounts;
pub mod options;
pub mod processes;
mod recover;
mod start_lock;
pub mod status;
