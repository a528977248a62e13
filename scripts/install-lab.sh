#!/bin/sh
# Installs the system packages of the live lab (docs/lab.md): QEMU, the three arrays, and what a
# guest is made with. The guest's own packages are not installed but unpacked when it is built.
#
#   scripts/install-lab.sh
#
# Says nothing when all is there. Ends with status 0 and one line of explanation when something
# cannot be installed: the tests that need it are then skipped, or fail where CI=true.

set -u

say() { echo "install-lab: $1"; }
python_has() { /usr/bin/python3 -c "import $1" >/dev/null 2>&1; }

missing() {
    while read -r program package; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null 2>&1 || echo "$package"
    done <<'PROGRAMS'
qemu-system-x86_64 qemu-system-x86
qemu-img qemu-utils
qemu-storage-daemon qemu-utils
mkfs.xfs xfsprogs
mkfs.ext4 e2fsprogs
ceph-mon ceph-mon
ceph-osd ceph-osd
monmaptool ceph-common
gcc gcc
PROGRAMS
    # QEMU's part for RBD is a package of its own, with nothing that can be run.
    ls /usr/lib/*/qemu/block-rbd.so >/dev/null 2>&1 || echo qemu-block-extra
    ls /usr/lib/*/libc.a >/dev/null 2>&1 || echo libc6-dev
    python_has rbd || echo python3-rbd
    python_has rados || echo python3-rados
}

packages=$(missing | sort -u | tr '\n' ' ')
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    say "no apt-get to install $packages with; nothing installed"
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=env
elif sudo -n true >/dev/null 2>&1; then
    as_root="sudo -n env"
else
    say "${packages}need root or sudo without a password; nothing installed"
    exit 0
fi

install() {
    # shellcheck disable=SC2086  # words are meant
    $as_root DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends $packages >/dev/null 2>&1
}
# Package lists may be missing or old: refresh them once, only if needed.
if ! install; then
    $as_root apt-get update -q >/dev/null 2>&1
    if ! install; then
        say "apt-get could not install ${packages% }"
        exit 0
    fi
fi
left=$(missing | sort -u | tr '\n' ' ')
if [ -n "$left" ]; then
    say "installed ${packages% }, but ${left% } is still not found"
else
    say "installed ${packages% }"
fi
