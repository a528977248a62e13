"""A process that begins a snapshot and stops in the middle of it; the tests kill it.

Run as ``support_xfs_child.py POOL_FOLDER TAG STAGE UNIT…``. When it has reached the stage it prints
the number of the process that thaws after its death, and waits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from threading import Event
from typing import Any

from stillframe.drivers import xfs_ioctl
from stillframe.drivers.contracts import GroupSnapshotRequest
from stillframe.drivers.xfs_reflink import XfsReflinkDriver, open_xfs_reflink
from stillframe.drivers.xfs_store import Staged, Store

STAGES: dict[str, tuple[object, str]] = {
    "frozen": (xfs_ioctl, "share"),
    "copied": (Staged, "finish"),
    "finished": (Store, "publish"),
}
"""After the first unit was copied; after the thaw; before it becomes visible."""


async def main(pool: str, tag: str, stage: str, *units: str) -> None:
    async with open_xfs_reflink("xfs", {"pool_folder": pool}) as driver:
        owner, name = STAGES[stage]
        stop_after(driver, owner, name, before=stage == "finished")
        names = tuple(f"xfs/{unit}" for unit in units)
        await driver.snapshot_group(GroupSnapshotRequest(names, tag, 60.0))


def stop_after(driver: XfsReflinkDriver, owner: object, name: str, *, before: bool) -> None:
    work: Callable[..., Any] = getattr(owner, name)

    def stopping(*args: Any) -> None:
        if not before:
            work(*args)
        sys.stdout.write(f"{driver._switch.pid}\n")
        sys.stdout.flush()
        Event().wait()

    setattr(owner, name, stopping)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
