//! Programs of a few machine instructions that make system calls with any number, in any ABI, with arguments that have
//! no effect. The exit status of each says how its calls ended.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Number of EXFULL, an error that no system call returns by itself, so it comes from a filter.
pub const EXFULL: u8 = 54;

/// `mov edi, eax; neg edi; mov eax, exit_group; syscall`: the status is the error of the call before it, or 0.
const EXIT_WITH_ERROR: [u8; 11] = [0x89, 0xc7, 0xf7, 0xdf, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];

/// A system call whose six arguments are -1 or 0xffffffff, which are not valid descriptors, addresses or flags.
fn call(number: u32) -> Vec<u8> {
    let mut code = vec![0xbf, 0xff, 0xff, 0xff, 0xff];
    for register in [[0x48, 0xc7, 0xc6], [0x48, 0xc7, 0xc2], [0x49, 0xc7, 0xc2], [0x49, 0xc7, 0xc0], [0x49, 0xc7, 0xc1]]
    {
        code.extend(register);
        code.extend([0xff; 4]);
    }
    code.push(0xb8);
    code.extend(number.to_le_bytes());
    code.extend([0x0f, 0x05]);
    code
}

/// Makes one call; the exit status is its error number.
pub fn one(number: u32) -> Vec<u8> {
    [call(number).as_slice(), &EXIT_WITH_ERROR].concat()
}

/// Makes two calls: bit 0 of the exit status is set if the first fails with EXFULL, bit 1 if the second does.
pub fn two(first: u32, second: u32) -> Vec<u8> {
    // xor ebx, ebx
    let mut code = vec![0x31, 0xdb];
    for (shift, number) in [(0, first), (1, second)] {
        code.extend(call(number));
        // cmp eax, -EXFULL; sete cl; movzx ecx, cl; shl ecx, shift; or ebx, ecx
        code.extend([0x83, 0xf8, EXFULL.wrapping_neg(), 0x0f, 0x94, 0xc1, 0x0f, 0xb6, 0xc9, 0xc1, 0xe1, shift]);
        code.extend([0x09, 0xcb]);
    }
    // mov edi, ebx; mov eax, exit_group; syscall
    code.extend([0x89, 0xdf, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]);
    code
}

/// Makes a call of the 32-bit ABI, for example getpid, and exits with 0.
pub fn i386(number: u32) -> Vec<u8> {
    // mov ebx, -1; mov eax, number; int 0x80; xor edi, edi; mov eax, exit_group; syscall
    let mut code = vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xb8];
    code.extend(number.to_le_bytes());
    code.extend([0xcd, 0x80, 0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05]);
    code
}

/// Makes a call of the x32 ABI; the exit status is its error number.
pub fn x32(number: u32) -> Vec<u8> {
    one(number | 0x4000_0000)
}

/// Writes a static program of these instructions.
pub fn program(path: &Path, code: &[u8]) {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = vec![0u8; HEADERS as usize];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let size = HEADERS + code.len() as u64;
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2u16.to_le_bytes()); // ET_EXEC
    put(18, &62u16.to_le_bytes()); // EM_X86_64
    put(20, &1u32.to_le_bytes());
    put(24, &(BASE + HEADERS).to_le_bytes()); // entry
    put(32, &64u64.to_le_bytes()); // program headers
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &1u32.to_le_bytes()); // PT_LOAD
    put(68, &5u32.to_le_bytes()); // read, execute
    put(80, &BASE.to_le_bytes());
    put(88, &BASE.to_le_bytes());
    put(96, &size.to_le_bytes());
    put(104, &size.to_le_bytes());
    put(112, &0x1000u64.to_le_bytes());
    elf.extend(code);
    fs::write(path, elf).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
