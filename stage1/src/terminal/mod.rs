//! The caller's terminal, and copying between it and something inside a pod: a pty, pipes, a socket. Host side.
//!
//! The terminal itself is never handed in: a program that has it open, or as its controlling terminal, can type into
//! the caller's shell, read what is typed there, and leave it in any state. What goes in and out are bytes, copied by
//! a loop of these parts:
//!
//! - [`Flow`]: one direction, through a buffer. [`step`] does what all flows can do now and waits when that is nothing,
//!   for them or for any other descriptor (a signalfd, say). Neither ever waits in a read or a write, and no flow
//!   changes a descriptor's flags for others that share it: [`own()`].
//! - [`Caller`]: the terminal among this process's standard descriptors: raw mode while something inside has a terminal
//!   of its own, window sizes, stopping and continuing.
//! - [`Foreground`]: both, for whoever is in front of a terminal inside: the loops of `enter`, `attach` and
//!   `run --interactive` are made of its steps.
//!
//! ```text
//! loop {
//!     let step = foreground.step(&mut outputs, &[signals.as_fd()], None)?;
//!     if step.woken[0] { … SIGWINCH, SIGCONT: foreground.continued(), SIGTSTP: foreground.give_back() … }
//!     if step.is_changed { … another window size … }
//!     if outputs.iter().all(Flow::is_done) { break }
//! }
//! ```

mod caller;
mod flow;
mod foreground;
mod keys;

pub use caller::{Caller, standard};
pub use flow::{Files, Flow, own, set_nonblocking, step};
pub use foreground::{Foreground, Stepped};
pub use keys::DetachKeys;
