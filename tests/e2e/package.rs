//! The Debian package: installed, used, removed and purged in a clean Debian.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::harness::Context;
use tests::process::run;
use tests::{Verdict, image, source};

tests::cases! {
    native it_is_installed_used_and_removed 600;
}

/// The script that runs in the clean Debian, whose root is then /.
const INSIDE: &str = r#"
set -eu
dpkg -i /podctl.deb
test "$(podctl --version)" = "podctl $1"
test "$(stat -c %a /var/lib/podctl 2>/dev/null || echo none)" != 755
for page in podctl podctl-run podctl-image-pull; do test -s "/usr/share/man/man1/$page.1.gz"; done
test -s /usr/share/bash-completion/completions/podctl
test -L /etc/systemd/system/timers.target.wants/podctl-gc.timer
systemd-analyze verify --man=no /lib/systemd/system/podctl-gc.timer /lib/systemd/system/podctl-cri.service
test -s /usr/share/doc/podctl/examples/crictl.yaml -a ! -e /etc/systemd/system/multi-user.target.wants/podctl-cri.service
podctl doctor >/doctor || test $? = 1

podctl image import /root/probe --name probe --exec /probe
test "$(podctl run --rm --net=none probe -- print hello)" = hello
pod=$(podctl sandbox --net=none)
if dpkg -r podctl 2>/refusal; then exit 1; fi
grep 'pods run' /refusal
podctl stop "$pod"
podctl rm "$pod"

dpkg -r podctl
test ! -e /usr/bin/podctl -a ! -e /usr/share/man/man1/podctl.1.gz
test ! -e /etc/systemd/system/timers.target.wants/podctl-gc.timer
dpkg -P podctl
test -d /var/lib/podctl/images
! dpkg -s podctl 2>/dev/null
"#;

fn it_is_installed_used_and_removed(t: &Context) -> Verdict {
    for script in ["scripts/package", "scripts/clean-root"] {
        run(Command::new(source().join(script)).current_dir(source())).ok();
    }
    let version = env!("CARGO_PKG_VERSION");
    let package = fs::read_dir(tests::dist())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .ok_or("no package")?;
    let root = t.dir.join("root");
    fs::create_dir(&root)?;
    run(Command::new("tar").args(["-xf"]).arg(source().join("target/clean-root.tar")).arg("-C").arg(&root)).ok();
    fs::copy(&package, root.join("podctl.deb"))?;
    image::rootfs(&root.join("root/probe"));
    // a mount namespace with this root: its mounts end with its last process
    let script = "mount --bind \"$0\" \"$0\" && cd \"$0\" && mount -t proc none proc && mount --rbind /sys sys && \
                  mount --rbind /dev dev && mkdir -p old && pivot_root . old && umount -l old && \
                  exec /bin/bash -c \"$1\" inside \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "bash", "-c", script]);
    let out = run(command.arg(&root).args([INSIDE, version]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"));
    assert_eq!(out.code, Some(0), "{out}");
    assert!(Path::new(&root.join("doctor")).exists());
    Ok(())
}
