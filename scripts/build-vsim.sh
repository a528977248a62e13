#!/usr/bin/env bash
# Builds the test endpoint (endpoint/, docs/vsphere-endpoint.md) and prints the binary's path as its
# last line. Ends with status 3 and one line of explanation where it cannot be had.
#
#   STILLFRAME_CACHE      where binaries are kept; default ${XDG_CACHE_HOME:-~/.cache}/stillframe
#   STILLFRAME_VSIM_UNPACK=1   use no installed Go and install none: unpack the packages
#
# Go and govmomi come from Debian. As root they are installed; otherwise, or where that fails, their
# packages are unpacked beside the binary, used once and removed. A binary is named by the contents
# of its sources and of this script, so one that exists is current.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
cache="${STILLFRAME_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/stillframe}"
packages=/usr/share/gocode
govmomi=src/github.com/vmware/govmomi/simulator
apt=()

give_up() {
    echo "build-vsim: $1" >&2
    exit 3
}

mkdir -p "$cache" 2>/dev/null || give_up "cannot write to $cache; set STILLFRAME_CACHE"
key="$(cat "$root"/endpoint/*.go "$root/scripts/build-vsim.sh" | sha256sum | cut -c1-16)"
binary="$cache/vsim-$key"
if [ -x "$binary" ]; then
    echo "$binary"
    exit 0
fi
exec 9>"$cache/lock"
flock 9
if [ -x "$binary" ]; then # somebody else built it meanwhile
    echo "$binary"
    exit 0
fi
scratch="$(mktemp -d "$cache/build.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT
log="$scratch/log"

fail() {
    tail -n 20 "$log" >&2
    give_up "$1"
}

have_go() {
    [ -z "${STILLFRAME_VSIM_UNPACK:-}" ] && command -v go >/dev/null 2>&1 && [ -d "$packages/$govmomi" ]
}

install_packages() {
    [ "$(id -u)" = 0 ] && [ -z "${STILLFRAME_VSIM_UNPACK:-}" ] || return 1
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        golang-go golang-github-vmware-govmomi-dev >>"$log" 2>&1 && have_go
}

# Package lists of our own, for a user who may not refresh the system's.
private_lists() {
    mkdir -p "$scratch/lists/partial" "$scratch/archives/partial"
    apt=(-o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch/archives" -o APT::Sandbox::User=)
    apt-get "${apt[@]}" update -qq >>"$log" 2>&1
}

unpack_packages() { # the version of Go that the distribution calls its own
    local version
    version="$(apt-cache "${apt[@]}" depends golang-go 2>>"$log" |
        sed -n 's/.*Depends: golang-\([0-9.]*\)-go$/\1/p' | head -n 1)"
    [ -n "$version" ] || return 1
    mkdir -p "$scratch/deb" "$scratch/root"
    (cd "$scratch/deb" && apt-get "${apt[@]}" download "golang-$version-go" "golang-$version-src" \
        golang-github-vmware-govmomi-dev golang-github-google-uuid-dev) >>"$log" 2>&1 || return 1
    for archive in "$scratch"/deb/*.deb; do
        dpkg-deb -x "$archive" "$scratch/root" >>"$log" 2>&1 || return 1
    done
    export GOROOT="$scratch/root/usr/lib/go-$version"
    packages="$scratch/root/usr/share/gocode"
    PATH="$GOROOT/bin:$PATH"
}

# Lists may be missing or old: refresh them once, only if needed.
get_packages() {
    install_packages && return
    unpack_packages && return
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq >>"$log" 2>&1 || return 1
        install_packages && return
    else
        private_lists || return 1
    fi
    unpack_packages
}

command -v apt-get >/dev/null 2>&1 || have_go ||
    give_up "the endpoint needs Go and govmomi's sources, and there is no apt-get to get them with"
if ! have_go; then
    echo "build-vsim: getting Go and govmomi" >&2
    get_packages || fail "apt-get could not get golang-go and golang-github-vmware-govmomi-dev"
fi
echo "build-vsim: compiling (about a minute, once)" >&2
GO111MODULE=off GOFLAGS='' GOPATH="$packages" GOCACHE="$scratch/gocache" \
    sh -c 'cd "$1" && go build -ldflags="-s -w" -o "$2" .' sh "$root/endpoint" "$scratch/vsim" >>"$log" 2>&1 ||
    fail "the endpoint does not compile"
mv "$scratch/vsim" "$binary"
find "$cache" -maxdepth 1 -name 'vsim-*' -mtime +30 -delete # those of older sources
echo "$binary"
