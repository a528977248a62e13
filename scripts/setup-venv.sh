#!/usr/bin/env bash
# Makes .venv with the package in it. Usage: setup-venv.sh [extras], for example "dev".
# Debian splits venv out of python3; where it is missing it is installed, if this user may do that.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-}"

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "stillframe needs Python 3.11 or newer; set PYTHON=/path/to/python3 if it is not on the PATH" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif sudo -n true 2>/dev/null; then sudo -n "$@"; else return 1; fi
}

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python="$(find_python)"
    echo "making .venv with $("$python" --version)"
    rm -rf .venv
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        if command -v apt-get >/dev/null 2>&1 &&
            as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends python3-venv; then
            "$python" -m venv .venv
        else
            echo "$python has no venv module; install the package python3-venv and run make again" >&2
            exit 1
        fi
    fi
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
