//! Finding a pod's stage1 and running its entrypoints (docs/contract.md).

pub mod attach;
pub mod bundled_image;
pub mod enter;
pub mod spawn;
pub mod supervisor;
