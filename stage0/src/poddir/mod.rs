//! A pod on disk: its phase and whether a process holds it, its manifest, name and UID range, and whether it is paused.
//!
//! Operations on whole pods belong in `pod`, those on their apps in `app`; both are above images and entrypoints.

pub mod claim;
pub mod find;
pub mod manifest;
pub mod name;
pub mod pause;
pub mod phase;
pub mod uid_range;
