"""The same seed on a modelled target gives the same certificate, in any process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = ("-m", "stillframe", "certify", "array", "modelled-row", "--effort", "quick", "--json")


def body(folder: Path, seed: int, hash_seed: int) -> dict[str, Any]:
    """What a process of its own certifies, but for when; two requirements are enough."""
    only = [part for topic in ("ARR-GRP-01", "ARR-PRF-01") for part in ("--only", topic)]
    done = subprocess.run(
        [sys.executable, *COMMAND, *only, "--seed", str(seed)],
        cwd=folder,
        env={"PYTHONHASHSEED": str(hash_seed)},
        check=True,
        capture_output=True,
        text=True,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    assert said.pop("made")["wall_s"] > 0
    return said


def test_a_seed_repeats_all_that_a_certificate_says(tmp_path: Path) -> None:
    first, again, other = (body(tmp_path, *seeds) for seeds in ((5, 1), (5, 2), (6, 1)))
    assert first.pop("kit")["digest"]
    assert again.pop("kit")["digest"]
    assert first == again
    verdicts = [[one["verdict"] for one in said["requirements"]] for said in (first, other)]
    assert verdicts[0] == verdicts[1]
    samples = [said["requirements"][-1]["samples"] for said in (first, other)]
    assert samples[0]
    assert samples[0] != samples[1]
