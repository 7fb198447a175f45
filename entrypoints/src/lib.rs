//! The binaries of the stage1 image; each is one call into `stage1`.
