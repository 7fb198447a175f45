//! Linker options that make the released binaries small: every pod without overlayfs has a copy of each.

use std::env::var;

/// The linker script, in this directory.
const SCRIPT: &str = "release.ld";

fn main() {
    println!("cargo::rerun-if-changed={SCRIPT}");
    let is = |key: &str, value: &str| var(key).is_ok_and(|v| v == value);
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        let script = format!("{}/{SCRIPT}", var("CARGO_MANIFEST_DIR").unwrap_or_default());
        // Packed relocations, which musl supports since 1.2.4.
        for argument in ["-z,pack-relative-relocs", "--build-id=none", &format!("-T,{script}")] {
            println!("cargo::rustc-link-arg-bins=-Wl,{argument}");
        }
    }
}
