//! A terminal as a user has it: the test types on it, and reads what is shown.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

use crate::process::run;

/// Timeout for a text to be shown, and for a program to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal.
#[derive(Debug)]
pub struct Screen {
    keyboard: nix::pty::PtyMaster,
    /// Its path.
    pub path: String,
    shown: Vec<u8>,
    looked_at: usize,
}

impl Screen {
    /// A new terminal of 24 lines and 80 columns.
    #[track_caller]
    pub fn new() -> Self {
        let keyboard = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("posix_openpt");
        grantpt(&keyboard).expect("grantpt");
        unlockpt(&keyboard).expect("unlockpt");
        fcntl(&keyboard, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).expect("fcntl");
        let path = ptsname_r(&keyboard).expect("ptsname");
        let screen = Self { keyboard, path, shown: Vec::new(), looked_at: 0 };
        screen.resize(24, 80);
        screen
    }

    /// Opens its slave, as a program does.
    #[track_caller]
    pub fn open(&self) -> File {
        OpenOptions::new().read(true).write(true).open(&self.path).unwrap_or_else(|e| panic!("{}: {e}", self.path))
    }

    /// Starts a command in a new session with this terminal as its controlling terminal, and as each standard
    /// descriptor that is `None` in `others`.
    #[track_caller]
    pub fn start(&self, command: &Command, others: [Option<Stdio>; 3]) -> Child {
        let mut session = Command::new("sh");
        // The first terminal that a session leader opens becomes its controlling terminal.
        session.args([
            "-c",
            "terminal=$1; shift; exec setsid sh -c ': <>\"$0\"; exec \"$@\"' \"$terminal\" \"$@\"",
            "sh",
        ]);
        session.arg(&self.path).arg(command.get_program()).args(command.get_args());
        if let Some(dir) = command.get_current_dir() {
            session.current_dir(dir);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let [stdin, stdout, stderr] = others.map(|other| other.unwrap_or_else(|| Stdio::from(self.open())));
        session.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    /// Types a text, as fast as the terminal takes it.
    #[track_caller]
    pub fn types(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.keyboard.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => self.look(),
                Err(e) => panic!("typing {text:?}: {e}; shown: {}", self.text()),
            }
        }
    }

    /// Waits until `text` is shown, after the text of the last call.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.look();
            let new = &self.shown[self.looked_at..];
            if let Some(at) = new.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.looked_at += at + text.len();
                return;
            }
            assert!(Instant::now() < end, "waited in vain for {text:?} in {:?}", String::from_utf8_lossy(new));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a program has ended, while reading what is shown; returns its exit status, or 128 + signal.
    #[track_caller]
    pub fn end_of(&mut self, child: &mut Child) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let end = Instant::now() + PATIENCE;
        loop {
            let ended = child.try_wait().expect("wait");
            self.look();
            if let Some(status) = ended {
                return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            assert!(Instant::now() < end, "waited in vain for the end; shown: {}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that was shown so far.
    pub fn text(&mut self) -> String {
        self.look();
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    fn look(&mut self) {
        let mut chunk = [0; 65536];
        loop {
            match self.keyboard.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => self.shown.extend(&chunk[..count]),
                // There is no output, or no program has the terminal open.
                Err(_) => return,
            }
        }
    }

    /// Changes its size.
    #[track_caller]
    pub fn resize(&self, lines: u32, columns: u32) {
        self.stty(&["rows", &lines.to_string(), "cols", &columns.to_string()]);
    }

    /// Checks, at a shell with this prompt, that a program of the shell gets a SIGWINCH and the new size, and that
    /// Ctrl-C ends it.
    #[track_caller]
    pub fn tells_its_shell_of_a_resize(&mut self, prompt: &str) {
        self.types("sh -c 'trap \"echo resized; stty size\" WINCH; echo rea\"\"dy; while :; do sleep 0.1; done'\n");
        self.shows("ready\r\n");
        self.resize(41, 123);
        self.shows("resized\r\n41 123\r\n");
        self.types("\x03");
        self.shows(prompt);
    }

    /// Its settings, as text that can be compared.
    #[track_caller]
    pub fn settings(&self) -> String {
        self.stty(&["-g"])
    }

    /// Whether it is in raw mode (not canonical).
    #[track_caller]
    pub fn is_raw(&self) -> bool {
        self.stty(&["-a"]).contains("-icanon")
    }

    #[track_caller]
    fn stty(&self, words: &[&str]) -> String {
        run(Command::new("stty").arg("-F").arg(&self.path).args(words)).ok()
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}
