//! The BPF program that decides which devices a cgroup may use: bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use crate::error::{Context, Result};
use crate::sys::dir;

/// A device, or a range of devices, that may be read and, if the fields say so, written and made.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRule {
    /// Whether it is a block device; otherwise it is a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number; `None` means every one.
    pub minor: Option<u32>,
    /// Whether it may be written.
    pub write: bool,
    /// Whether a node for it may be made: mknod(2).
    pub make: bool,
}

/// One instruction: the kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The beginning of the kernel's `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The beginning of the kernel's `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: RawFd,
    program: RawFd,
    kind: u32,
    flags: u32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// BPF_F_ALLOW_OVERRIDE: a program that is attached to a cgroup below replaces this one there.
const ALLOW_OVERRIDE: u32 = 1;

/// Registers: the result; the kernel's argument; kind, access, major and minor number of the device.
const R0: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

const KIND_BLOCK: i32 = 1;
const KIND_CHARACTER: i32 = 2;
const ACCESS_MAKE: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

/// Restricts the cgroup `dir` of cgroup v2 to the devices in `rules`, and with it every cgroup below that has no such
/// program of its own.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in the initial user namespace; EINVAL or ENOSYS if the kernel lacks such programs.
pub fn attach_device_program(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    let program = load(&program(rules))?;
    let cgroup = File::from(dir::open_dir_for_reading(dir)?);
    let attach = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_OVERRIDE,
    };
    // SAFETY: `attach` is the beginning of the attribute of this command, its size is passed with it, and its
    // descriptors are open through the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    nix::errno::Errno::result(done).map(drop).context(|| format!("bpf(BPF_PROG_ATTACH, {dir:?})"))
}

fn load(program: &[Instruction]) -> Result<OwnedFd> {
    let license = c"MPL";
    let attribute = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).context(|| "length of a program")?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: `attribute` is the beginning of the attribute of this command, its size is passed with it, and what it
    // points to, `count` instructions and a string with its NUL, outlives the call; the kernel copies both.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attribute, size_of::<Load>()) };
    let fd = nix::errno::Errno::result(fd).context(|| format!("bpf(BPF_PROG_LOAD, {} instructions)", program.len()))?;
    let fd = RawFd::try_from(fd).context(|| "descriptor of a program")?;
    // SAFETY: the kernel has just made this descriptor, close-on-exec, for this call; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Compiles the rules: an access is allowed by the first rule that matches the device and allows all that is asked for,
/// and denied without such a rule.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let one = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    let from = |target: u8, source: u8| target | source << 4;
    let mut out = vec![
        one(LOAD_WORD, from(KIND, CONTEXT), 0, 0),
        one(MOVE_REGISTER, from(ACCESS, KIND), 0, 0),
        one(AND, KIND, 0, 0xffff),
        one(SHIFT_RIGHT, ACCESS, 0, 16),
        one(LOAD_WORD, from(MAJOR, CONTEXT), 4, 0),
        one(LOAD_WORD, from(MINOR, CONTEXT), 8, 0),
    ];
    for rule in rules {
        let mut tests = vec![(KIND, if rule.block { KIND_BLOCK } else { KIND_CHARACTER })];
        tests.push((MAJOR, rule.major.cast_signed()));
        tests.extend(rule.minor.map(|minor| (MINOR, minor.cast_signed())));
        let allowed = ACCESS_READ | if rule.write { ACCESS_WRITE } else { 0 } | if rule.make { ACCESS_MAKE } else { 0 };
        let mut left = tests.len() as i16 + 5;
        for (register, value) in tests {
            left -= 1;
            out.push(one(JUMP_UNLESS_EQUAL, register, left, value));
        }
        out.push(one(MOVE_REGISTER, from(R0, ACCESS), 0, 0));
        out.push(one(AND, R0, 0, !allowed));
        out.push(one(JUMP_UNLESS_EQUAL, R0, 2, 0));
        out.push(one(MOVE, R0, 0, 1));
        out.push(one(EXIT, 0, 0, 0));
    }
    out.push(one(MOVE, R0, 0, 0));
    out.push(one(EXIT, 0, 0, 0));
    out
}
