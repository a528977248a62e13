"""``make evidence-determinism``: one seed, one trace, whatever process or hash seed runs it.

Every seed is run in three processes with different PYTHONHASHSEED, and in one process for each
other Python that is found. The control runs the same seeds with asyncio's stock tasks, whose sets
are ordered by address: where it shows no difference, the comparison would prove nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console

from .evidence import Figure, write_evidence

SEEDS = 180
WORKER = Path(__file__).with_name("determinism_worker.py")
ROOT = Path(__file__).resolve().parents[1]
VENVS = ROOT / "out" / "pythons"
CONSOLE = Console(stderr=True)

Traces = dict[int, tuple[str, str]]


def run_seeds(python: Path, hash_seed: str, *extra: str) -> Traces:
    """Trace hash and status of every seed, from a process of its own."""
    CONSOLE.print(f"{SEEDS} seeds, PYTHONHASHSEED={hash_seed} {' '.join(extra)} {python}")
    done = subprocess.run(
        [python, WORKER, "0", str(SEEDS), *extra],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=VENVS.parent if VENVS.parent.exists() else None,
        check=True,
        capture_output=True,
        text=True,
    )
    traces: Traces = {}
    for line in done.stdout.splitlines():
        seed, trace_hash, status = line.split()
        traces[int(seed)] = (trace_hash, status)
    return traces


def differing(one: Traces, other: Traces) -> list[int]:
    """The seeds whose traces are not the same."""
    return [seed for seed in one if one[seed] != other.get(seed)]


def other_pythons() -> dict[str, Path]:
    """Interpreters of other versions on the PATH or under pyenv, by version."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(11, 15)] + [
        "/usr/bin/python3"
    ]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += sorted(str(path / "bin" / "python3") for path in pyenv.glob("3.1[1-9]*"))
    found: dict[str, Path] = {}
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            version = subprocess.run(
                [candidate, "-c", "import platform; print(platform.python_version())"],
                check=False,
                capture_output=True,
                text=True,
            ).stdout.strip()
            supported = version and tuple(map(int, version.split(".")[:2])) >= (3, 11)
            if supported and version != sys.version.split()[0]:
                found.setdefault(version, Path(candidate))
    return found


def environment(version: str, python: Path) -> Path | None:
    """An environment of that Python with the package in it; None where it cannot be made."""
    venv = VENVS / version
    inside = venv / "bin" / "python"
    try:
        if not inside.exists():
            subprocess.run([python, "-m", "venv", venv], check=True, capture_output=True)
        pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--editable", ROOT], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        CONSOLE.print(f"no environment for Python {version}: {error}")
        return None
    return inside


def main() -> None:
    """Run everything and write the figures."""
    here = Path(sys.executable)
    reference = run_seeds(here, "0")
    others = [run_seeds(here, hash_seed) for hash_seed in ("1", "4711")]
    changed = {seed for traces in others for seed in differing(reference, traces)}
    statuses = Counter(status for _, status in reference.values())
    control = [run_seeds(here, hash_seed, "stock-tasks") for hash_seed in ("0", "1")]
    figures = [
        Figure("seeds run", SEEDS, "seeds", ">= 150 seeds"),
        Figure("seeds whose trace differs between processes", len(changed), "seeds", "== 0 seeds"),
        Figure("different traces among the seeds", len(set(reference.values())), "traces"),
        Figure("seeds whose job is cancelled", statuses["cancelled"], "seeds"),
        Figure(
            "control: seeds that differ between processes with asyncio's stock tasks",
            len(differing(*control)),
            "seeds",
            "> 0 seeds",
        ),
    ]
    for version, python in other_pythons().items():
        inside = environment(version, python)
        if inside is not None:
            different = len(differing(reference, run_seeds(inside, "0")))
            name = f"seeds whose trace differs on Python {version}"
            figures.append(Figure(name, different, "seeds"))
    write_evidence("determinism", figures)


if __name__ == "__main__":
    main()
