# shellcheck shell=bash
# Makes the stage1 image out of Debian's packages, stage1/image/ and the entrypoints' binaries.

IMAGE=stage1/image
CACHE=target/image
LIBRARIES=usr/lib/x86_64-linux-gnu

# lines FILE: its lines without comments and blank ones.
lines() { grep -v -e '^#' -e '^$' "$1"; }

# fetch_packages LIST PLACE: has every package of the list unpacked below PLACE/tree, from the cache if it is there.
# Packages of one day fit together, so when the list has changed all are fetched anew.
# To take up Debian's updates, remove PLACE.
fetch_packages() {
    local list=$1 place=$2 packages deb
    if cmp -s "$list" "$place/packages"; then return; fi
    rm -rf "$place"
    mkdir -p "$place/debs" "$place/tree/usr"/{bin,sbin,lib,lib64}
    mapfile -t packages < <(lines "$list")
    say "downloading ${#packages[@]} packages"
    with_package_lists download "$place/debs" "${packages[@]}"
    link_directories "$place/tree"
    for deb in "$place"/debs/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$place/tree"
    done
    cp "$list" "$place/packages"
}

# download DIRECTORY PACKAGE...: the .deb files, as the user that we are.
download() {
    local directory=$1
    shift
    (cd "$directory" && apt-get -qq -o APT::Sandbox::User=root download "$@" >&2)
}

# link_directories TREE: /bin and its like are links into /usr.
link_directories() {
    local directory
    for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$1/$directory"; done
}

# needed FILE: the libraries that an ELF file links to and that the image has, by name.
needed() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' | grep -vxF -f <(lines "$IMAGE/absent"); }

# absent_symbols TREE: the symbols of absent libraries that files in the tree link to, as NAME@VERSION or NAME.
absent_symbols() {
    local library
    while read -r library; do
        nm -D --defined-only "$CACHE/tree/$LIBRARIES/$library" | awk '{ sub("@@", "@", $3); print $3 }'
    done < <(lines "$IMAGE/absent") | sort -u | comm -12 - <(
        find "$1/usr" -type f -exec nm -D --undefined-only {} + 2>/dev/null | awk 'NF == 2 { print $2 }' | sort -u
    )
}

# make_absent TREE: the library that stands in for the absent ones, and a link to it in place of each of them.
make_absent() {
    local tree=$1 made=$CACHE/absent library
    mkdir -p "$made"
    absent_symbols "$tree" >"$made/symbols"
    [ -s "$made/symbols" ] || die "nothing in the image links to the libraries in $IMAGE/absent"
    sed 's/@.*//' "$made/symbols" | sort -u | while read -r symbol; do
        if ! grep -q "^EXPORTED .*\b$symbol(" "$IMAGE/absent.c"; then printf 'ABSENT(%s)\n' "$symbol"; fi
    done >"$made/absent.def"
    # The versions that Debian's libraries give to their symbols.
    awk -F @ 'NF == 2 { names[$2] = names[$2] " " $1 ";" }
        END { for (version in names) print version " {" names[version] " };" }' "$made/symbols" | sort >"$made/absent.map"
    gcc -O2 -shared -fPIC -fno-builtin -fvisibility=hidden -nostartfiles -s -Wall -Wextra -Werror -Wno-builtin-declaration-mismatch \
        -Wl,-z,now,-z,relro,--version-script="$made/absent.map",-soname,libabsent.so,--build-id=none \
        -I "$made" -o "$tree/$LIBRARIES/libabsent.so" "$IMAGE/absent.c"
    while read -r library; do ln -s libabsent.so "$tree/$LIBRARIES/$library"; done < <(lines "$IMAGE/absent")
}

