//! The systemd.service(5) unit that keeps a pod running on the host.

use std::path::Path;

use stage1::error::{Error, Result};

/// The name of a pod's unit.
pub fn name(pod: &str) -> String {
    format!("podctl-{pod}.service")
}

/// The text of a pod's unit.
///
/// # Errors
/// A path is not UTF-8 or has a control character.
pub fn text(podctl: &Path, data: &Path, pod: &str) -> Result<String> {
    let (podctl, data) = (quoted(podctl)?, quoted(data)?);
    Ok(format!(
        "# Made by podctl\n\
         [Unit]\n\
         Description=Pod {pod}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={podctl} --dir={data} keep {pod}\n\
         KillMode=mixed\n\
         Delegate=yes\n\
         Restart=on-failure\n\
         RestartSec=1s\n\
         TimeoutStartSec=infinity\n\
         TimeoutStopSec=infinity\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

/// A path as one word of a command line in a unit, quoted if needed.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| Error::new(format!("{path:?} can't be written in a unit")))?;
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    Ok(if is_plain { escaped } else { format!("\"{escaped}\"") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_single_words() {
        let quoted = |path: &str| quoted(Path::new(path)).unwrap();
        assert_eq!(quoted("/usr/bin/podctl"), "/usr/bin/podctl");
        assert_eq!(quoted("/a b/%i/$x\"y"), "\"/a b/%%i/$$x\\\"y\"");
        assert!(super::quoted(Path::new("/a\nExecStart=x")).is_err());
        let unit = text(Path::new("/usr/bin/podctl"), Path::new("/var/lib/podctl"), "shop").unwrap();
        assert!(unit.contains("\nType=notify\n"));
        assert!(unit.contains("\nExecStart=/usr/bin/podctl --dir=/var/lib/podctl keep shop\n"));
    }
}
