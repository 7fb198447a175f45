//! The options that lift restrictions of a pod or an app.

use stage1::confine::insecure::InsecureOptions;

/// The restrictions to lift, at the operator's own risk.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct InsecureArgs {
    /// Leave kernel paths visible and writable
    #[arg(long)]
    disable_paths: bool,
    /// Keep all capabilities
    #[arg(long)]
    disable_capabilities_restriction: bool,
    /// Run without a system call filter
    #[arg(long)]
    disable_seccomp: bool,
}

impl From<InsecureArgs> for InsecureOptions {
    fn from(args: InsecureArgs) -> Self {
        Self {
            disable_paths: args.disable_paths,
            disable_capabilities: args.disable_capabilities_restriction,
            disable_seccomp: args.disable_seccomp,
        }
    }
}
