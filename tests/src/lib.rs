//! End-to-end tests on real pods: the harness, two host managers and the images they use.
//!
//! The tests themselves are in `tests/e2e`, one file per subject. Nothing here uses the crates under test:
//! the product is what `scripts/build` left in `target/dist`, and it is driven from outside.
//!
//! - [`harness`] runs every test in processes of its own, in each cgroup layout, and counts what it left behind.
//! - [`podctl`] drives our own host manager.
//! - [`minihost`] is a second, independent host manager that knows only the contract.
//! - [`cri`] is `podctl cri` and a client of it, as a kubelet is one.
//! - [`nethost`] is a host with networks.
//! - [`screen`] is a terminal with somebody in front of it.
//! - [`tracer`] kills a command at any of its system calls.
//! - [`oci`] makes images as registries have them; [`registry`] is Debian's registry; [`server`] is one that misbehaves.
//! - [`image`] makes images around the probe app (`tests/probe`); [`machine`] makes programs for a system call each.

pub mod cri;
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

/// What a test ends with: any error fails it, with the error's text.
pub type Verdict = Result<(), Box<dyn std::error::Error>>;

/// The root of the source tree.
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The build directory (`target`), where `dist` and the work of the tests live.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_else(|| source().join("target"))
}

/// What `scripts/build` makes.
pub fn dist() -> PathBuf {
    source().join("target/dist")
}
