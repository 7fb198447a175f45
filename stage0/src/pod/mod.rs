//! Whole pods: their directory and phases, making, running, ending and removing them.

pub mod create;
pub mod directory;
pub mod gc;
pub mod immutable;
pub mod insecure;
pub mod name_files;
pub mod network;
pub mod settings;
pub mod stop;
pub mod uid_range;
pub mod wait;
