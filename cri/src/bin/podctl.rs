//! The command `podctl`: that of the host manager, and the Kubernetes runtime as one more verb.

use std::process::ExitCode;

fn main() -> ExitCode {
    stage0::cli::main(cri::serve::serve)
}
