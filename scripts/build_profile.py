"""Build the write profile that Stillframe ships, from the trace it was measured from.

    python scripts/build_profile.py TRACE.vscsi [OUT.npz]

The same trace gives the same file, byte by byte; tests/test_writeprofile.py holds the shipped
one against a fresh build wherever the trace is at hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stillframe.sim.calibrate import calibrate_trace
from stillframe.sim.profilefile import DEFAULT_PROFILE, save_profile

SOURCE = (
    "first hour of a CloudPhysics vSCSI trace of one VMware virtual disk, distributed with "
    "libCacheSim (github.com/1a1a11a/libCacheSim, data/cloudPhysicsIO.vscsi)"
)
SHIPPED = Path(__file__).resolve().parents[1] / "sim" / "data" / f"{DEFAULT_PROFILE}.npz"


def main() -> None:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=SHIPPED)
    arguments = parser.parse_args()
    profile, _ = calibrate_trace(arguments.trace, name=DEFAULT_PROFILE, source=SOURCE)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_profile(profile, arguments.out)


if __name__ == "__main__":
    main()
