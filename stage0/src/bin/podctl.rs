//! The command `podctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    stage0::cli::main()
}
