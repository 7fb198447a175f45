//! A pod on disk: its phase and who holds it, its manifest, its name and UID range, what was asked for when it was made.
//!
//! What is done with whole pods is in `pod`, with their apps in `app`; both are above images and entrypoints.

pub mod claim;
pub mod find;
pub mod manifest;
pub mod name;
pub mod pause;
pub mod phase;
pub mod uid_range;