# must_be_linked TREE FILE: the loader of the image finds every library and every symbol for the program.
must_be_linked() {
    local tree=$1 file=$2 loader=$1/usr/lib64/ld-linux-x86-64.so.2 said
    said=$(LD_TRACE_LOADED_OBJECTS=1 LD_WARN=1 LD_BIND_NOW=1 "$loader" \
        --library-path "$tree/$LIBRARIES:$tree/$LIBRARIES/systemd" "$tree/$file" 2>&1) || die "$file: $said"
    if grep -e 'undefined symbol' -e 'not found' <<<"$said"; then die "$file of the image does not link"; fi
}

# copy_program TREE FILE: copies a program and, in the end, everything that it links to.
copy_program() {
    local tree=$1 file=$2 library path
    if [ -e "$tree/$file" ]; then return; fi
    [ -e "$CACHE/tree/$file" ] || die "$file is in none of the packages of $IMAGE/packages"
    install -D -m 0755 "$CACHE/tree/$file" "$tree/$file"
    while read -r library; do
        case $library in
        ld-linux-*) path=usr/lib64/$library ;;
        libsystemd-*) path=$LIBRARIES/systemd/$library ;;
        *) path=$LIBRARIES/$library ;;
        esac
        copy_program "$tree" "$path"
    done < <(needed "$CACHE/tree/$file")
}

# make_rootfs TREE BINARIES: the root file system of a pod.
make_rootfs() {
    local tree=$1 binaries=$2 program directory
    mkdir -p "$tree/usr"/{bin,sbin,lib,lib64}
    link_directories "$tree"
    while read -r directory; do mkdir -p "$tree/$directory"; done < <(lines "$IMAGE/directories")
    while read -r program; do copy_program "$tree" "$program"; done < <(lines "$IMAGE/programs")
    make_absent "$tree"
    while read -r program; do must_be_linked "$tree" "$program"; done < <(lines "$IMAGE/programs")
    cp -R "$IMAGE/rootfs/." "$tree"
    install -m 0755 "$binaries"/* "$tree/opt/stage1/bin"
}

# make_manifest ROOTFS: the image manifest, with the annotations of the entrypoints that there are.
make_manifest() {
    local rootfs=$1 version manifest executable
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    manifest=$(sed "s/@VERSION@/$version/" "$IMAGE/manifest.json")
    if [ ! -e "$rootfs/opt/stage1/bin/attach" ]; then
        manifest=$(grep -v stage1/attach <<<"$manifest")
    fi
    while read -r executable; do
        [ -x "$rootfs$executable" ] || die "the manifest names $executable, but no entrypoint of this name was built"
    done < <(sed -n 's/.*"value": "\(\/.*\)".*/\1/p' <<<"$manifest")
    printf '%s\n' "$manifest"
}

# make_image DIST: DIST/stage1 and DIST/stage1.aci out of DIST/entrypoints.
# The archive is the same byte for byte when its content is, and is left alone then.
make_image() {
    local dist=$1 next=$1/stage1.next
    rm -rf "$next"
    mkdir -p "$next/rootfs"
    make_rootfs "$next/rootfs" "$dist/entrypoints"
    make_manifest "$next/rootfs" >"$next/manifest"
    chmod -R u=rwX,go=rX "$next"
    chmod 1777 "$next/rootfs/tmp" "$next/rootfs/var/tmp"
    rm -rf "$dist/stage1"
    mv "$next" "$dist/stage1"
    tar -c --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 \
        -C "$dist/stage1" manifest rootfs >"$CACHE/stage1.tar.next"
    if [ -e "$dist/stage1.aci" ] && cmp -s "$CACHE/stage1.tar.next" "$CACHE/stage1.tar"; then
        rm "$CACHE/stage1.tar.next"
        return
    fi
    say "packing the image"
    gzip "-$([ "${QUICK-}" = 1 ] && echo 1 || echo 9)n" <"$CACHE/stage1.tar.next" >"$dist/stage1.aci.next"
    mv "$dist/stage1.aci.next" "$dist/stage1.aci"
    mv "$CACHE/stage1.tar.next" "$CACHE/stage1.tar"
}
