"""``make evidence-vendor``: from the wheel to a signed certificate, as docs/certify.md says it.

The commands of the page's example are run line by line, in an empty folder that holds what the page
takes for given: the wheel and the example's package. Then the certificate is edited, and has to be
refused.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .evidence import Figure, write_evidence

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "certify.md"
EXAMPLE = ROOT / "examples" / "acme_array"


def commands() -> list[str]:
    """What the page tells a vendor to type, in order."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(command: str, folder: Path) -> tuple[int, float]:
    """Exit code and seconds of one line, as a shell runs it."""
    print(f"$ {command}", flush=True)
    # Nothing of the environment that this program runs in may help.
    kept = ("PATH", "HOME", "LANG")
    clean = {k: v for k, v in os.environ.items() if k in kept or k.startswith("PIP_")}
    begin_s = time.monotonic()
    done = subprocess.run(["/bin/bash", "-c", command], cwd=folder, env=clean, check=False)
    return done.returncode, time.monotonic() - begin_s


def prepare(folder: Path) -> None:
    """What the page takes for given."""
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*words, str(ROOT)], check=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*_cache")
    shutil.copytree(EXAMPLE, folder / "acme_array", ignore=ignored)


def tampered(folder: Path) -> list[int]:
    """Exit codes of ``verify`` after edits of each file of the certificate."""
    verify = next(line for line in commands() if " verify " in line)
    codes = []
    for name in ("certificate.json", "certificate.html", "junit.xml"):
        file = folder / "certificate" / name
        whole = file.read_bytes()
        edited = whole.replace(b"ARR-GRP-01", b"ARR-GRP-99", 1)
        if edited == whole:
            raise RuntimeError(f"{name} does not name ARR-GRP-01")
        file.write_bytes(edited)
        codes.append(run(verify, folder)[0])
        file.write_bytes(whole)
    return codes


def measure(folder: Path) -> tuple[list[Figure], dict[str, Any]]:
    """The figures, and what each command took."""
    prepare(folder)
    took: dict[str, float] = {}
    failed = 0
    for command in commands():
        code, seconds = run(command, folder)
        took[command] = round(seconds, 1)
        failed += code != 0
    certificate = json.loads((folder / "certificate" / "certificate.json").read_text("utf-8"))
    outcomes = certificate["body"]["requirements"]
    passed = sum(one["verdict"] == "pass" for one in outcomes)
    refused = sum(code == 2 for code in tampered(folder))
    return [
        Figure("commands of docs/certify.md that failed", failed, "", "== 0"),
        Figure("from the wheel to a verified certificate", sum(took.values()), "s", "<= 600 s"),
        Figure("requirements tried on the example array that it meets", passed, ""),
        Figure("requirements in its certificate", len(outcomes), ""),
        Figure("edited files of the certificate that are refused, of 3", refused, "", "== 3"),
    ], {"commands": took}


def main() -> int:
    """Measure and write out/evidence/vendor.json."""
    with tempfile.TemporaryDirectory(prefix="sf-vendor-") as folder:
        figures, extra = measure(Path(folder))
    write_evidence("vendor", figures, extra)
    return 0


if __name__ == "__main__":
    sys.exit(main())
