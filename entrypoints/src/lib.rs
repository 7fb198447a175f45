//! What the binaries of the stage1 image have in common; each of them is one call into `stage1`.

use std::io::Write;
use std::process::ExitCode;

use log::LevelFilter;
use stage1::cli::{self, Tool};
use stage1::error::escape_control;

#[cfg(all(target_env = "musl", panic = "abort"))]
mod unwind;

/// Runs a tool with this process's arguments: the body of every `main`.
pub fn run<T: Tool>() -> ExitCode {
    cli::run::<T>(|debug| log_to_stderr(T::NAME, debug))
}

/// Has each message written to standard error as one line, in one piece: `NAME: LEVEL: MESSAGE`.
fn log_to_stderr(name: &'static str, debug: bool) {
    env_logger::Builder::new()
        .filter_level(if debug { LevelFilter::Debug } else { LevelFilter::Warn })
        .format(move |out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "{name}: {level}: {}", escape_control(&record.args().to_string()))
        })
        .init();
}
