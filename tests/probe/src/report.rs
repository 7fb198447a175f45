//! What the process sees, as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::path::Path;

use serde_json::{Value, json};

/// Everything the probe knows about itself and its surroundings.
pub fn everything() -> Value {
    json!({
        "argv": std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "env": std::env::vars_os()
            .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
            .collect::<BTreeMap<_, _>>(),
        "cwd": std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_else(|e| format!("error: {e}")),
        "umask": status().get("Umask").cloned(),
        "pid": std::process::id(),
        "ppid": nix::unistd::getppid().as_raw(),
        "sid": nix::unistd::getsid(None).map(|p| p.as_raw()).ok(),
        "ids": ids(),
        "capabilities": pick(&["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]),
        "seccomp": status().get("Seccomp").cloned(),
        "no_new_privs": status().get("NoNewPrivs").cloned(),
        "oom_score_adj": text("/proc/self/oom_score_adj"),
        "limits": lines("/proc/self/limits"),
        "cgroup": lines("/proc/self/cgroup"),
        "mountinfo": lines("/proc/self/mountinfo"),
        "namespaces": links("/proc/self/ns"),
        "fds": fds(),
        "tty": tty(),
        "hostname": nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).ok(),
        "interfaces": interfaces(),
        "root": listing(Path::new("/")).unwrap_or_default(),
        "dev": listing(Path::new("/dev")).unwrap_or_default(),
    })
}

/// The process's user, group and supplementary groups, as numbers (real, effective, saved, file system).
pub fn ids() -> Value {
    let numbers = |key: &str| -> Vec<u32> {
        status().get(key).map(|v| v.split_whitespace().filter_map(|n| n.parse().ok()).collect()).unwrap_or_default()
    };
    json!({ "uid": numbers("Uid"), "gid": numbers("Gid"), "groups": numbers("Groups") })
}

/// The names in a directory, sorted.
pub fn listing(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(dir)?
        .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()?;
    names.sort();
    Ok(names)
}

fn status() -> BTreeMap<String, String> {
    lines("/proc/self/status")
        .iter()
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.to_owned(), v.trim().to_owned()))
        .collect()
}

fn pick(keys: &[&str]) -> Value {
    let status = status();
    keys.iter().map(|k| ((*k).to_owned(), json!(status.get(*k)))).collect::<serde_json::Map<_, _>>().into()
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim_end().to_owned())
}

fn lines(path: &str) -> Vec<String> {
    text(path).map(|t| t.lines().map(str::to_owned).collect()).unwrap_or_default()
}

fn links(dir: &str) -> BTreeMap<String, String> {
    listing(Path::new(dir))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|n| Some((n.clone(), fs::read_link(format!("{dir}/{n}")).ok()?.display().to_string())))
        .collect()
}

/// Open descriptors and what they are; the one that lists them is not among them.
fn fds() -> BTreeMap<String, String> {
    links("/proc/self/fd").into_iter().filter(|(_, to)| !to.ends_with("/fd")).collect()
}

fn tty() -> Value {
    json!({
        "stdin": std::io::stdin().is_terminal(),
        "stdout": std::io::stdout().is_terminal(),
        "stderr": std::io::stderr().is_terminal(),
        "name": nix::unistd::ttyname(std::io::stdin()).ok(),
        "controlling": fs::File::open("/dev/tty").is_ok(),
    })
}

fn interfaces() -> Vec<String> {
    lines("/proc/self/net/dev")
        .iter()
        .filter_map(|l| l.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}
