//! The inotify instances of the machine, see inotify(7). A pod's systemd holds three, and all pods take them from the
//! host's root user, whose limit of 128 is reached with 42 pods.

use std::fs;

use stage1::error::{Context, Error, Result};

const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
/// How many a pod's systemd holds.
const PER_POD: u64 = 3;

fn limit() -> Result<u64> {
    let text = fs::read_to_string(LIMIT).context(|| format!("read {LIMIT}"))?;
    text.trim().parse().map_err(|_| Error::new(format!("{LIMIT} holds {text:?}, which is not a number")))
}

/// How many pods can run at once, if nothing else on the machine takes inotify instances.
///
/// # Errors
/// The limit can't be read.
pub(crate) fn most_pods() -> Result<u64> {
    Ok(limit()? / PER_POD)
}

/// The words for a pod whose systemd ended with `message` because inotify instances ran out; `None` if it ended for
/// another reason.
pub(crate) fn shortage(message: &str) -> Option<String> {
    // systemd's words for EMFILE, which is what inotify_init1(2) fails with
    let short = message.contains("Failed to allocate manager object: Too many open files");
    short.then(|| {
        let most = limit().map_or_else(|_| String::new(), |number| format!(" ({number})"));
        format!("the inotify instances{most} are used up: sysctl -w fs.inotify.max_user_instances=8192")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_from_other_ends() {
        let said = "Failed to allocate manager object: Too many open files | Exiting PID 1...";
        assert!(shortage(said).unwrap().contains("sysctl -w fs.inotify.max_user_instances=8192"));
        assert_eq!(shortage("Failed to allocate manager object: No space left on device"), None);
        assert!(most_pods().unwrap() > 0);
    }
}
