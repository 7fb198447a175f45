//! Safe wrappers of the system calls that pods need, on nix, rustix and libc.
//!
//! The only module with `unsafe` in it. The error of a failed call names the call with its arguments.
//! Every descriptor is owned and close-on-exec.

#![allow(unsafe_code)]

pub mod caps;
pub mod device_bpf;
pub mod dir;
pub mod fd_passing;
pub mod mount;
pub mod net;
pub mod process;
pub mod process_attributes;
pub mod procfs;
pub mod pty;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod spawn;
pub mod userns;
