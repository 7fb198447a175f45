//! Current userlands under the default system call filter: Debian's own programs as images.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::Verdict;
use tests::harness::Context;
use tests::process::run;

tests::cases! {
    native busybox;
    native bash;
    native python 120;
    native musl;
    native musl_as_a_library;
}

/// Typical work of a shell: processes, pipes, redirections, here-documents, signals, job control.
const SHELL: &str = r#"set -e
for i in 1 2 3; do (echo $i >/tmp/$i) & done; wait
test "$(cat /tmp/1 /tmp/2 /tmp/3 | tr '\n' ' ')" = "1 2 3 "
sleep 100 & kill -TERM $!; wait $! && exit 1
cat >/tmp/doc <<X
here
X
read word </tmp/doc; test "$word" = here
mkfifo /tmp/fifo; (echo through >/tmp/fifo) & read word </tmp/fifo; test "$word" = through
trap 'echo trapped >/tmp/trap' USR1; kill -USR1 $$; test "$(cat /tmp/trap)" = trapped
rm /tmp/doc /tmp/fifo; cd /tmp; umask 077; test -d /proc/self; echo well >/out/$1"#;

/// Typical work of services: threads, processes, sockets, polling, files, memory, time.
const PYTHON: &str = r#"
import asyncio, concurrent.futures, mmap, multiprocessing, os, select, signal, socket, subprocess, sys, tempfile, threading, time
assert subprocess.run([sys.executable, '-c', 'print(6*7)'], capture_output=True).stdout == b'42\n'
with concurrent.futures.ThreadPoolExecutor(8) as pool: assert sum(pool.map(lambda n: n * n, range(100))) == 328350
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, 2]) == [1, 2]
server = socket.create_server(('127.0.0.1', 0))
def serve():
    peer, _ = server.accept(); peer.sendall(b'hello'); peer.close()
threading.Thread(target=serve).start()
assert socket.create_connection(server.getsockname()).recv(5) == b'hello'
a, b = socket.socketpair(); poll = select.epoll(); poll.register(b, select.EPOLLIN); a.send(b'x'); assert poll.poll(1)
async def tick(): await asyncio.sleep(0.01); return await asyncio.to_thread(lambda: 5)
assert asyncio.run(tick()) == 5
with tempfile.TemporaryFile() as f:
    f.write(b'y' * 8192); f.flush(); assert mmap.mmap(f.fileno(), 8192)[0] == ord('y')
pid = os.fork()
if pid == 0: os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
os.sched_yield(); os.getrandom(8); os.sendfile; time.clock_gettime(time.CLOCK_MONOTONIC)
try: os.mknod('/tmp/disk', 0o60600, os.makedev(7, 0)); open('/tmp/disk')
except OSError: pass
else: raise SystemExit('a device that is none of its business could be opened')
open('/out/python', 'w').write('well\n')
"#;

/// A root file system with these programs of the machine and their libraries.
fn root(t: &Context, name: &str, programs: &[&str]) -> std::path::PathBuf {
    let root = t.dir.join(name);
    for dir in ["etc", "tmp", "out", "proc", "bin", "usr/bin", "lib64"] {
        fs::create_dir_all(root.join(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap_or_else(|e| panic!("passwd: {e}"));
    for program in programs {
        copy(&root, Path::new(program));
        let linked = Command::new("ldd").arg(program).output().unwrap_or_else(|e| panic!("ldd: {e}")).stdout;
        for word in String::from_utf8_lossy(&linked).split_whitespace().filter(|word| word.starts_with('/')) {
            copy(&root, Path::new(word));
        }
    }
    root
}

fn copy(root: &Path, file: &Path) {
    let to = root.join(file.strip_prefix("/").unwrap_or(file));
    fs::create_dir_all(to.parent().unwrap_or(root)).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    fs::copy(file, &to).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

/// Runs one app of an image to its end; its report is in the volume.
fn well(t: &Context, root: &Path, name: &str, words: &[&str]) -> Verdict {
    let podctl = t.podctl();
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", name]);
    let pod = podctl.pod(&["--net=none"]);
    let mut args = vec!["app", "add", &pod.uuid, name, "--name", name, "--mount=volume=out,target=/out", "--exec"];
    args.extend_from_slice(&words[..1]);
    args.push("--");
    args.extend_from_slice(&words[1..]);
    podctl.ok(&args);
    pod.app("start", name, &[]).ok();
    assert_eq!(pod.exit_code(name), 0, "{name} does not do well under the default filter");
    assert_eq!(fs::read_to_string(podctl.out().join(name))?, "well\n");
    pod.end();
    Ok(())
}

fn busybox(t: &Context) -> Verdict {
    let root = root(t, "busybox", &["/bin/busybox"]);
    for applet in ["sh", "cat", "tr", "sleep", "mkfifo", "rm", "test"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    well(t, &root, "busybox", &["/bin/sh", "-c", SHELL, "sh", "busybox"])
}

fn bash(t: &Context) -> Verdict {
    let tools = ["cat", "tr", "sleep", "mkfifo", "rm"].map(|tool| format!("/bin/{tool}"));
    let mut programs: Vec<&str> = tools.iter().map(String::as_str).collect();
    programs.push("/bin/bash");
    let root = root(t, "bash", &programs);
    well(t, &root, "bash", &["/bin/bash", "-c", SHELL, "bash", "bash"])
}

fn python(t: &Context) -> Verdict {
    let root = root(t, "python", &["/usr/bin/python3"]);
    fs::create_dir_all(root.join("usr/lib"))?;
    let library =
        run(Command::new("/usr/bin/python3").args(["-c", "import os; print(os.path.dirname(os.__file__))"])).ok();
    run(Command::new("cp").args(["-a", library.trim()]).arg(root.join("usr/lib"))).ok();
    for module in fs::read_dir(Path::new(library.trim()).join("lib-dynload"))? {
        let linked = Command::new("ldd").arg(module?.path()).output()?.stdout;
        for word in String::from_utf8_lossy(&linked).split_whitespace().filter(|word| word.starts_with('/')) {
            copy(&root, Path::new(word));
        }
    }
    well(t, &root, "python", &["/usr/bin/python3", "-c", PYTHON])
}

/// The probe is a static program of musl's.
fn musl(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none"]);
    let report = pod.report("musl", &[]);
    assert_eq!(report["seccomp"], "2");
    pod.end();
    Ok(())
}

/// A program that is linked with Debian's musl, with its loader.
fn musl_as_a_library(t: &Context) -> Verdict {
    let root = t.dir.join("musl");
    for dir in ["etc", "tmp", "out", "proc", "lib"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/program\n")?;
    let source = tests::source().join("tests/e2e/musl.c");
    run(Command::new("musl-gcc").args(["-Wall", "-Werror", "-pthread", "-o"]).arg(root.join("program")).arg(source))
        .ok();
    let linked = run(Command::new("readelf").arg("-l").arg(root.join("program"))).ok();
    assert!(linked.contains("/lib/ld-musl-x86_64.so.1"), "{linked}");
    fs::copy("/lib/ld-musl-x86_64.so.1", root.join("lib/ld-musl-x86_64.so.1"))?;
    well(t, &root, "musl", &["/program", "/out/musl"])
}
