//! The app of the end-to-end tests: a static binary that says what it sees from inside.
//!
//! `probe ACTION [ARG…] [+ ACTION [ARG…]]…` does the actions in order and exits 0, or 1 with one line
//! on stderr at the first that fails. `probe help` lists them.

mod actions;
mod attack;
mod network;
mod report;
mod trial;
mod writable;

use std::process::ExitCode;

use nix::sys::signal::Signal;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    // From the first moment on: a test that sees what an earlier action did may send the signal right then.
    let mut names = args.split(|a| a == "+").filter_map(|action| action.first());
    if names.any(|name| ["orderly", "stubborn", "told"].contains(&name.as_str()))
        && let Err(why) = actions::block(Signal::SIGTERM)
    {
        eprintln!("probe: {why}");
        return ExitCode::FAILURE;
    }
    for action in args.split(|a| a == "+") {
        let words: Vec<&str> = action.iter().map(String::as_str).collect();
        if let Err(why) = actions::perform(&words) {
            eprintln!("probe {}: {why}", words.join(" "));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
