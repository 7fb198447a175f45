//! The apps of a pod: their options and status, adding, starting, stopping, replacing and removing them, and their
//! files.

pub mod add;
pub mod changes;
pub mod copy;
mod crossing;
pub mod files;
pub mod groups;
pub mod health;
pub mod image_volumes;
pub mod kept;
pub mod lifecycle;
pub mod mountinfo;
pub mod mounts;
pub mod oom;
pub mod options;
mod past;
pub mod processes;
pub mod profile;
pub mod record;
mod recover;
pub mod replace;
pub mod resume;
pub mod root;
pub mod snapshot;
mod start_lock;
pub mod status;
pub mod unfinished;
pub mod update;
