//! Running a program whose standard streams are connected to a client

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::termios::{LocalFlags, tcgetattr};
use rustix::termios::Winsize;
use stage1::error::{Context, Error, Result};
use stage1::sys::pty;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::container::command_end::{AFTER, kill_command};

use super::session::{Ended, Inner, Size, Wanted};

/// The size of a read, in bytes.
const PIECE: usize = 16 << 10;
/// How long to wait for output after the command has ended: its children may hold the output open.
const DRAIN: Duration = Duration::from_secs(2);
/// Timeout for the program to set its terminal to raw mode.
const READY: Duration = Duration::from_secs(10);
/// How often the terminal's mode is checked.
const LOOK: Duration = Duration::from_millis(5);

/// Runs a program to its end; kills it if the client disconnects.
///
/// With `wanted.tty` the program has a terminal, which it must set to raw mode if `wanted.stdin` is set, too.
pub async fn run(command: Command, wanted: Wanted, client: Inner) -> Ended {
    let ended = if wanted.tty && wanted.stdin {
        with_terminal(command, client).await
    } else {
        with_pipes(command, wanted, client).await
    };
    match ended {
        Ok(status) => {
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            Ended::Code(status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()))
        }
        Err(error) => Ended::Failed(error.one_line()),
    }
}

fn spawn(command: Command) -> Result<Child> {
    let shown = format!("execute {:?}", command.get_program());
    tokio::process::Command::from(command).kill_on_drop(true).spawn().context(|| shown)
}

async fn with_pipes(mut command: Command, wanted: Wanted, client: Inner) -> Result<ExitStatus> {
    let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
    command.stdin(pipe(wanted.stdin)).stdout(pipe(wanted.stdout)).stderr(pipe(wanted.stderr));
    let mut child = spawn(command)?;
    let Inner { stdin, gone, outputs: [stdout, stderr], size: _size } = client;
    let input = child.stdin.take().map(|to| tokio::spawn(write_all(stdin, to)));
    let (ended, end) = watch::channel(false);
    let mut copying = JoinSet::new();
    if let Some(from) = child.stdout.take() {
        copying.spawn(copy(from, stdout, end.clone()));
    }
    if let Some(from) = child.stderr.take() {
        copying.spawn(copy(from, stderr, end));
    }
    let status = wait(&mut child, gone).await;
    if let Some(input) = input {
        input.abort();
    }
    ended.send_replace(true);
    copying.join_all().await;
    status
}

async fn with_terminal(mut command: Command, client: Inner) -> Result<ExitStatus> {
    let (master, slave) = pty::open_pair()?;
    let stdio = || Ok::<_, Error>(Stdio::from(slave.try_clone().context(|| "dup(terminal)")?));
    command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?);
    let Inner { stdin, size, gone, outputs: [stdout, _] } = client;
    set_size(&master, *size.borrow())?;
    let mut child = spawn(command)?;
    // only the program has the other side: output ends with it
    drop(slave);
    let master = Arc::new(master);
    let (ended, end) = oneshot::channel();
    let (reading, typing) = (Arc::clone(&master), Arc::clone(&master));
    // tokio can't wait for terminals
    let name = |what: &str| std::thread::Builder::new().name(what.to_owned());
    name("shown")
        .spawn(move || {
            read_terminal(&reading, &stdout);
            ended.send(())
        })
        .context(|| "start a thread")?;
    name("typed").spawn(move || type_in(&typing, stdin)).context(|| "start a thread")?;
    let resizing = tokio::spawn(resize(master, size, child.id()));
    let status = wait(&mut child, gone).await;
    resizing.abort();
    let _ = end.await;
    status
}

/// Waits for the program's end; kills the program if the client disconnects first.
async fn wait(child: &mut Child, gone: oneshot::Receiver<()>) -> Result<ExitStatus> {
    let status = tokio::select! {
        status = child.wait() => Some(status),
        _ = gone => None,
    };
    match status {
        Some(status) => status.context(|| "wait for the program"),
        None => {
            let killed = child.id().map(kill_command).transpose()?.unwrap_or_default();
            if !killed || tokio::time::timeout(AFTER, child.wait()).await.is_err() {
                child.kill().await.context(|| "kill the program")?;
            }
            Err(Error::new("the client has gone"))
        }
    }
}

/// Writes the client's input to the program; drops the rest after the program has closed its input.
async fn write_all(mut from: mpsc::Receiver<Vec<u8>>, mut to: ChildStdin) {
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    drop(to);
    while from.recv().await.is_some() {}
}

/// Sends the program's output to the client until it ends; drops the rest after the client has gone.
async fn copy(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Vec<u8>>, mut ended: watch::Receiver<bool>) {
    let mut piece = vec![0; PIECE];
    loop {
        let is_over = *ended.borrow_and_update();
        let read = tokio::select! {
            read = from.read(&mut piece) => read.unwrap_or(0),
            () = tokio::time::sleep(DRAIN), if is_over => {
                log::debug!("something still holds the output of a command that has ended");
                0
            }
            _ = ended.changed(), if !is_over => continue,
        };
        if read == 0 {
            return;
        }
        let _ = to.send(piece[..read].to_vec()).await;
    }
}

