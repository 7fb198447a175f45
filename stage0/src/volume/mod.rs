//! Named volumes, which are in the data directory and outlive pods; and finding, filling and removing a pod's own
//! volumes, which are in the pod's directory.

pub mod content;
pub mod fill;
pub mod implicit;
pub mod name;
pub mod named;
pub mod removal;
pub mod users;
