# shellcheck shell=bash
# Helpers that every script shares. Source it first: it changes to the root of the repository.

set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TARGET=x86_64-unknown-linux-musl
export CARGO_TARGET_DIR=$PWD/target

# What is built for pods and with the release profile. cargo is always asked for all of them at once, and for one binary or
# another of theirs: it chooses the features of a crate for the packages it is asked for, and compiles the crate again for
# others.
# shellcheck disable=SC2034
PRODUCT=(--locked --target "$TARGET" -p entrypoints -p stage0 -p cri -p probe)

say() { printf '%s: %s\n' "${0##*/}" "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# as_root COMMAND...: runs it as root, with sudo when that takes it.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $*"
    fi
}

# How many seconds another program may hold a lock of the package system.
PATIENCE=600

# apt_get ARGUMENT...: apt-get as root, once nobody else works on packages. apt waits for dpkg's lock alone.
apt_get() {
    local errors status end=$((SECONDS + PATIENCE))
    errors=$(mktemp)
    while true; do
        status=0
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout="$PATIENCE" "$@" \
            2>"$errors" >&2 || status=$?
        if [ "$status" = 0 ] || ! grep -q 'Could not get lock' "$errors" || [ "$SECONDS" -ge "$end" ]; then break; fi
        sleep 1
    done
    cat "$errors" >&2
    rm "$errors"
    return "$status"
}

# update_package_lists: asks the archive what it has now.
update_package_lists() {
    say "fetching the package lists (apt-get update)"
    apt_get update
}

# with_package_lists COMMAND...: runs it, with fresh lists if there are none or if it fails, as it does
# when the archive no longer has what old lists name.
with_package_lists() {
    if [ -n "$(apt-cache madison systemd)" ] && "$@"; then return; fi
    update_package_lists
    "$@" || die "failed with fresh package lists too: $*"
}

# need_packages PACKAGE...: installs those that are not installed.
need_packages() {
    local package missing=()
    for package in "$@"; do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} = 0 ]; then return; fi
    say "installing ${missing[*]}"
    with_package_lists apt_get install -y --no-install-recommends "${missing[@]}"
}

# need_rust: makes sure that cargo can build for $TARGET.
need_rust() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again"
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$TARGET" ]; then return; fi
    command -v rustup >/dev/null || die "this Rust cannot build for $TARGET and there is no rustup to add it"
    say "adding the Rust target $TARGET"
    rustup target add "$TARGET"
}
