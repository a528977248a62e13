"""What guests' writes and snapshots cost the modelled array in bandwidth."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support_array import MB, FreshWrites, Lab, request

from stillframe.sim.array import ModelArray
from stillframe.sim.series import Quantity


def merge_s(method: str, work_bytes: float = 1000 * MB) -> tuple[float, float]:
    """How long a merge takes while a snapshot of the unit is open, and the background meanwhile."""
    lab = Lab(FreshWrites(5 * MB), method=method, io_bandwidth=100 * MB, flow_bandwidth=None)

    async def main(array: ModelArray) -> tuple[float, float]:
        await array.snapshot_group(request("t", "u0", "u1", "u2", "u3"))
        start_s, done = lab.env.now, asyncio.get_running_loop().create_future()
        array.io.submit(work_bytes, lambda: done.set_result(None))
        await done
        return lab.env.now - start_s, array.io.background_bytes_per_s

    measured: tuple[float, float] = lab.run(main)
    return measured


def test_copy_on_write_pays_three_times_and_merges_slowly_redirect_on_write_does_not() -> None:
    # 4 units x 5 MB/s of guest writes, every one a first overwrite, on 100 MB/s.
    assert merge_s("redirect-on-write") == (pytest.approx(1000 / 80), pytest.approx(20 * MB))
    assert merge_s("copy-on-write") == (pytest.approx(1000 / 40), pytest.approx(60 * MB))


def test_without_snapshots_copy_on_write_pays_for_guest_writes_only() -> None:
    lab = Lab(FreshWrites(5 * MB), method="copy-on-write")
    lab.array.refresh_load()
    assert lab.array.io.background_bytes_per_s == pytest.approx(20 * MB)

    async def main(array: ModelArray) -> Any:
        taken = await array.snapshot_group(request("t", "u0"))
        during = array.io.background_bytes_per_s
        await array.delete_snapshot(taken.ref)
        return during, array.io.background_bytes_per_s

    during, after = lab.run(main)
    assert during == pytest.approx(30 * MB)
    assert after == pytest.approx(20 * MB)
    assert max(value for _, value in lab.series.of(Quantity.ARRAY_COPY_BYTES_PER_S, "arr")) == (
        pytest.approx(10 * MB)
    )


def test_the_guests_write_rate_is_asked_for_once_per_interval() -> None:
    class Counting(FreshWrites):
        asked = 0

        def write_rate_bytes_per_s(self, unit_id: str, start_s: float, end_s: float) -> float:
            self.asked += 1
            return super().write_rate_bytes_per_s(unit_id, start_s, end_s)

    model = Counting(MB)
    lab = Lab(model, load_interval=300.0)
    for _ in range(100):
        lab.array.refresh_load()
    assert model.asked == 4
    lab.env.run(until=301.0)
    lab.array.refresh_load()
    assert model.asked == 8
