"""Ways to break the modelled hypervisor itself, and what its driver says of errors, for canaries.

Each takes the VM of one role, so that a defect breaks one requirement and leaves its neighbours
alone as far as it can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...drivers.contracts import ConsistencyLevel, VmSnapshot, VmSnapshotRef, Window
from ...drivers.errors import DriverError
from ...sim.byteguests import MOST_BLOCKS
from ..canary import BrokenDriver, with_driver
from ..hypervisor_target import PLAIN, ScratchVm
from .hypervisor_answers import Make, instead, of_role, told

CONNECTION_BROKE = "the connection broke"
SERVER_WENT = "the server went away"
HOST_LOST = "its host was lost"
NO_ANSWER = "no answer came"
"""How the reference says why it does not know."""
_CACHED_S = 0.3


def id_of(role: str) -> str:
    """The identifier of the VM of a role."""
    return f"modelled/{role}"


def altered(alter: Callable[[Any], None]) -> Make:
    """A target that ``alter`` changes when it is up."""

    def make(reference: type[Any]) -> type[Any]:
        class Altered(reference):  # type: ignore[misc]
            async def __aenter__(self) -> Any:
                await super().__aenter__()
                alter(self)
                return self

        return Altered

    return make


def both(*makes: Make) -> Make:
    """Broken in several ways at once, which together are one defect."""

    def make(reference: type[Any]) -> type[Any]:
        for one in makes:
            reference = one(reference)
        return reference

    return make


# -- what becomes of data --------------------------------------------------------------------------


def merging(
    role: str,
    bad: Callable[[Any, Any], bool],
    instead_of_copying: Callable[[Any, Any], None] | None = None,
) -> Make:
    """Merges of a role's VM that lose their delta, or end otherwise, if ``bad(target, chains)``.

    Parameters
    ----------
    instead_of_copying:
        Does with ``(target, chains)`` what is done instead of copying the delta; nothing if None.
    """

    def alter(target: Any) -> None:
        data, guest = target.model.data, target.model.guest_of(id_of(role))
        ends = data.merge_ends

        def merge_ends(number: int) -> None:
            chains = data.chains_of(guest)
            if number != guest or not bad(target, chains):
                ends(number)
                return
            if instead_of_copying is not None:
                instead_of_copying(target, chains)
            chains.end_merge()

        data.merge_ends = merge_ends

    return altered(alter)


def leaking(role: str, disk: int, bad: Callable[[Any], bool]) -> Make:
    """Writes that also reach the base of a disk while ``bad(chains)``."""

    def alter(target: Any) -> None:
        data, guest = target.model.data, target.model.guest_of(id_of(role))
        arrive = data.arrive

        def leak(number: int, to: int, block: int, content: bytes) -> None:
            arrive(number, to, block, content)
            chains = data.chains_of(guest)
            if number == guest and to == disk and bad(chains):
                where = disk * MOST_BLOCKS + block
                chains.layout.files[disk][0].write([where], [int.from_bytes(content, "big")])

        data.arrive = leak

    return altered(alter)


def cached(role: str, disk: int, bad: Callable[[Any], bool]) -> Make:
    """Writes that the host keeps to itself for a moment while ``bad(target)``."""

    def make(reference: type[Any]) -> type[Any]:
        class Caching(reference):  # type: ignore[misc]
            removals = 0

            async def __aenter__(self) -> Any:
                self.cache: dict[int, bytes] = {}
                return await super().__aenter__()

            async def write(self, vm: ScratchVm, to: int, block: int, data: bytes) -> None:
                if vm.name != role or to != disk or not bad(self):
                    await super().write(vm, to, block, data)
                    if (vm.name, to) == (role, disk):
                        self.cache.pop(block, None)  # what it held is older
                    return
                await super().read(vm, to, block)  # it takes as long
                self.cache[block] = data
                asyncio.get_running_loop().call_later(_CACHED_S, self._flush, block, data)

            def _flush(self, block: int, data: bytes) -> None:
                if self.cache.get(block) is data:
                    del self.cache[block]
                    self.model.data.arrive(self.model.guest_of(id_of(role)), disk, block, data)

            async def read(self, vm: ScratchVm, to: int, block: int) -> bytes:
                got: bytes = await super().read(vm, to, block)
                return self.cache.get(block, got) if (vm.name, to) == (role, disk) else got

        return Caching

    return make


def depth(target: Any, role: str) -> int:
    """How many snapshots a VM has, loose ones too."""
    marks = target.model.data.chains_of(target.model.guest_of(id_of(role))).layout.marks
    return len(marks)


def frozen_for(target: Any, role: str, time_s: float, after_s: float = 0.0) -> None:
    """The guest freezes, after a time and for a time, and nobody thaws it."""
    data, guest = target.model.data, target.model.guest_of(id_of(role))
    loop = asyncio.get_running_loop()
    if after_s:
        loop.call_later(after_s, data.frozen, guest)
    else:
        data.frozen(guest)
    if getattr(target, "thaws", None) is not None:
        target.thaws.cancel()  # the freeze before this one ends with it
    target.thaws = loop.call_later(after_s + time_s, data.thawed, guest)


def left_files(method: str, time_s: float = 3.0) -> Make:
    """A method after which files of deltas stay for a time."""

    def make(reference: type[Any]) -> type[Any]:
        class Leaving(reference):  # type: ignore[misc]
            left: frozenset[tuple[str, str]] = frozenset()

            async def files_of(self, vm: ScratchVm) -> frozenset[tuple[str, str]]:
                found: frozenset[tuple[str, str]] = await super().files_of(vm)
                return found | self.left if vm.name == PLAIN else found

            def forget(self) -> None:
                self.left = frozenset()

        async def leaving(driver: Any, target: Any, *arguments: Any) -> Any:
            plain = (await target.vms())[PLAIN]
            before = await target.files_of(plain)
            answer = await getattr(driver, method)(*arguments)
            target.left = before - await target.files_of(plain)
            asyncio.get_running_loop().call_later(time_s, target.forget)
            return answer

        return with_target(method, leaving)(Leaving)

    return make


# -- what a driver says ----------------------------------------------------------------------------


def with_target(method: str, call: Callable[..., Awaitable[Any]]) -> Make:
    """A driver that does ``call(driver, target, *arguments)`` instead of a method of its own."""

    def wrap(driver: Any, target: Any) -> Any:
        broken = BrokenDriver(driver, target)

        async def changed(*arguments: Any) -> Any:
            return await call(driver, target, *arguments)

        setattr(broken, method, changed)
        return broken

    return with_driver(wrap)


def saying(
    method: str,
    bad: Callable[[DriverError], bool],
    then: Callable[..., Awaitable[Any]],
) -> Make:
    """A driver that does ``then(driver, target, error, *arguments)`` when a method fails so."""

    async def call(driver: Any, target: Any, *arguments: Any) -> Any:
        try:
            return await getattr(driver, method)(*arguments)
        except DriverError as error:
            if not bad(error):
                raise
            return await then(driver, target, error, *arguments)

    return with_target(method, call)


def claiming(method: str, bad: Callable[[DriverError], bool], kind: type[DriverError]) -> Make:
    """A driver that raises an error of another kind when a method fails so."""

    async def then(driver: Any, target: Any, error: DriverError, *arguments: Any) -> Any:
        del driver, target, arguments
        raise kind(error.operation, error.subject, error.reason) from error

    return saying(method, bad, then)


def of_plain(kind: type[DriverError], reason: str = "") -> Callable[[DriverError], bool]:
    """Errors of exactly this kind about the VM of role plain, for this reason."""
    return lambda error: (
        type(error) is kind and of_role(error.subject, PLAIN) and reason in error.reason
    )


def created(change: Callable[[Any], Any]) -> Make:
    """Another answer to creates of the VM of role plain."""
    return told(
        "create_snapshot", lambda made: change(made) if of_role(made.ref.vm_id, PLAIN) else made
    )


def creating(call: Callable[..., Awaitable[Any]]) -> Make:
    """A driver that does ``call(driver, request)`` for creates of the VM of role plain."""

    async def chosen(driver: Any, request: Any) -> Any:
        if of_role(request.vm_id, PLAIN):
            return await call(driver, request)
        return await driver.create_snapshot(request)

    return instead("create_snapshot", chosen)


def window(change: Callable[[Window, Any], Window]) -> Make:
    """Another quiesce window of the VM of role plain, from the true one and the whole answer."""
    return created(
        lambda made: (
            made if made.quiesce is None else made._replace(quiesce=change(made.quiesce, made))
        )
    )


async def snapshot_all_the_same(driver: Any, target: Any, error: DriverError, request: Any) -> Any:
    """Leave a snapshot under the tag, and then fail as before."""
    with target.model.faults.lifted():
        await driver.create_snapshot(request._replace(quiesce=False))
    raise error


async def pretended(driver: Any, request: Any) -> Any:
    """What a create would answer that has made its snapshot."""
    (state,) = await driver.list_snapshots([request.vm_id])
    ref = VmSnapshotRef(request.vm_id, "modelled/snapshot-0", request.tag)
    now_s = asyncio.get_running_loop().time()
    return VmSnapshot(ref, ConsistencyLevel.CRASH, state.location, now_s)
