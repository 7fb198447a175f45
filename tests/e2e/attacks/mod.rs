//! Attacks that are known of this field, on real pods. Each test names its model, and how it was seen to succeed when
//! the defence was taken away.

pub mod files;
pub mod programs;
