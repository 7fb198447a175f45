//! The mounts in a process's mount namespace: proc_pid_mountinfo(5).

use serde::Serialize;
use stage1::error::{Context, Result};

/// A mount.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    target: String,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    /// The directory of the file system that is mounted; `None` for its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    options: String,
}

/// The mounts that the process with this PID (host view) sees, in the order of mountinfo.
///
/// # Errors
/// Its mountinfo can't be read: it has ended, for example.
pub fn of_process(pid: i32) -> Result<Vec<Mounted>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&path).context(|| format!("read {path}"))?;
    Ok(text.lines().filter_map(line).collect())
}

fn line(line: &str) -> Option<Mounted> {
    let (mount, file_system) = line.split_once(" - ")?;
    let fields: Vec<&str> = mount.split(' ').collect();
    let [_, _, _, root, target, options, ..] = fields.as_slice() else { return None };
    let mut words = file_system.split(' ');
    Some(Mounted {
        target: (*target).to_owned(),
        kind: words.next()?.to_owned(),
        source: words.next()?.to_owned(),
        root: Some((*root).to_owned()).filter(|root| root != "/"),
        options: (*options).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        let expected = Mounted {
            target: "/mnt2".into(),
            kind: "ext3".into(),
            source: "/dev/root".into(),
            root: Some("/mnt1".into()),
            options: "rw,noatime".into(),
        };
        assert_eq!(line(text), Some(expected));
        assert_eq!(line("36 35"), None);
        assert!(of_process(std::process::id().cast_signed()).unwrap().iter().any(|mounted| mounted.target == "/"));
    }
}
