//! Stand-ins for the unwinder, which a program whose panics abort never uses.
//!
//! std is built to unwind, and to print a backtrace with each panic. It brings an unwinder and a reader of debug
//! information along, two fifths of an entrypoint, which is stripped and so has nothing for them to read. With these
//! in their place the linker drops both. The message of a panic and its place in the source are printed as ever.
//!
//! Should std come to need another function of the unwinder, libunwind is linked again and defines these a second
//! time: the build fails rather than going wrong.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI.
const END_OF_STACK: c_int = 5;

/// Calls `visit` for each frame of the stack: for none.
// SAFETY: No other function has this name, or linking fails. It has the ABI's signature and keeps its contract.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

macro_rules! never_called {
    ($($name:ident)*) => {$(
        // SAFETY: No other function has this name, or linking fails. It is only called while a stack is unwound,
        // takes no notice of what it is called with, and does not return.
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
