//! How a list is printed, on the command line

use clap::Args;

use crate::cli::output::Format;

/// How a list is printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Listing {
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Only what it lists is called, one on a line
    #[arg(short, long, conflicts_with = "format")]
    pub quiet: bool,
    /// Ids as a whole, and nothing cut to fit the screen
    #[arg(long)]
    pub no_trunc: bool,
}
