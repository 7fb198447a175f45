//! Replacements of the unwinder's functions, which a program whose panics abort never uses.
//!
//! std is built to unwind, and to print a backtrace with each panic. For that it links an unwinder and a reader of
//! debug information, two fifths of an entrypoint, although the stripped binary has no debug information. With these
//! functions the linker drops both. A panic still prints its message and its place in the source.
//!
//! If a later std needs another function of the unwinder, libunwind is linked again and defines these functions a
//! second time: the build fails.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI.
const END_OF_STACK: c_int = 5;

/// Reports the end of the stack without calling `visit` for any frame.
// SAFETY: No other function has this name, or linking fails. It has the ABI's signature and keeps its contract.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

macro_rules! never_called {
    ($($name:ident)*) => {$(
        // SAFETY: No other function has this name, or linking fails. It is only called while a stack is unwound,
        // ignores its arguments, and does not return.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> ! {
            std::process::abort()
        }
    )*};
}

never_called!(
    _Unwind_GetDataRelBase
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_Resume
    _Unwind_SetGR
    _Unwind_SetIP
);
