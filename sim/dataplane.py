"""What the model tells whoever follows the data itself: the seam of block fidelity.

In flow fidelity there is no data plane, and a hook costs one comparison with None. In block
fidelity :class:`.block_plane.BlockPlane` hears here, at the very moment, of everything that decides
which write ends up where. A plane never changes what the model does or when.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from ..drivers.records import ArrayId, DatastoreId, UnitId, Vm


class ArrayPlane(Protocol):
    """Hears what happens to the units of arrays, at the present instant of the world's clock."""

    def fence_begins(self, unit_ids: Collection[UnitId]) -> None:
        """Writes to these units are held."""

    def fence_ends(self, unit_ids: Collection[UnitId]) -> None:
        """They are let go."""

    def cut(
        self, array_id: ArrayId, number: int, snapshot_id: str, unit_ids: Collection[UnitId]
    ) -> None:
        """These units are cut; the array knows the group snapshot by this number."""

    def snapshot_deleted(self, array_id: ArrayId, number: int) -> None:
        """This group snapshot is deleted or was given up."""


class DataPlane(ArrayPlane, Protocol):
    """Hears what happens to guests, disks and units; a guest is named by its number.

    All hooks speak of the present instant of the world's clock.
    """

    # -- the guest ------------------------------------------------------------------------------

    def frozen(self, guest: int) -> None:
        """Its file systems block writes; what is dirty is on its way to the disks."""

    def flushed(self, guest: int) -> None:
        """What was dirty when it froze is on the disks."""

    def thawed(self, guest: int) -> None:
        """Its file systems write again."""

    def stunned(self, guest: int) -> None:
        """Its vCPUs stop."""

    def unstunned(self, guest: int) -> None:
        """Its vCPUs run again."""

    def powered(self, guest: int, *, on: bool, memory: bool, clean: bool) -> None:
        """It runs from now on, or no longer does.

        ``memory`` says that a VM which stops keeps its memory (it is suspended), ``clean`` that
        the guest has written it out (it was shut down). With neither, the memory is lost.
        """

    # -- its chain ------------------------------------------------------------------------------

    def delta_begins(self, guest: int, tag: str, *, quiesced: bool, application: bool) -> None:
        """A snapshot exists: its writes go to new deltas from now on.

        ``quiesced`` says that the file systems are whole (frozen and flushed, or unmounted),
        ``application`` that the applications are too.
        """

    def snapshot_lost(self, guest: int, place: int) -> None:
        """The snapshot at this place of the chain is gone, and its deltas are not."""

    def merge_begins(self, guest: int, place: int, *, mirrored: bool) -> None:
        """The deltas of the snapshot at this place are merged into what lies below them."""

    def merge_passed(self, guest: int) -> None:
        """A pass of that merge is complete and another one begins."""

    def merge_ends(self, guest: int) -> None:
        """What was left is merged, and the deltas are deleted; the guest stands still."""

    def merge_broken(self, guest: int) -> None:
        """The merge ends as it stands; the deltas stay and hold what they held."""

    # -- its placement --------------------------------------------------------------------------

    def relocation_begins(self, guest: int, vm: Vm, delta_store: DatastoreId | None) -> None:
        """Its disks are copied to where this record has them; its writes go to both sides."""

    def relocated(self, guest: int) -> None:
        """The copies are its disks from now on."""

    def relocation_broken(self, guest: int) -> None:
        """The copies are discarded."""
