#!/bin/sh
# Installs the system package that the tests can use: CPython's own test suite, where the
# distribution keeps it apart from the interpreter (Debian and its relatives).
#
#   scripts/install-system.sh [PYTHON]      PYTHON defaults to python3
#
# Does nothing when the suite is there. Ends with status 0 and one line of explanation when it
# cannot be installed: the test that needs it is then skipped, or fails where CI=true.

set -u
python=${1:-python3}
need='import test.test_asyncio.test_taskgroups'

say() { echo "install-system: $1"; }

if ! command -v "$python" >/dev/null 2>&1; then
    say "no interpreter $python; nothing installed"
    exit 0
fi
if "$python" -c "$need" >/dev/null 2>&1; then
    say "CPython's asyncio tests are there; nothing to install"
    exit 0
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
package="libpython$version-testsuite"

# The package serves the distribution's interpreter only, not one built by hand.
base=$("$python" -c 'import sys; print(sys.base_prefix)')
if [ "$base" != /usr ]; then
    say "$python lives in $base, where $package does not reach; nothing installed"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    say "no apt-get to install $package with; nothing installed"
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=env
elif sudo -n true >/dev/null 2>&1; then
    as_root="sudo -n env"
else
    say "$package needs root or sudo without a password; nothing installed"
    exit 0
fi

install() {
    $as_root DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "$package" >/dev/null 2>&1
}
# Package lists may be missing or old: refresh them once, only if needed.
if ! install; then
    $as_root apt-get update -q >/dev/null 2>&1
    if ! install; then
        say "apt-get could not install $package; nothing installed"
        exit 0
    fi
fi
if "$python" -c "$need" >/dev/null 2>&1; then
    say "installed $package"
else
    say "installed $package, but $python still does not find CPython's asyncio tests"
fi
