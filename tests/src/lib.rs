//! End-to-end tests on real pods: the harness, two host managers and the images they use.
//!
//! The tests themselves are in `tests/e2e`, one file per subject. They drive the product from outside: the programs and
//! the image that `scripts/build` left in `target/dist`.
//!
//! - [`harness`] runs each test in its own processes, in each cgroup layout, and fails it for anything it leaves
//!   behind.
//! - [`podctl`] runs our own host manager.
//! - [`minihost`] is a second, independent host manager, written from docs/contract.md.
//! - [`cri`] runs `podctl cri` and is a client of it, as a kubelet is.
//! - [`nethost`] is a host with network configurations.
//! - [`screen`] is a terminal that types and reads what is shown.
//! - [`tracer`] kills a command at any of its system calls.
//! - [`oci`] makes OCI images; [`registry`] runs Debian's registry; [`server`] is an HTTP server that may misbehave.
//! - [`image`] makes images with the probe app (`tests/probe`); [`machine`] makes programs that make one system call.

pub mod cri;
pub mod cri_streams;
pub mod harness;
pub mod image;
pub mod leftovers;
pub mod machine;
pub mod minihost;
pub mod nethost;
pub mod oci;
pub mod podctl;
pub mod process;
pub mod registry;
pub mod screen;
pub mod server;
pub mod tracer;

use std::path::{Path, PathBuf};

/// The result of a test: any error fails it, with the error's text.
pub type Verdict = Result<(), Box<dyn std::error::Error>>;

/// The root of the source tree.
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The build directory (`target`), where `dist` and the work of the tests live.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_else(|| source().join("target"))
}

/// The directory with the programs and the image that `scripts/build` makes.
pub fn dist() -> PathBuf {
    source().join("target/dist")
}
