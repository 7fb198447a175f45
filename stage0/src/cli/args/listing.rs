//! The options for printing a list

use clap::Args;

use crate::cli::output::Format;

/// The options for printing a list.
#[derive(Args, Clone, Copy, Debug)]
pub struct Listing {
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Print only the names or ids, one per line
    #[arg(short, long, conflicts_with = "format")]
    pub quiet: bool,
    /// Print whole ids, and do not cut columns to fit the screen
    #[arg(long)]
    pub no_trunc: bool,
}
