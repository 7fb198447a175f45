//! Finding the file of an app's command, and the reason why it can't be executed.
//!
//! Everything here runs in the app's root as the app's user: paths are the app's paths. Pod side.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, Access, AtFlags, CWD, FileType, OFlags};
use rustix::io::Errno;

use super::env::DEFAULT_PATH;
use crate::error::{Error, Result, exit};

/// The directories in which a command without a slash is searched: those of the `PATH` that the app declares, otherwise
/// the working directory and those of [`DEFAULT_PATH`], which the app then has. An empty entry means the working
/// directory.
pub fn search_path(declared: Option<&str>) -> Vec<String> {
    let split = |path: &str| -> Vec<String> {
        path.split(':').map(|entry| if entry.is_empty() { "." } else { entry }.to_owned()).collect()
    };
    declared.map_or_else(|| [vec![".".to_owned()], split(DEFAULT_PATH)].concat(), split)
}

/// The file of `command`. The app's working directory must be the current directory: a path with a slash is relative to
/// it, unless it is absolute. A name without a slash is searched in `search_path`: the first executable file of that
/// name.
///
/// With `filtered` a seccomp filter will be in force, under which 32-bit programs can't run.
///
/// # Errors
/// The file or its interpreter does not exist (exit code [`exit::NOT_FOUND`]), or can't be executed (exit code
/// [`exit::NOT_EXECUTABLE`]). The message names the file, interpreter or permission.
pub fn find(command: &str, search_path: &[String], filtered: bool) -> Result<PathBuf> {
    let path = if command.contains('/') {
        let path = PathBuf::from(command);
        check(&path).map_err(|fault| fault.about(format!("exec {path:?}")))?;
        path
    } else {
        in_path(command, search_path)?
    };
    examine(&path, filtered, 0).map_err(|fault| fault.about(format!("exec {path:?}")))?;
    Ok(path)
}

fn in_path(command: &str, search_path: &[String]) -> Result<PathBuf> {
    let mut refused = None;
    for directory in search_path {
        let path = Path::new(directory).join(command);
        match check(&path) {
            Ok(()) => return Ok(path),
            Err(Fault::Missing { .. }) => {}
            Err(fault) => refused = refused.or(Some((path, fault))),
        }
    }
    match refused {
        Some((path, fault)) => Err(fault.about(format!("exec {command:?}: {path:?}"))),
        None => {
            let hint = format!("not found in {}", search_path.join(":"));
            Err(Fault::Missing { file: command.into(), hint: Some(hint) }.about(format!("exec {command:?}")))
        }
    }
}

/// Why a file can't be executed.
enum Fault {
    /// The file does not exist.
    Missing { file: PathBuf, hint: Option<String> },
    /// The file exists, but can't be executed: the reason.
    Refused(String),
}

impl Fault {
    fn about(self, what: String) -> Error {
        match self {
            Self::Missing { file, hint } => {
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                Error::new(format!("Unable to open {file:?}: No such file or directory{hint}"))
                    .with_exit_code(exit::NOT_FOUND)
            }
            Self::Refused(why) => Error::new(format!("{what}: {why}")).with_exit_code(exit::NOT_EXECUTABLE),
        }
    }

