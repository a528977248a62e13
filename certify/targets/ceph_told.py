"""Run the process that asks a Ceph cluster, and note under which address the cluster knows it.

A script for the interpreter that has ``rados``: ``ceph_told.py FOLDER SCRIPT ARGUMENT...`` runs
SCRIPT as it would run by itself; each connection that it makes leaves a file in FOLDER with its
address. It imports nothing of Stillframe.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import rados  # type: ignore[import-not-found,unused-ignore]


def main(folder: Path, script: Path, *arguments: str) -> None:
    """Run a script as ``__main__``."""

    class Told(rados.Rados):  # type: ignore[misc,unused-ignore]
        """A connection that leaves its address."""

        def connect(self, *args: Any, **options: Any) -> None:
            """As the connection does it."""
            super().connect(*args, **options)
            (folder / str(self.get_instance_id())).write_text(self.get_addrs(), encoding="ascii")

    rados.Rados = Told
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
