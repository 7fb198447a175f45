//! The end-to-end tests: real pods, in every cgroup layout of this machine.

use std::process::ExitCode;

mod harness;

fn main() -> ExitCode {
    tests::harness::main(&[harness::CASES], harness::DECOYS)
}
