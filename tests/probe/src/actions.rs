//! What the probe can be told to do.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};
use serde_json::json;

use crate::{attack, network, report, trial, writable};

/// An action ends well or with words for stderr.
pub type Outcome = Result<(), String>;

const HELP: &str = "\
actions, joined by `+`:
  report [PATH]       everything the process sees, as JSON, on stdout or in a new file
  exit N              end with status N
  exit-from PATH      end with the status that a file holds
  signal NAME         end by a signal (raised, not sent)
  dump-core           leave a core file at the end by a signal
  sleep SECONDS|inf
  stubborn            block SIGTERM, then sleep for ever
  orderly N           wait for SIGTERM, which may have come since the probe began, then exit N
  hijack PATH         until PATH.stop exists: open the program of every process that appears, try to write to it; the
                      lines of PATH say of whom, and how it went
  peek PATH MARKER    until PATH.stop exists: try to open MARKER, a file of the host's, through what every process that
                      appears has; the lines of PATH say what was seen
  release-agent PATH  write down how far one comes to a release_agent of the host's
  plant TARGET STOP   until STOP exists: put links to TARGET where masks and consoles come from; STOP.planted says so
  exchange A B STOP   until STOP exists: put A in the place of B, and B in that of A, without a pause
  told PATH           block SIGTERM, make a file, wait for SIGTERM, go on
  alloc BYTES         take and touch memory
  fill PATH BYTES     write zeroes to a file
  notify WORDS        tell the supervisor: sd_notify(3)
  serve FD once|on    answer connections to a socket that was handed over, with what was said of it
  may-signal PID      prints `ok` or the errno's name
  syscall NAME        attempt one system call: prints `ok` or the errno's name
  write PATH TEXT     create or replace a file
  append PATH TEXT    add a line to a file
  cat PATH | ls PATH | stat PATH | rm PATH | mkdir PATH
  mount PATH          mount a new tmpfs there
  chown PATH UID GID
  mknod c|bN:N PATH   make a device node: prints `ok` or the errno's name
  open r|w PATH       open only: prints `ok` or the errno's name
  writable FILE DIR…  write down, in a new file, what below these directories can be opened for writing
  wait PATH           until the path exists
  sized COLUMNS       until the terminal is so wide
  spawn WORD…         start a further probe in a process group of its own and go on
  fork WORD…          the same in this process group
  reap                wait until one of these has ended
  print TEXT | warn TEXT
  lines N TEXT        print TEXT with a number, N times
  take BYTES          read that much of stdin, and print it
  raw HEX             print these bytes
  long BYTES          print a line that is so long
  answer tcp|udp PORT WORDS
                      tell everybody who asks there
  ask tcp|udp HOST:PORT
  resolve NAME
  flood BYTES         write that much of a known sequence to stdout, and say on stderr how many milliseconds it took
  packets BYTES       write that much of the same sequence in packets of three bytes: O_DIRECT in pipe(2)
  loopback            connect to a listener of one's own on 127.0.0.1
  groups              same as report, the ids only
";

