#!/usr/bin/env bash
# Types and import rules, held against a real install: neither tool follows the import hook of an
# editable one.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
rm -rf build
"$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target build/types . 2>build-log.txt ||
    { cat build-log.txt >&2; rm -f build-log.txt; exit 1; }
rm -f build-log.txt
cd build
MYPYPATH=types "$root/.venv/bin/mypy" --config-file "$root/pyproject.toml" -p stillframe
PYTHONPATH=types "$root/.venv/bin/lint-imports" --config "$root/pyproject.toml" --no-cache