    fn from_errno(path: &Path, errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing { file: path.to_owned(), hint: None },
            Errno::ACCESS => Self::Refused("the app's user is not permitted to reach it".into()),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// Checks that `path` is a regular file that this process may execute.
fn check(path: &Path) -> Result<(), Fault> {
    let stat = fs::stat(path).map_err(|errno| Fault::from_errno(path, errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Fault::Refused("it is a directory".into())),
        _ => return Err(Fault::Refused("it is not a regular file".into())),
    }
    fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).map_err(|errno| match errno {
        Errno::ACCESS => Fault::Refused(format!(
            "no permission to execute it (mode {:04o}, owner {}:{}, this is uid {}; or its volume is noexec)",
            stat.st_mode & 0o7777,
            stat.st_uid,
            stat.st_gid,
            rustix::process::geteuid().as_raw()
        )),
        other => Fault::from_errno(path, other),
    })
}

/// Maximum number of scripts that interpret each other, as in the kernel.
const MAX_INTERPRETERS: u32 = 5;

/// Reads the beginning of an executable file, to find the reason for failures that the kernel reports as ENOENT or
/// ENOEXEC only, or the filter as a signal: a missing interpreter, a 32-bit program.
fn examine(path: &Path, filtered: bool, depth: u32) -> Result<(), Fault> {
    if depth > MAX_INTERPRETERS {
        return Err(Fault::Refused("too many scripts that are run by scripts".into()));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // A file may be executable but not readable: then the kernel reports failures.
    let Ok(fd) = fs::open(path, flags, fs::Mode::empty()) else { return Ok(()) };
    let file = std::fs::File::from(fd);
    let mut start = Vec::new();
    if (&file).take(256).read_to_end(&mut start).is_err() {
        return Ok(());
    }
    let interpreter = if let Some(line) = start.strip_prefix(b"#!") {
        script_interpreter(line)
    } else {
        match Elf::parse(&start) {
            Some(elf) if elf.bits == 32 && filtered => {
                let why = "it is a 32-bit program, which the app's seccomp filter forbids (--disable-seccomp)";
                return Err(Fault::Refused(why.into()));
            }
            Some(elf) => elf.interpreter(&file),
            None => None,
        }
    };
    let Some(interpreter) = interpreter else { return Ok(()) };
    let here = Path::new(&interpreter);
    check(here).and_then(|()| examine(here, filtered, depth + 1)).map_err(|fault| match fault {
        Fault::Missing { file, hint: None } => {
            let line_ends = if interpreter.ends_with('\r') { ", whose lines end in CR LF" } else { "" };
            Fault::Missing { file, hint: Some(format!("the interpreter of {path:?}{line_ends}")) }
        }
        missing @ Fault::Missing { .. } => missing,
        Fault::Refused(why) => Fault::Refused(format!("its interpreter {interpreter:?}: {why}")),
    })
}

/// The interpreter in the `#!` line of a script; `line` begins after `#!`. A relative path is relative to the working
/// directory, as in the kernel.
fn script_interpreter(line: &[u8]) -> Option<String> {
    let line = line.split(|&b| b == b'\n').next()?.trim_ascii_start();
    let word = line.split(|&b| b == b' ' || b == b'\t').next().filter(|word| !word.is_empty())?;
    String::from_utf8(word.to_vec()).ok()
}

/// The fields of a little-endian ELF header that are needed here: elf(5).
struct Elf {
    bits: u32,
    program_headers: u64,
    header_size: u16,
    headers: u16,
}

impl Elf {
    fn parse(start: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_le_bytes(start.get(at..at + 2)?.try_into().ok()?));
        if !start.starts_with(b"\x7fELF") || *start.get(5)? != 1 {
            return None;
        }
        match start.get(4)? {
            1 => Some(Self {
                bits: 32,
                program_headers: u32::from_le_bytes(start.get(28..32)?.try_into().ok()?).into(),
                header_size: u16_at(42)?,
                headers: u16_at(44)?,
            }),
            2 => Some(Self {
                bits: 64,
                program_headers: u64::from_le_bytes(start.get(32..40)?.try_into().ok()?),
                header_size: u16_at(54)?,
                headers: u16_at(56)?,
            }),
            _ => None,
        }
    }

    /// The path in PT_INTERP, if there is a valid one.
    fn interpreter(&self, file: &std::fs::File) -> Option<String> {
        const PT_INTERP: u32 = 3;
        const MAX_HEADERS: u16 = 128;
        for index in 0..self.headers.min(MAX_HEADERS) {
            let mut header = [0; 56];
            let used = header.get_mut(..if self.bits == 64 { 56 } else { 32 })?;
            let at = self.program_headers.checked_add(u64::from(index) * u64::from(self.header_size))?;
            file.read_exact_at(used, at).ok()?;
            if u32::from_le_bytes(header[..4].try_into().ok()?) != PT_INTERP {
                continue;
            }
            let word = |at: usize| -> Option<u64> {
                match self.bits {
                    64 => Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?)),
                    _ => Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?).into()),
                }
            };
            let (offset, size) = if self.bits == 64 { (word(8)?, word(32)?) } else { (word(4)?, word(16)?) };
            let mut path = vec![0; usize::try_from(size).ok().filter(|size| (2..=4096).contains(size))?];
            file.read_exact_at(&mut path, offset).ok()?;
            let path = path.split(|&b| b == 0).next()?;
            return String::from_utf8(path.to_vec()).ok();
        }
        None
    }
}

