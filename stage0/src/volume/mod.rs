//! Named volumes: directories of the data directory that outlive every pod, and who uses them.
//!
//! What belongs to one pod alone (its empty volumes) is in the pod's directory and not here, apart from finding it.

pub mod content;
pub mod fill;
pub mod implicit;
pub mod name;
pub mod named;
pub mod removal;
pub mod users;
