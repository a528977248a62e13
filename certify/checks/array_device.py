"""What the array itself says that it holds, for checks that do not believe the driver."""

from __future__ import annotations

from ..array_bench import ArrayBench

DEVICE_LIMIT_S = 30.0
"""How long an array may take to give up what was deleted: the contract wants it gone, not at once.

The driver's call has returned by then, so this is the array's own clearing up.
"""


async def on_device(bench: ArrayBench) -> frozenset[str]:
    """The snapshots of the scratch units that the array holds; needs the hook."""
    return await bench.target.snapshots_on_device()


async def expect_on_device(
    bench: ArrayBench, wanted: frozenset[str], when: str, limit_s: float = 0.0
) -> None:
    """The driver breaks the requirement unless the array holds just this, within a time.

    Parameters
    ----------
    limit_s:
        How long to look again, in seconds.
    """

    async def same() -> bool:
        return await on_device(bench) == wanted

    if await bench.until(same, limit_s):
        return
    held = await on_device(bench)
    more, fewer = sorted(held - wanted), sorted(wanted - held)
    what = f"{len(more)} snapshots more" if more else f"{len(fewer)} snapshots fewer"
    bench.expect(held == wanted, f"the array holds {what} {when}", more=more, fewer=fewer)
