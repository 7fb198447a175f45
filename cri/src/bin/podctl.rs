//! The command `podctl`: the host manager's command line with the verb of the Kubernetes runtime.

use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;

/// musl's own allocator asks the kernel for each small block and gives it back: a tenth of the time of a short verb.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    stage0::cli::main(cri::serve::serve)
}