/// Does one action.
pub fn perform(words: &[&str]) -> Outcome {
    match words {
        [] | ["help"] => say(HELP.trim_end()),
        ["report"] => say(&pretty(&report::everything())),
        ["report", path] => publish(path, &pretty(&report::everything())),
        ["may-signal", pid] => {
            let pid = nix::unistd::Pid::from_raw(number(pid)? as i32);
            say(&trial::outcome(nix::sys::signal::kill(pid, None)))
        }
        ["exit", status] => std::process::exit(number(status)? as i32),
        ["exit-from", path] => {
            let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
            std::process::exit(number(text.trim())? as i32)
        }
        ["fill", path, bytes] => fill(path, number(bytes)?).map_err(|e| e.to_string()),
        ["notify", words] => {
            let to = std::env::var_os("NOTIFY_SOCKET").ok_or("no NOTIFY_SOCKET")?;
            let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(words.as_bytes(), to));
            sent.map(drop).map_err(|e| e.to_string())
        }
        ["syslog", count, words] => {
            let socket = UnixDatagram::unbound().map_err(|e| e.to_string())?;
            for n in 0..number(count)? {
                socket.send_to(format!("<14>{words} {n}").as_bytes(), "/dev/log").map_err(|e| e.to_string())?;
            }
            Ok(())
        }
        ["serve", fd, how] => serve(number(fd)? as i32, *how == "once").map_err(|e| e.to_string()),
        ["signal", name] => end_by(signal(name)?),
        ["dump-core"] => {
            use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
            setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).map_err(|e| e.to_string())
        }
        ["sleep", "inf"] => sleep_for_ever(),
        ["sleep", seconds] => {
            std::thread::sleep(Duration::from_secs_f64(seconds.parse().map_err(|e| format!("{e}"))?));
            Ok(())
        }
        ["stubborn"] => block(Signal::SIGTERM).and_then(|_| sleep_for_ever()),
        ["orderly", status] => {
            let status = number(status)? as i32;
            let set = block(Signal::SIGTERM)?;
            set.wait().map_err(|e| format!("sigwait: {e}"))?;
            std::process::exit(status)
        }
        ["hijack", path] => attack::hijack(path).map_err(|e| e.to_string()),
        ["peek", path, marker] => attack::peek(path, marker).map_err(|e| e.to_string()),
        ["release-agent", path] => publish(path, &attack::release_agent().map_err(|e| e.to_string())?.join("\n")),
        ["mount-cgroups", way] => say(&attack::mount_cgroups(way).join("\n")),
        ["plant", target, stop] => attack::plant(target, stop).map_err(|e| e.to_string()),
        ["exchange", a, b, stop] => attack::exchange(a, b, stop).map_err(|e| e.to_string()),
        ["told", path] => {
            let set = block(Signal::SIGTERM)?;
            publish(path, "")?;
            set.wait().map(drop).map_err(|e| format!("sigwait: {e}"))
        }
        ["alloc", bytes] => alloc(number(bytes)? as usize),
        ["syscall", name] => say(&trial::attempt(name)?),
        ["once", path, status] => match fs::File::create_new(path) {
            Ok(_) => std::process::exit(number(status)? as i32),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.to_string()),
        },
        ["write", path, text] => publish(path, text),
        ["append", path, text] => append(path, text),
        ["cat", path] => {
            let mut bytes = Vec::new();
            fs::File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)).map_err(|e| e.to_string())?;
            std::io::stdout().write_all(&bytes).map_err(|e| e.to_string())
        }
        ["ls", path] => say(&report::listing(Path::new(path)).map_err(|e| e.to_string())?.join("\n")),
        ["stat", path] => stat(path),
        ["rm", path] => fs::remove_file(path).map_err(|e| e.to_string()),
        ["chown", path, uid, gid] => {
            let (uid, gid) = (number(uid)? as u32, number(gid)? as u32);
            std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(|e| e.to_string())
        }
        ["mknod", device, path] => mknod(device, path),
        ["mount", path] => {
            nix::mount::mount(Some("none"), *path, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
                .map_err(|e| e.to_string())
        }
        ["mkdir", path] => fs::create_dir(path).map_err(|e| e.to_string()),
        ["open", how, path] => {
            let result = fs::OpenOptions::new().read(*how == "r").write(*how == "w").open(path);
            say(&trial::outcome(result.map(drop).map_err(|e| nix::Error::from_raw(e.raw_os_error().unwrap_or(0)))))
        }
        ["writable", to, dirs @ ..] => publish(to, &writable::below(dirs).join("\n")),
        ["wait", path] => {
            while !Path::new(path).exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        }
        ["sized", columns] => {
            let columns = number(columns)?;
            loop {
                let size = rustix::termios::tcgetwinsize(std::io::stdin()).map_err(|e| e.to_string())?;
                if u64::from(size.ws_col) == columns {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        ["spawn", rest @ ..] => spawn(rest, true),
        ["fork", rest @ ..] => spawn(rest, false),
        ["reap"] => nix::sys::wait::wait().map(drop).map_err(|e| format!("wait: {e}")),
        ["print", text] => say(text),
        ["warn", text] => {
            eprintln!("{text}");
            Ok(())
        }
        ["lines", count, text] => {
            let lines: String = (0..number(count)?).map(|n| format!("{text} {n}\n")).collect();
            std::io::stdout().write_all(lines.as_bytes()).map_err(|e| e.to_string())
        }
        ["take", bytes] => {
            let mut text = vec![0; number(bytes)? as usize];
            fs::File::open("/proc/self/fd/0").and_then(|mut f| f.read_exact(&mut text)).map_err(|e| e.to_string())?;
            say(&String::from_utf8_lossy(&text))
        }
        ["raw", hex] => raw(hex),
        ["long", bytes] => say(&"x".repeat(number(bytes)? as usize)),
        ["answer", protocol, port, words] => network::answer(protocol, port, words),
        ["ask", protocol, at] => network::ask(protocol, at),
        ["resolve", name] => network::resolve(name),
        ["flood", bytes] => flood(number(bytes)?).map_err(|e| e.to_string()),
        ["packets", bytes] => packets(number(bytes)?).map_err(|e| e.to_string()),
        ["loopback"] => loopback().map_err(|e| e.to_string()),
        ["groups"] => say(&pretty(&report::ids())),
        _ => Err("no such action, see `probe help`".into()),
    }
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|e| format!("{text}: {e}"))
}

fn signal(name: &str) -> Result<Signal, String> {
    name.parse().map_err(|_| format!("{name}: no such signal"))
}

/// Twice: the first SIGSEGV or SIGBUS only takes away the handler that Rust has for stack overflows.
fn end_by(signal: Signal) -> Outcome {
    raise(signal).and_then(|()| raise(signal)).map_err(|e| e.to_string())
}

/// Keeps a signal pending from now on; the set that has it alone, to wait for it.
pub fn block(signal: Signal) -> Result<SigSet, String> {
    let mut set = SigSet::empty();
    set.add(signal);
    set.thread_block().map_err(|e| format!("sigprocmask: {e}"))?;
    Ok(set)
}

fn sleep_for_ever() -> Outcome {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn say(text: &str) -> Outcome {
    writeln!(std::io::stdout(), "{text}").map_err(|e| format!("stdout: {e}"))
}

/// Writes beside the target and renames, so that a waiting test never reads half a file.
fn publish(path: &str, text: &str) -> Outcome {
    let fresh = format!("{path}.part");
    fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, path)).map_err(|e| e.to_string())
}

