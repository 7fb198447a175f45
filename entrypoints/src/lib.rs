//! What the binaries of the stage1 image have in common: running a tool of the library `stage1`, and logging.

use std::io::Write;
use std::process::ExitCode;

use log::LevelFilter;
use stage1::cli::{self, Tool};
use stage1::error::escape_control;

#[cfg(all(target_env = "musl", panic = "abort"))]
mod unwind;

#[doc(hidden)]
pub use dlmalloc::GlobalDlmalloc;

/// Makes dlmalloc the allocator of a program. musl's own allocator asks the kernel for each small block and gives it
/// back, which takes a tenth of the time of a short verb. `run` keeps musl's, with which it needs less memory.
#[macro_export]
macro_rules! allocate_fast {
    () => {
        #[global_allocator]
        static ALLOCATOR: $crate::GlobalDlmalloc = $crate::GlobalDlmalloc;
    };
}

/// Runs a tool with this process's arguments: the body of every `main`.
pub fn run<T: Tool>() -> ExitCode {
    cli::run::<T>(|debug| log_to_stderr(T::NAME, debug))
}

/// Sets up logging to standard error, one line per message, written in one piece: `NAME: LEVEL: MESSAGE`.
fn log_to_stderr(name: &'static str, debug: bool) {
    env_logger::Builder::new()
        .filter_level(if debug { LevelFilter::Debug } else { LevelFilter::Warn })
        .format(move |out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "{name}: {level}: {}", escape_control(&record.args().to_string()))
        })
        .init();
}
