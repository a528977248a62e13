"""Hypervisors that lose data, or change what has to stand still."""

from __future__ import annotations

from typing import Any

from ..canary import Canary
from ..hypervisor_target import (
    INDEPENDENT,
    KEPT,
    OFF,
    PLAIN,
    SECOND,
    WIDE,
    HypervisorTarget,
    ScratchVm,
)
from .hypervisor_defects import (
    altered,
    cached,
    depth,
    id_of,
    leaking,
    left_files,
    merging,
    with_target,
)

_FAR = 600
"""The first of the blocks that a hypervisor counts wrongly."""


def _as_it_was(target: Any) -> None:
    """Merges copy what the delta held as they began."""
    data = target.model.data
    begins, ends = data.merge_begins, data.merge_ends
    held: dict[int, list[dict[int, int]]] = {}

    def merge_begins(guest: int, place: int, *, mirrored: bool) -> None:
        chains = data.chains_of(guest)
        if guest == target.model.guest_of(id_of(PLAIN)) and len(chains.layout.marks) == 1:
            held[guest] = [chain[-1].live() for chain in chains.layout.files]
            mirrored = False
        begins(guest, place, mirrored=mirrored)

    def merge_ends(guest: int) -> None:
        if guest not in held:
            ends(guest)
            return
        chains = data.chains_of(guest)
        for chain, content in zip(chains.layout.files, held.pop(guest), strict=True):
            chain[0].write(list(content), list(content.values()))
        chains.end_merge()

    data.merge_begins, data.merge_ends = merge_begins, merge_ends


def _into_the_base_too(target: Any, chains: Any) -> None:
    """Copy the delta where it belongs, and into the base."""
    del target
    content = chains.layout.files[0][chains.merging.place + 1].live()
    chains.copy_rest()
    chains.layout.files[0][0].write(list(content), list(content.values()))


def _first_disk_only(target: Any, chains: Any) -> None:
    del target
    place = chains.merging.place
    content = chains.layout.files[0][place + 1].live()
    chains.layout.files[0][place].write(list(content), list(content.values()))


def _no_backing_file(reference: type[Any]) -> type[Any]:
    class Unbacked(reference):  # type: ignore[misc]
        async def read(self, vm: ScratchVm, disk: int, block: int) -> bytes:
            got: bytes = await super().read(vm, disk, block)
            chains = self.model.data.chains_of(self.model.guest_of(id_of(vm.name)))
            chain = chains.layout.files[disk]
            if vm.name == PLAIN and len(chain) > 1 and block not in chain[-1].live():
                return bytes(len(got))
            return got

    return Unbacked


async def _counted(driver: Any, target: Any, ref: Any) -> Any:
    answer = await driver.remove_snapshot(ref)
    target.removals += 1
    return answer


def _hidden_journal(reference: type[Any]) -> type[Any]:
    caching = cached(PLAIN, 0, lambda target: target.removals and not depth(target, PLAIN))
    return with_target("remove_snapshot", _counted)(caching(reference))


def _top(chains: Any) -> bool:
    return bool(chains.merging.place == len(chains.layout.marks) - 1)


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "base-takes-writes",
        "HYP-DAT-01",
        "lets writes through to the base of a quiesced snapshot",
        leaking(
            PLAIN,
            0,
            lambda chains: len(chains.layout.marks) == 1 and chains.layout.marks[0].quiesced,
        ),
    ),
    Canary(
        "base-takes-writes-unquiesced",
        "HYP-DAT-02",
        "lets writes through to the base of a snapshot that was not quiesced",
        leaking(
            PLAIN,
            0,
            lambda chains: len(chains.layout.marks) == 1 and not chains.layout.marks[0].quiesced,
        ),
    ),
    Canary(
        "second-disk-goes-on",
        "HYP-DAT-03",
        "lets writes through to the base of the second disk",
        leaking(WIDE, 1, lambda chains: bool(chains.layout.marks)),
    ),
    Canary(
        "writes-beside-the-delta",
        "HYP-DAT-04",
        "keeps writes beside the delta for a moment",
        cached(PLAIN, 0, lambda target: depth(target, PLAIN) > 0),
    ),
    Canary(
        "delta-without-its-base",
        "HYP-DAT-05",
        "gives the guest zeros where the delta has nothing",
        _no_backing_file,
    ),
    Canary(
        "merges-near-blocks",
        "HYP-DAT-06",
        "drops a delta that holds far blocks only",
        merging(PLAIN, lambda _, chains: min(chains.layout.files[0][-1].live(), default=0) >= _FAR),
    ),
    Canary(
        "merges-what-was-there",
        "HYP-DAT-07",
        "merges what the delta held when the merge began, and drops what was written since",
        altered(_as_it_was),
        also=(
            "HYP-DAT-09",
            "HYP-DAT-17",
            "HYP-CNS-05",
            "HYP-ABD-04",
            "HYP-FLT-05",
            "HYP-MOV-04",
            "HYP-MOV-05",
            "HYP-MOV-09",
        ),
        because="they, too, merge while the guest writes, and look for what it wrote",
    ),
    Canary(
        "stays-on-a-journal",
        "HYP-DAT-08",
        "goes on writing beside the base when the only snapshot is removed",
        _hidden_journal,
    ),
    Canary(
        "drops-lower-deltas",
        "HYP-DAT-09",
        "drops the delta of a snapshot that has another above it instead of merging it",
        merging(PLAIN, lambda _, chains: not _top(chains)),
    ),
    Canary(
        "leaves-delta-files",
        "HYP-DAT-10",
        "deletes the files of a delta some time after the removal has returned",
        left_files("remove_snapshot"),
        also=("HYP-LOC-07",),
        because="a location does not name the files that are left",
    ),
    Canary(
        "merges-into-the-base",
        "HYP-DAT-11",
        "merges every delta into the base as well",
        merging(PLAIN, lambda _, chains: chains.merging.place > 0, _into_the_base_too),
    ),
    Canary(
        "merges-into-a-foreign-base",
        "HYP-DAT-12",
        "merges our delta into the base of somebody else's snapshot as well",
        merging(KEPT, lambda _, chains: chains.merging.place > 0, _into_the_base_too),
    ),
    Canary(
        "drops-what-lies-on-a-foreign-delta",
        "HYP-DAT-13",
        "drops our delta above somebody else's snapshot instead of merging it",
        merging(KEPT, lambda _, chains: chains.merging.place > 0),
    ),
    Canary(
        "merges-one-disk",
        "HYP-DAT-14",
        "merges the delta of the first disk only",
        merging(WIDE, lambda *_: True, _first_disk_only),
    ),
    Canary(
        "holds-an-independent-disk",
        "HYP-DAT-15",
        "keeps writes to an independent disk beside it while a snapshot is open",
        cached(INDEPENDENT, 1, lambda target: depth(target, INDEPENDENT) > 0),
    ),
    Canary(
        "starts-on-the-base",
        "HYP-DAT-16",
        "lets a VM that is started with a snapshot write to its base",
        leaking(OFF, 0, lambda chains: bool(chains.layout.marks)),
    ),
    Canary(
        "one-merge-at-a-time",
        "HYP-DAT-17",
        "drops a delta whose merge falls together with that of another VM",
        merging(
            SECOND,
            lambda target, _: target.model.busy_with(id_of(PLAIN)) == "remove_snapshot",
        ),
    ),
)
