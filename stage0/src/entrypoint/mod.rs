//! Running a stage1's entrypoints, and finding the stage1 that has them.

pub mod attach;
pub mod bundled_image;
pub mod enter;
pub mod spawn;
