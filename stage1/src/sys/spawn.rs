//! Executing a program in a child, from a process that may have several threads.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::signal;
use crate::error::{Context, Result};

/// What a child is given beyond what [`Command`] can say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heritage<'a> {
    /// A descriptor that the child inherits under the same number. In this process it stays close-on-exec, so children
    /// that other threads start meanwhile do not get it.
    pub descriptor: Option<BorrowedFd<'a>>,
    /// Whether the child leads a new session: setsid(2).
    pub session: bool,
    /// Whether the child's signals have their default dispositions.
    pub signals: bool,
}

/// Starts a program in a child. Unlike [`super::process::fork`] it may be called with several threads.
///
/// # Errors
/// The fork, a call that `heritage` needs, or the exec fails.
pub fn spawn(mut command: Command, heritage: Heritage<'_>) -> Result<Child> {
    let descriptor = heritage.descriptor.map(|fd| fd.as_raw_fd());
    let inherit = move || -> io::Result<()> {
        if let Some(number) = descriptor {
            // SAFETY: the caller lends the descriptor until this function returns, which is after the child has
            // executed its program; the child has it under the same number.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        if heritage.session {
            rustix::process::setsid()?;
        }
        if heritage.signals { signal::all_default() } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure only makes system calls: it takes no lock and allocates no memory, so
    // the state in which other threads left those does not matter.
    unsafe { command.pre_exec(inherit) };
    command.spawn().context(|| format!("execute {:?}", command.get_program()))
}

/// A program for [`start`].
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Path of its file, relative to `directory` or absolute.
    pub path: &'a CString,
    /// Its arguments, the first of which is its name.
    pub arguments: &'a [CString],
    /// Its environment, `NAME=value` each.
    pub environment: &'a [CString],
    /// Its current directory.
    pub directory: &'a CString,
    /// Its standard input, output and error.
    pub standard: [BorrowedFd<'a>; 3],
    /// As [`Heritage::descriptor`].
    pub descriptor: Option<BorrowedFd<'a>>,
}

/// Starts a program in a child that shares this process's memory until the exec: posix_spawn(3). A fork would copy the
/// page tables, which takes longer the more memory this process has. No signal is blocked in the program, and SIGPIPE,
/// which Rust's runtime ignores, has its default disposition. Returns the child's pid; the caller must reap it.
///
/// # Errors
/// The child can't be made, or a step in it fails: a descriptor, the change of directory or the exec.
pub fn start(program: &Program<'_>) -> Result<Pid> {
    let what = || format!("execute {:?}", program.path);
    let mut actions = FileActions::new().context(what)?;
    for (fd, number) in program.standard.iter().zip(0..) {
        actions.duplicate(*fd, number).context(what)?;
    }
    if let Some(fd) = program.descriptor {
        // Duplicated onto its own number, which clears close-on-exec in the child.
        actions.duplicate(fd, fd.as_raw_fd()).context(what)?;
    }
    actions.change_directory(program.directory).context(what)?;
    let attributes = Attributes::with_usual_signals().context(what)?;
    let list = |words: &[CString]| -> Vec<*mut libc::c_char> {
        words.iter().map(|word| word.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
    };
    let (arguments, environment) = (list(program.arguments), list(program.environment));
    let mut pid = 0;
    // SAFETY: the path is a C string, both lists hold C strings and end with a null pointer, and all of them, the
    // initialised actions and attributes too, outlive the call, which does not write to the strings.
    let done = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    result(done).context(what)?;
    Ok(Pid::from_raw(pid))
}

/// The functions of the posix_spawn(3) family return the error number instead of setting errno.
fn result(done: libc::c_int) -> nix::Result<()> {
    if done == 0 { Ok(()) } else { Err(Errno::from_raw(done)) }
}

/// The descriptors and the directory that the child sets before the exec: posix_spawn_file_actions_init(3).
struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> nix::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises `actions`, unless it fails.
        result(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised, as the call has succeeded.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn duplicate(&mut self, fd: BorrowedFd<'_>, number: i32) -> nix::Result<()> {
        // SAFETY: the actions are initialised; the call stores the numbers of the descriptors, which the child uses.
        result(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, fd.as_raw_fd(), number) })
    }

    fn change_directory(&mut self, path: &CString) -> nix::Result<()> {
        // SAFETY: the actions are initialised; the call copies the path, a C string.
        result(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, path.as_ptr()) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: they are initialised, and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// The signals of the child: posix_spawnattr_init(3).
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// With no signal blocked and SIGPIPE not ignored.
    fn with_usual_signals() -> nix::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the call initialises `attributes`, unless it fails.
        result(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised, as the call has succeeded.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let (none, pipe) = (SigSet::empty(), SigSet::from(Signal::SIGPIPE));
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        // SAFETY: the attributes are initialised, and the sets are copied.
        result(unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes.0, none.as_ref()) })?;
        // SAFETY: as above.
        result(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, pipe.as_ref()) })?;
        // SAFETY: as above; the flags fit into a short.
        result(unsafe { libc::posix_spawnattr_setflags(&raw mut attributes.0, flags as libc::c_short) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: they are initialised, and not used again.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Only the program that was given the descriptor has it.
    #[test]
    fn a_descriptor_is_inherited_by_one_program_alone() {
        let file = tempfile::tempfile().unwrap();
        let number = file.as_raw_fd();
        let look = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("test -e /proc/self/fd/{number}")]);
            command
        };
        let given = Heritage { descriptor: Some(file.as_fd()), session: true, signals: true };
        assert!(spawn(look(), given).unwrap().wait().unwrap().success());
        assert!(!spawn(look(), Heritage::default()).unwrap().wait().unwrap().success());
        assert!(rustix::io::fcntl_getfd(&file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        let missing = spawn(Command::new("/no/such/program"), given).unwrap_err().one_line();
        assert!(missing.contains("/no/such/program"), "{missing}");
    }

    /// The program has what it was given and nothing else, and says itself why it could not be executed.
    #[test]
    fn a_program_starts_without_a_fork() {
        use std::io::{Read, Seek};
        let c = |text: &str| CString::new(text).unwrap();
        let (mut output, lent, kept) =
            (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let null = std::fs::File::open("/dev/null").unwrap();
        let (lent_number, kept_number) = (lent.as_raw_fd(), kept.as_raw_fd());
        let script = format!(
            "pwd; echo $0 $A; test -e /proc/self/fd/{lent_number} && echo lent; test -e /proc/self/fd/{kept_number} || \
             echo not kept; grep SigIgn /proc/self/status; exit 3"
        );
        let arguments = [c("name"), c("-c"), c(&script), c("zero")];
        let (path, environment, directory) = (c("/bin/sh"), [c("A=value")], c("/proc"));
        let standard = [null.as_fd(), output.as_fd(), output.as_fd()];
        let program = Program {
            path: &path,
            arguments: &arguments,
            environment: &environment,
            directory: &directory,
            standard,
            descriptor: Some(lent.as_fd()),
        };
        let pid = start(&program).unwrap();
        let ended = super::super::process::wait_child(pid).unwrap();
        assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(pid, 3));
        let missing = Program { path: &c("/no/such/program"), ..program };
        let error = start(&missing).unwrap_err().one_line();
        assert!(error.contains("/no/such/program") && error.contains("ENOENT"), "{error}");
        let mut text = String::new();
        output.rewind().unwrap();
        output.read_to_string(&mut text).unwrap();
        let ignored = text.strip_prefix("/proc\nzero value\nlent\nnot kept\nSigIgn:\t").expect(&text);
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        assert_eq!(ignored & 1 << (libc::SIGPIPE - 1), 0, "SIGPIPE is ignored: {ignored:x}");
        assert!(rustix::io::fcntl_getfd(&lent).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
