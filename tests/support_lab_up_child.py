"""A process that brings up a lab and sends itself a signal in the middle of a step.

Taking down has steps of the same names: a signal that is not the end comes again then.

    support_lab_up_child.py FOLDER ARRAY STEP SIGNAL
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from stillframe.cli_lab import run_to_the_end
from stillframe.lab.lab import bring_up
from stillframe.lab.spec import LabSpec

STEPS = ("guest image", "array", "datastores", "disks", "recorder", "guests", "writers")


def main(folder: Path, array: str, at: str, number: int) -> None:
    """Bring it up, and send the signal when step ``at`` is well under way."""

    def tell(step: str) -> None:
        if step == at:
            # Not at once: what the step starts has to be there, half made.
            asyncio.get_running_loop().call_later(0.03, os.kill, os.getpid(), number)

    spec = LabSpec(array=array, guests=1, wide=1, datastores=2, units=2)
    run_to_the_end(bring_up(spec, folder, tell=tell))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