/// The error for a failed execve(2) of a file that [`find`] has accepted.
pub(super) fn exec_failure(path: &Path, error: Error) -> Error {
    let (code, hint) = match error.errno() {
        Some(libc::ENOENT) => (exit::NOT_FOUND, "it or something it needs is missing"),
        Some(libc::ENOEXEC) => (exit::NOT_EXECUTABLE, "neither a program for this machine nor a script with a #! line"),
        Some(libc::EACCES | libc::EPERM) => (exit::NOT_EXECUTABLE, "no permission"),
        Some(libc::E2BIG) => (exit::NOT_EXECUTABLE, "arguments and environment are too long"),
        _ => (exit::NOT_EXECUTABLE, "the kernel refuses it"),
    };
    Error::caused_by(format!("exec {path:?}: {hint}"), error).with_exit_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn put(path: &Path, mode: u32, bytes: &[u8]) {
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn fault(command: &Path, filtered: bool) -> (Option<u8>, String) {
        let error = find(command.to_str().unwrap(), &[], filtered).unwrap_err();
        (error.exit_code(), error.one_line())
    }

    /// A little ELF file whose one program header names `interpreter`.
    fn elf(bits: u32, interpreter: &str) -> Vec<u8> {
        let wide = bits == 64;
        let mut file = vec![0; if wide { 64 } else { 52 }];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1]);
        let start = file.len();
        let header = if wide { 56 } else { 32 };
        let mut set = |at: usize, value: u32| file[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
        set(if wide { 32 } else { 28 }, start as u32);
        set(if wide { 54 } else { 42 }, header);
        set(if wide { 56 } else { 44 }, 1);
        file.resize(start + header as usize, 0);
        let mut set = |at: usize, value: u32| file[start + at..][..4].copy_from_slice(&value.to_le_bytes());
        set(0, 3);
        set(if wide { 8 } else { 4 }, start as u32 + header);
        set(if wide { 32 } else { 16 }, interpreter.len() as u32 + 1);
        file.extend(interpreter.bytes().chain([0]));
        file
    }

    #[test]
    fn search_paths() {
        let path = |value| search_path(Some(value));
        assert_eq!(search_path(None)[0], ".");
        assert_eq!(search_path(None)[1..].join(":"), DEFAULT_PATH);
        assert_eq!(path("/a::b"), ["/a", ".", "b"]);
        assert_eq!(path(""), ["."]);
    }

    #[test]
    fn the_first_executable_in_the_path() {
        let tmp = tempfile::tempdir().unwrap();
        let dirs: Vec<_> = ["a", "b", "c", "d"].iter().map(|d| tmp.path().join(d)).collect();
        dirs.iter().for_each(|d| std::fs::create_dir(d).unwrap());
        let path: Vec<_> = dirs.iter().map(|d| d.to_str().unwrap().to_owned()).collect();
        std::fs::create_dir(dirs[0].join("run")).unwrap();
        put(&dirs[1].join("run"), 0o644, b"");
        put(&dirs[3].join("real"), 0o755, b"");
        assert_eq!(find("run", &path, true).unwrap_err().exit_code(), Some(exit::NOT_EXECUTABLE));
        symlink(dirs[3].join("real"), dirs[2].join("run")).unwrap();
        assert_eq!(find("run", &path, true).unwrap(), dirs[2].join("run"));
        let error = find("absent", &path, true).unwrap_err();
        assert_eq!(error.exit_code(), Some(exit::NOT_FOUND));
        assert!(error.one_line().contains("not found in"), "{error}");
    }

    #[test]
    fn what_is_at_fault_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        put(&at("plain"), 0o644, b"");
        put(&at("script"), 0o755, b"#! /no/such/sh -x\nexit\n");
        put(&at("dos"), 0o755, b"#!/bin/sh\r\nexit\r\n");
        put(&at("elf"), 0o755, &elf(64, "/no/such/ld.so"));
        put(&at("elf32"), 0o755, &elf(32, "/no/such/ld32.so"));
        put(&at("through"), 0o755, format!("#!{}\n", at("script").display()).as_bytes());
        put(&at("loop"), 0o755, format!("#!{}\n", at("loop").display()).as_bytes());
        put(&at("unreadable"), 0o755, format!("#!{}\n", at("plain").display()).as_bytes());
        symlink("nowhere", at("dangling")).unwrap();
        for (name, code, words) in [
            ("absent", exit::NOT_FOUND, "/absent\": No such file or directory"),
            ("plain/x", exit::NOT_FOUND, "/plain/x\": No such file or directory"),
            ("dangling", exit::NOT_FOUND, "/dangling\": No such file or directory"),
            ("plain", exit::NOT_EXECUTABLE, "no permission to execute it (mode 0644"),
            ("", exit::NOT_EXECUTABLE, "it is a directory"),
            (
                "script",
                exit::NOT_FOUND,
                "Unable to open \"/no/such/sh\": No such file or directory (the interpreter of",
            ),
            ("dos", exit::NOT_FOUND, "CR LF"),
            (
                "elf",
                exit::NOT_FOUND,
                "Unable to open \"/no/such/ld.so\": No such file or directory (the interpreter of",
            ),
            ("elf32", exit::NOT_EXECUTABLE, "32-bit program"),
            (
                "through",
                exit::NOT_FOUND,
                "Unable to open \"/no/such/sh\": No such file or directory (the interpreter of",
            ),
            ("loop", exit::NOT_EXECUTABLE, "too many scripts"),
            ("unreadable", exit::NOT_EXECUTABLE, "plain\": no permission"),
        ] {
            let (got, line) = fault(&at(name), true);
            assert!(got == Some(code) && line.contains(words), "{name}: {got:?} {line}");
        }
        assert!(fault(&at("elf32"), false).1.contains("ld32.so"));
        put(&at("good"), 0o755, b"#!/bin/sh\n");
        find(at("good").to_str().unwrap(), &[], true).unwrap();
        find("/proc/self/exe", &[], true).unwrap();
    }

    proptest! {
        #[test]
        fn any_start_of_a_file_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3u8) {
            let prefix: &[u8] = match kind {
                0 => b"#!",
                1 => b"\x7fELF\x01\x01",
                _ => b"\x7fELF\x02\x01",
            };
            bytes.splice(..prefix.len().min(bytes.len()), prefix.iter().copied());
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, &bytes).unwrap();
            if let Some(elf) = Elf::parse(&bytes) {
                elf.interpreter(&file);
            }
            if let Some(line) = bytes.strip_prefix(b"#!") {
                script_interpreter(line);
            }
        }
    }
}
