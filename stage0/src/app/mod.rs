//! The apps of a pod: their options and status, adding, starting, stopping, replacing and removing them, and their
//! files.

pub mod add;
pub mod changes;
pub mod copy;
pub mod files;
pub mod groups;
pub mod health;
pub mod host_record;
pub mod image_volumes;
pub mod interrupted;
pub mod lifecycle;
pub mod mountinfo;
pub mod mounts;
pub mod oom;
pub mod options;
pub mod processes;
pub mod profile;
pub mod record;
pub mod replace;
mod restart_times;
pub mod root;
pub mod run_again;
mod run_entrypoint;
pub mod snapshot;
mod start_lock;
pub mod status;
mod undo_add;
pub mod update;
