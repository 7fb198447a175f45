//! The command `podctl`: the host manager's command line with the verb of the Kubernetes runtime.

use std::process::ExitCode;

fn main() -> ExitCode {
    stage0::cli::main(cri::serve::serve)
}
