//! Safe wrappers over the system calls pods need.
