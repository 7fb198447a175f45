//! Pods as a whole: making, running, stopping and removing them. `poddir` has their directories and files.

pub mod create;
pub mod ending;
pub mod events;
pub mod gc;
pub mod immutable;
pub mod name_files;
pub mod network;
pub mod ports;
pub mod published_port;
pub mod settings;
pub mod start;
pub mod stop;
pub mod sysctl;
pub mod update;
pub mod wait;