/// Sends the terminal's output to the client until it ends.
fn read_terminal(master: &OwnedFd, to: &mpsc::Sender<Vec<u8>>) {
    let mut piece = vec![0; PIECE];
    // a terminal ends with EIO
    while let Ok(read @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(master, &mut piece)) {
        let _ = to.blocking_send(piece[..read].to_vec());
    }
}

/// Writes the client's input to the terminal, once it is in raw mode: before, the terminal would echo the input a
/// second time. Returns when the client or the program has gone.
fn type_in(master: &OwnedFd, mut from: mpsc::Receiver<Vec<u8>>) {
    // after the timeout, write to the terminal in whatever mode it is
    let end = Instant::now() + READY;
    while tcgetattr(master).is_ok_and(|modes| modes.local_flags.contains(LocalFlags::ICANON)) && Instant::now() < end {
        std::thread::sleep(LOOK);
    }
    while let Some(bytes) = from.blocking_recv() {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Ok(written) = rustix::io::retry_on_intr(|| rustix::io::write(master, rest)) else { return };
            rest = &rest[written..];
        }
    }
}

/// Sets the terminal to the size of the client's whenever that changes, and sends the program a SIGWINCH: the kernel
/// does not, as the terminal is not the controlling one of the program's session.
async fn resize(master: Arc<OwnedFd>, mut size: watch::Receiver<Option<Size>>, child: Option<u32>) {
    let child = child.and_then(|pid| i32::try_from(pid).ok()).map(nix::unistd::Pid::from_raw);
    loop {
        let wanted = *size.borrow_and_update();
        if set_size(&*master, wanted).is_ok()
            && let Some(child) = child
            && wanted.is_some()
        {
            // the program is reaped only after this task has ended: its PID can't have been reused
            let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGWINCH);
        }
        if size.changed().await.is_err() {
            return;
        }
    }
}

fn set_size(terminal: impl AsFd, size: Option<Size>) -> Result<()> {
    let Some(Size { width, height }) = size else { return Ok(()) };
    let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).context(|| "ioctl(TIOCSWINSZ)")
}

#[cfg(test)]
mod tests {
    use super::super::session::{Outer, ends};
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        command
    }

    /// Runs a shell script with this input; its end, its output and its errors.
    fn play(text: &str, wanted: Wanted, input: &[&str]) -> (Ended, String, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        runtime.block_on(async {
            let (inner, Outer { stdin, size, here, outputs: [mut out, mut err] }) = ends();
            size.send(Some(Size { width: 101, height: 33 })).unwrap();
            let running = tokio::spawn(run(shell(text), wanted, inner));
            let stdin = stdin.unwrap();
            for piece in input {
                stdin.send(piece.as_bytes().to_vec()).await.unwrap();
            }
            // a terminal's input ends only when the client disconnects
            let held = wanted.tty.then_some(stdin);
            let (mut said, mut complained) = (Vec::new(), Vec::new());
            let ended = tokio::join!(
                async {
                    while let Some(bytes) = out.recv().await {
                        said.extend(bytes)
                    }
                },
                async {
                    while let Some(bytes) = err.recv().await {
                        complained.extend(bytes)
                    }
                },
                running,
            );
            drop((held, here));
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (ended.2.unwrap(), text(said), text(complained))
        })
    }

    const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };

    #[test]
    fn streams_are_copied_to_their_ends() {
        let (ended, out, err) = play("cat; echo err >&2; exit 5", ALL, &["one ", "two"]);
        assert_eq!((ended, &*out, &*err), (Ended::Code(5), "one two", "err\n"));
        let (ended, out, _) = play("kill -9 $$", ALL, &[]);
        assert_eq!((ended, &*out), (Ended::Code(137), ""));
        let (ended, out, _) = play("head -c 1 >/dev/null; head -c 3000000 /dev/zero", ALL, &["xyz"]);
        assert_eq!((ended, out.len()), (Ended::Code(0), 3_000_000));
    }

    #[test]
    fn a_terminal_has_the_clients_size() {
        let wanted = Wanted { tty: true, stderr: false, ..ALL };
        let (ended, out, _) = play("stty raw -echo; stty size; head -c 3; exit 4", wanted, &["a\u{4}c"]);
        assert_eq!((ended, &*out), (Ended::Code(4), "33 101\na\u{4}c"));
    }

    #[test]
    fn with_its_client_goes_the_program() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        runtime.block_on(async {
            let (inner, outer) = ends();
            let Outer { stdin, size, here, mut outputs } = outer;
            let running = tokio::spawn(run(shell("echo $$; exec sleep 1000"), ALL, inner));
            let pid = String::from_utf8(outputs[0].recv().await.unwrap()).unwrap();
            drop(here);
            assert_eq!(running.await.unwrap(), Ended::Failed("the client has gone".into()));
            assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
            drop((stdin, size));
        });
    }
}