fn append(path: &str, text: &str) -> Outcome {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut f| f.write_all(format!("{text}\n").as_bytes()))
        .map_err(|e| e.to_string())
}

/// Touches every page, so that the memory is really charged, and keeps it until the process ends.
fn alloc(bytes: usize) -> Outcome {
    let mut block = vec![0u8; bytes];
    for page in block.chunks_mut(4096) {
        page[0] = 1;
    }
    std::mem::forget(std::hint::black_box(block));
    say("allocated")
}

fn fill(path: &str, bytes: u64) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    std::io::copy(&mut std::io::repeat(0).take(bytes), &mut file).map(drop)
}

fn serve(listener: i32, once: bool) -> nix::Result<()> {
    use nix::sys::socket::{MsgFlags, Shutdown, accept, send, shutdown};
    let said = |name: &str| std::env::var(name).unwrap_or_default();
    loop {
        let peer = accept(listener)?;
        let mine = said("LISTEN_PID") == std::process::id().to_string();
        let (fds, names) = (said("LISTEN_FDS"), said("LISTEN_FDNAMES"));
        let answer = format!("LISTEN_FDS={fds} LISTEN_FDNAMES={names} mine={mine}\n");
        send(peer, answer.as_bytes(), MsgFlags::empty())?;
        shutdown(peer, Shutdown::Both)?;
        nix::unistd::close(peer)?;
        if once {
            return Ok(());
        }
    }
}

fn raw(hex: &str) -> Outcome {
    let digits: Vec<u8> = hex.chars().filter_map(|c| Some(c.to_digit(16)? as u8)).collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let mut stdout = std::io::stdout();
    stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(|e| e.to_string())
}

/// Makes a device node: `c5:2` or `b8:0`. Prints `ok` or the errno's name.
fn mknod(device: &str, path: &str) -> Outcome {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let kind = if device.starts_with('b') { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let (major, minor) = device[1..].split_once(':').ok_or("write a device as c5:2 or b8:0")?;
    let numbers = makedev(number(major)?, number(minor)?);
    say(&trial::outcome(mknod(path, kind, Mode::from_bits_truncate(0o600), numbers)))
}

fn stat(path: &str) -> Outcome {
    let m = fs::symlink_metadata(path).map_err(|e| e.to_string())?;
    let t = m.file_type();
    let kind = match () {
        () if t.is_dir() => "dir",
        () if t.is_file() => "file",
        () if t.is_symlink() => "link",
        () if t.is_char_device() => "char",
        () if t.is_block_device() => "block",
        () if t.is_fifo() => "fifo",
        () => "socket",
    };
    say(&pretty(&json!({
        "kind": kind,
        "mode": format!("{:04o}", m.permissions().mode() & 0o7777),
        "uid": m.uid(),
        "gid": m.gid(),
        "size": m.len(),
        "device": format!("{}:{}", nix::sys::stat::major(m.rdev()), nix::sys::stat::minor(m.rdev())),
        "link": fs::read_link(path).ok(),
    })))
}

/// The descendant is on its own: another session, no pipes shared, never waited for.
fn spawn(words: &[&str], own_group: bool) -> Outcome {
    let mut command = Command::new("/proc/self/exe");
    command.args(words.iter().map(|w| if *w == "," { "+" } else { w })).stdin(Stdio::null());
    if own_group {
        command.process_group(0);
    }
    command.spawn().map(drop).map_err(|e| e.to_string())
}

/// 64-bit numbers, little-endian, from 0 to 65536 and again: what is lost, doubled or out of order shows, as no
/// buffer has a size that goes with that.
fn flood(bytes: u64) -> std::io::Result<()> {
    const BLOCK: u64 = 1 << 16;
    let period: Vec<u8> = (0..=BLOCK).flat_map(u64::to_le_bytes).collect();
    let twice = period.repeat(2);
    let began = std::time::Instant::now();
    let mut out = std::io::stdout().lock();
    let mut done = 0;
    while done < bytes {
        let start = (done % period.len() as u64) as usize;
        let count = BLOCK.min(bytes - done) as usize;
        out.write_all(&twice[start..start + count])?;
        done += count as u64;
    }
    out.flush()?;
    eprintln!("{}", began.elapsed().as_millis());
    Ok(())
}

fn packets(bytes: u64) -> std::io::Result<()> {
    let mut out = fs::File::from(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()?);
    nix::fcntl::fcntl(&out, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_DIRECT))?;
    let all: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
    for packet in all[..bytes as usize].chunks(3) {
        out.write_all(packet)?;
    }
    Ok(())
}

fn loopback() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.write_all(b"ping")?;
    let mut heard = [0; 4];
    listener.accept()?.0.read_exact(&mut heard)?;
    println!("{}", String::from_utf8_lossy(&heard));
    Ok(())
}
