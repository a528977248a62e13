"""The guests in block fidelity: the same questions, answered by counting blocks."""

from __future__ import annotations

from collections.abc import Sequence

from ..drivers.records import UnitId, Vm
from .block_plane import BlockPlane
from .draws import Draws
from .env import SimEnv
from .guest_rules import GuestRules
from .guests import Guests, Shares


class BlockGuests(Guests):
    """All guests of a world, counted; what lies ahead is expected as in flow fidelity.

    Parameters
    ----------
    vms, rules, shares, draws, grain_bytes:
        See :class:`.guests.Guests`.
    env:
        The world's clock.

    Attributes
    ----------
    plane:
        Where the blocks are; set once it is there.
    """

    __slots__ = ("_env", "plane")

    plane: BlockPlane

    def __init__(
        self,
        env: SimEnv,
        vms: Sequence[Vm],
        rules: GuestRules,
        shares: Sequence[Shares],
        draws: Draws,
        grain_bytes: int,
    ) -> None:
        super().__init__(vms, rules, shares, draws, grain_bytes)
        self._env = env

    def merged(self, guest: int, size_bytes: float, now_s: float) -> None:
        """Nothing to add: the blocks that a merge writes are counted where it writes them."""

    def delta_bytes(self, guest: int, since_s: float, now_s: float) -> float:
        """See :meth:`.Guests.delta_bytes`; the blocks of held disks that were written."""
        chains = self.plane.chains[guest]
        blocks = self._written(guest, since_s, now_s)
        count = len(blocks) if all(chains.held) else sum(map(chains.is_held, blocks))
        return float(count * self.plane.block_bytes[guest])

    def _written(self, guest: int, since_s: float, now_s: float) -> set[int]:
        one = self.plane.guests[guest]
        one.advance(self._env.now)
        return one.written(since_s, now_s)

    def dirty_bytes(self, guest: int, now_s: float) -> float:
        """See :meth:`.Guests.dirty_bytes`; the blocks that its memory holds."""
        dirty = self.plane.guests[guest].dirty_blocks(now_s) * self.plane.block_bytes[guest]
        return float(min(dirty, self.rule[guest].dirty_limit))

    def overwritten_bytes(
        self, unit_id: UnitId, since_s: float, now_s: float, granularity_bytes: int
    ) -> float:
        """See :meth:`.load.OverwriteModel.overwritten_bytes`; ``since_s`` is the time of a cut."""
        counted_s = self._env.now
        plane = self.plane
        plane.advance((unit_id,))
        images = plane.images_of(unit_id)
        expect = super().overwritten_bytes
        total = images.overwritten_bytes(since_s, now_s, granularity_bytes)
        if now_s > counted_s:
            total += expect(unit_id, since_s, now_s, granularity_bytes)
            total -= expect(unit_id, since_s, counted_s, granularity_bytes)
        residents = self._residents.get(unit_id)
        copied = residents.bulk(since_s, min(now_s, counted_s)) if residents is not None else 0.0
        return total + copied
