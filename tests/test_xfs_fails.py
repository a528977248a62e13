"""A reflink pool that fails in the middle of a call, and calls that meet on a snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_lab import needs_lab, short_folder
from support_xfs import NEEDS, request, xfs_pool

from stillframe.certify.targets import xfs as xfs_target
from stillframe.certify.targets.xfs import XfsTarget
from stillframe.drivers import xfs_ioctl, xfs_reflink
from stillframe.drivers.errors import BusyError, DidNotHappenError
from stillframe.drivers.xfs_locks import try_lock

pytestmark = needs_lab(*NEEDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("xfs") as made:
        yield made


def test_a_pool_that_fails_in_a_call_is_let_go_and_the_tag_is_free_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = xfs_ioctl.share

    async def main() -> None:
        target = XfsTarget(XfsTarget.settings_model(), folder, 1)
        async with target, target.connect() as driver:
            units = [str(unit.unit_id) for unit in await target.units()]
            pool = Path((await target.units())[0].devices[0].value).parent

            def dies(source: int, copy: int) -> None:
                xfs_target._lose_power(pool)
                share(source, copy)

            monkeypatch.setattr(xfs_ioctl, "share", dies)
            with pytest.raises(DidNotHappenError):
                await driver.snapshot_group(request("twice", *units))
            monkeypatch.setattr(xfs_ioctl, "share", share)
            monkeypatch.setattr(xfs_target, "_LET_GO_S", 0.0)
            await target.restart()  # unmounts the pool, which nobody may have open any more
            made = await driver.snapshot_group(request("twice", *units))
            assert [one.ref for one in await driver.list_snapshots("")] == [made.ref]

    asyncio.run(main())


def test_who_deletes_waits_for_whoever_is_just_finishing_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with xfs_pool(folder) as pool, pool.driver() as driver:
            made = await driver.snapshot_group(request("met", *pool.unit_ids))
            lock = try_lock(pool.hidden / "snapshots" / "tag-met")
            assert lock is not None
            monkeypatch.setattr(xfs_reflink, "_OTHERS_S", 0.0)
            with pytest.raises(BusyError, match="being made or deleted"):
                await driver.delete_snapshot(made.ref)
            monkeypatch.setattr(xfs_reflink, "_OTHERS_S", 60.0)
            monkeypatch.setattr(xfs_reflink.time, "sleep", lambda _seconds: lock.release())
            await driver.delete_snapshot(made.ref)
            assert await driver.list_snapshots("") == []

    asyncio.run(main())


def test_the_fence_is_an_upper_bound(folder: Path) -> None:
    async def main() -> None:
        async with xfs_pool(folder) as pool, pool.driver() as driver:
            await pool.datastore(0)
            made = await driver.snapshot_group(request("held", *pool.unit_ids))
            assert made.fence is not None
            assert not made.fence.exact

    asyncio.run(main())
