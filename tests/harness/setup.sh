# Sourced by tests/lab and tests/run: tools, privileges and the build. Nothing here is needed twice:
# what is installed or built already is left alone.
#
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
# Debian keeps ip, nft and the like in sbin, which is not on every user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin
export PATH

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# as_root is put before what needs root: nothing, or sudo.
get_root() {
    as_root=()
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null || die "needs root for network namespaces, and there is no sudo"
    sudo -v || die "needs root for network namespaces, and sudo refuses"
    as_root=(sudo)
}

# Installs the Debian packages that are missing. Their services are neither started nor enabled:
# the tests start the programs themselves, in namespaces.
install_missing() {
    local package missing=()
    command -v dpkg-query >/dev/null || die "no dpkg here; install what Debian calls: $*"
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    "${as_root[@]}" sh -s -- "${missing[@]}" <<'INSTALL' || die "failed to install ${missing[*]}"
set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" >/dev/null
if [ -d /run/systemd/system ]; then
    for package in "$@"; do
        case $package in
        frr) systemctl disable -q frr ;;
        bird2) systemctl disable -q bird ;;
        gobgpd | openbgpd) systemctl disable -q "$package" ;;
        esac
    done
fi
INSTALL
}

# NetworkManager, and what it needs that is missing, in target/network-manager. It is not installed: it
# would take over the machine's network at the next boot.
unpack_network_manager() {
    local into=$target/network-manager packages
    [ -e /usr/sbin/NetworkManager ] || [ -e "$into" ] && return
    say "unpacking network-manager"
    rm -rf "$into.new" && mkdir -p "$into.new" || return
    list_network_manager >/dev/null || "${as_root[@]}" apt-get update -qq
    packages=$(list_network_manager | grep -vxE 'systemd.*|udev|libnss-systemd|libpam-systemd|polkitd')
    (
        cd "$into.new" || exit
        # shellcheck disable=SC2086
        apt-get download -qq -o APT::Sandbox::User=root $packages &&
            for package in *.deb; do dpkg -x "$package" . || exit; done &&
            rm -- *.deb && [ -e usr/sbin/NetworkManager ]
    ) && mv "$into.new" "$into" || say "failed to unpack network-manager; its tests are skipped"
}

# The packages that its installation would bring.
list_network_manager() {
    apt-get install -s --no-install-recommends network-manager 2>/dev/null |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p' | grep .
}

need_rust() {
    local version
    command -v cargo >/dev/null || die "Rust 1.89 or later is needed, and there is no cargo"
    version=$(rustc --version | cut -d ' ' -f 2)
    [ "$(printf '%s\n' 1.89.0 "$version" | sort -V | head -n 1)" = 1.89.0 ] ||
        die "Rust 1.89 or later is needed, this is $version"
    command -v cc >/dev/null || install_missing gcc libc6-dev
}

build_programs() {
    cargo build --locked --manifest-path "$root/Cargo.toml" -p agent -p reflector --bins "$@"
}
