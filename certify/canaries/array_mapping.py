"""Drivers that mix units up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from ...drivers.errors import NeverWillError
from ...drivers.records import DeviceIdentity, DeviceKind, StorageUnit, UnitKind
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary
from .array_wrapping import Known, canary, own_identities, renamed, units_of

_HEXADECIMAL = (DeviceKind.NAA, DeviceKind.EUI, DeviceKind.UUID)


class _Resolving(BrokenDriver):
    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        known: Known = await self.inner.resolve(devices)
        return await self.answer(list(devices), known)

    async def answer(self, devices: list[DeviceIdentity], known: Known) -> Known:
        raise NotImplementedError


class _Changing(_Resolving):
    """What it changes does not depend on what else was asked."""

    async def answer(self, devices: list[DeviceIdentity], known: Known) -> Known:  # noqa: ARG002
        return await self.change(known)

    async def change(self, known: Known) -> Known:
        raise NotImplementedError


class _NoEui(_Changing):
    async def change(self, known: Known) -> Known:
        return {one: unit for one, unit in known.items() if one.kind is not DeviceKind.EUI}


class _SerialOfNeighbour(_Changing):
    async def change(self, known: Known) -> Known:
        first, second, *_ = await units_of(self.inner, self.target)
        found = dict(known)
        for one, unit in known.items():
            if one.kind is DeviceKind.SERIAL and unit.id == first.id:
                found[one] = replace(second, devices=(*second.devices, one))
        return found


class _OwnIdentifiers(_Changing):
    kind: DeviceKind

    async def change(self, known: Known) -> Known:
        return {
            one: renamed(unit, f"{unit.array_id}/{one.value}") if one.kind is self.kind else unit
            for one, unit in known.items()
        }


class _ExportAsUnit(_OwnIdentifiers):
    kind = DeviceKind.NFS


class _FileAsUnit(_OwnIdentifiers):
    kind = DeviceKind.FILE


class _OneIdentityPerUnit(_Changing):
    async def change(self, known: Known) -> Known:
        last = {unit.id: one for one, unit in known.items()}
        return {one: unit for one, unit in known.items() if last[unit.id] == one}


class _OneUnitPerCall(_Changing):
    async def change(self, known: Known) -> Known:
        return dict.fromkeys(known, next(iter(known.values()))) if known else {}


class _DropsRepeated(_Resolving):
    async def answer(self, devices: list[DeviceIdentity], known: Known) -> Known:
        return {one: unit for one, unit in known.items() if devices.count(one) == 1}


class _AnswersMore(_Changing):
    async def change(self, known: Known) -> Known:
        return dict(known) | {one: unit for unit in known.values() for one in unit.devices}


class _AnswersNothingWithAll(_Resolving):
    async def answer(self, devices: list[DeviceIdentity], known: Known) -> Known:
        if devices:
            return known
        every: Known = await self.inner.resolve(await own_identities(self.target))
        return every


class _Careless(_Resolving):
    """Takes an identity for one of a unit when the two are alike enough."""

    def alike(self, asked: DeviceIdentity, own: DeviceIdentity) -> bool:
        raise NotImplementedError

    async def answer(self, devices: list[DeviceIdentity], known: Known) -> Known:
        own: Known = await self.inner.resolve(await own_identities(self.target))
        found = dict(known)
        for asked in devices:
            for one, unit in own.items():
                if asked not in found and self.alike(asked, one):
                    found[asked] = unit
        return found


class _AnyServer(_Careless):
    def alike(self, asked: DeviceIdentity, own: DeviceIdentity) -> bool:
        nfs = asked.kind is own.kind is DeviceKind.NFS
        return nfs and asked.value.partition(":")[2] == own.value.partition(":")[2]


class _RefusesLocal(_Resolving):
    async def answer(self, devices: list[DeviceIdentity], known: Known) -> Known:
        local = [one for one in devices if one.kind is DeviceKind.LOCAL]
        if local:
            raise NeverWillError("resolve", str(local[0]), "devices of this kind are not known")
        return known


class _First256(BrokenDriver):
    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        known: Known = await self.inner.resolve(list(devices)[:256])
        return known


class _LastDigitIgnored(_Careless):
    def alike(self, asked: DeviceIdentity, own: DeviceIdentity) -> bool:
        return asked.kind is own.kind and asked.value[:-1] == own.value[:-1]


class _Beginnings(_Careless):
    def alike(self, asked: DeviceIdentity, own: DeviceIdentity) -> bool:
        return asked.kind is own.kind and own.value.startswith(asked.value)


class _ValuesOnly(_Careless):
    def alike(self, asked: DeviceIdentity, own: DeviceIdentity) -> bool:
        return asked.value == own.value


class _CaseIgnored(_Careless):
    def alike(self, asked: DeviceIdentity, own: DeviceIdentity) -> bool:
        return asked.kind is own.kind and asked.value.lower() == own.value.lower()


class _Retold(_Changing):
    async def change(self, known: Known) -> Known:
        return {one: self.retell(unit) for one, unit in known.items()}

    def retell(self, unit: StorageUnit) -> StorageUnit:
        raise NotImplementedError


class _InKibibytes(_Retold):
    def retell(self, unit: StorageUnit) -> StorageUnit:
        return replace(unit, capacity_bytes=unit.capacity_bytes // 1024)


class _EveryUnitALun(_Retold):
    def retell(self, unit: StorageUnit) -> StorageUnit:
        return replace(unit, kind=UnitKind.LUN)


class _HidesSerials(_Retold):
    def retell(self, unit: StorageUnit) -> StorageUnit:
        told = tuple(one for one in unit.devices if one.kind is not DeviceKind.SERIAL)
        return replace(unit, devices=told)


def _upper(devices: Iterable[DeviceIdentity]) -> list[DeviceIdentity]:
    return [DeviceIdentity(one.kind, one.value.upper()) for one in devices]


class _InCapitals(_Retold):
    """Tells a hexadecimal identity as the console shows it too, and takes it back."""

    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        normal = {
            one: DeviceIdentity(one.kind, one.value.lower()) if one.kind in _HEXADECIMAL else one
            for one in devices
        }
        known: Known = await self.inner.resolve(list(normal.values()))
        found = {one: known[other] for one, other in normal.items() if other in known}
        return await self.answer(list(devices), found)

    def retell(self, unit: StorageUnit) -> StorageUnit:
        shown = _upper(one for one in unit.devices if one.kind is DeviceKind.NAA)
        return replace(unit, devices=(*unit.devices, *shown))


class _OtherArrayInRefs(BrokenDriver):
    """Units are said to lie on the array, their snapshots on one of its controllers."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        return self._out(await self.inner.snapshot_group(request))

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        return [self._out(one) for one in await self.inner.list_snapshots(tag_prefix)]

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        await self.inner.delete_snapshot(self._in(ref))

    async def read_back(self, ref: GroupSnapshotRef, *place: Any) -> bytes:
        data: bytes = await self.inner.read_back(self._in(ref), *place)
        return data

    async def clone(self, ref: GroupSnapshotRef, *what: Any) -> StorageUnit:
        made: StorageUnit = await self.inner.clone(self._in(ref), *what)
        return made

    @staticmethod
    def _out(one: GroupSnapshot) -> GroupSnapshot:
        return replace(one, ref=replace(one.ref, array_id=f"{one.ref.array_id}-controller"))

    @staticmethod
    def _in(ref: GroupSnapshotRef) -> GroupSnapshotRef:
        return replace(ref, array_id=ref.array_id.removesuffix("-controller"))


class _OtherOnSecondConnection(_Changing):
    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.connections = getattr(target, "connections", 0) + 1
        self._first = target.connections == 1

    async def change(self, known: Known) -> Known:
        if self._first:
            return known
        return {one: renamed(unit, f"{unit.id}-b") for one, unit in known.items()}


class _CrossedHandles(BrokenDriver):
    """Alone, each of the last two units is snapshotted by the other's handle on the array."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.crossed = getattr(target, "crossed", set())

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        crossed = await self._crossed(request.unit_ids)
        if len(crossed) == 1 and crossed != request.unit_ids:
            self.target.crossed.add(request.tag)
            request = replace(request, unit_ids=crossed)
        return await self._told(await self.inner.snapshot_group(request))

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        return [await self._told(one) for one in await self.inner.list_snapshots(tag_prefix)]

    async def read_back(self, ref: GroupSnapshotRef, unit_id: str, *place: int) -> bytes:
        data: bytes = await self.inner.read_back(ref, await self._handle(ref, unit_id), *place)
        return data

    async def clone(self, ref: GroupSnapshotRef, unit_id: str, name: str) -> StorageUnit:
        handle = await self._handle(ref, unit_id)
        made: StorageUnit = await self.inner.clone(ref, handle, name)
        return made

    async def _told(self, one: GroupSnapshot) -> GroupSnapshot:
        if one.ref.tag not in self.target.crossed or len(one.unit_ids) > 1:
            return one
        return replace(one, unit_ids=await self._crossed(one.unit_ids))

    async def _handle(self, ref: GroupSnapshotRef, unit_id: str) -> str:
        if ref.tag not in self.target.crossed:
            return unit_id
        (crossed,) = await self._crossed((unit_id,))
        return crossed

    async def _crossed(self, unit_ids: tuple[str, ...]) -> tuple[str, ...]:
        one, other = [unit.unit_id for unit in await self.target.units()][-2:]
        return tuple({one: other, other: one}.get(unit_id, unit_id) for unit_id in unit_ids)


class _CloneAsParent(_Changing):
    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._parents: dict[str, str] = {}

    async def clone(self, ref: GroupSnapshotRef, unit_id: str, name: str) -> StorageUnit:
        made: StorageUnit = await self.inner.clone(ref, unit_id, name)
        self._parents[made.id] = unit_id
        return made

    async def change(self, known: Known) -> Known:
        parents = self._parents
        return {
            one: renamed(unit, parents[unit.id]) if unit.id in parents else unit
            for one, unit in known.items()
        }


_PLAIN: tuple[tuple[str, str, str, Callable[[Any, Any], Any]], ...] = (
    ("eui-unknown", "01", "It does not know units by EUI.", _NoEui),
    (
        "serial-of-neighbour",
        "02",
        "The first serial number leads to the second unit.",
        _SerialOfNeighbour,
    ),
    ("export-as-unit", "03", "An export leads to a unit of its own.", _ExportAsUnit),
    ("file-as-unit", "04", "A file leads to a unit of its own.", _FileAsUnit),
    ("one-identity-per-unit", "05", "It answers one identity a unit.", _OneIdentityPerUnit),
    ("one-unit-per-call", "06", "All that one call names is the first unit.", _OneUnitPerCall),
    ("drops-repeated", "07", "What is named twice is left out.", _DropsRepeated),
    ("answers-more", "08", "It answers with every identity of a unit.", _AnswersMore),
    ("nothing-is-all", "09", "Asked about nothing, it tells all units.", _AnswersNothingWithAll),
    ("any-server", "10", "An export of any server leads to the unit.", _AnyServer),
    ("refuses-local", "11", "It fails when a local disk is among them.", _RefusesLocal),
    ("first-256", "12", "It looks at the first 256 identities.", _First256),
    ("last-digit-ignored", "13", "It does not compare the last digit.", _LastDigitIgnored),
    ("beginnings", "14", "A beginning of an identity is enough.", _Beginnings),
    ("values-only", "15", "It compares values without their kind.", _ValuesOnly),
    ("case-ignored", "16", "It takes /a and /A for one path.", _CaseIgnored),
    ("in-kibibytes", "17", "It tells sizes in KiB.", _InKibibytes),
    ("every-unit-a-lun", "18", "It calls volumes LUNs.", _EveryUnitALun),
    ("controller-in-refs", "19", "Snapshots lie on another array.", _OtherArrayInRefs),
    ("hides-serials", "20", "It knows serial numbers and does not tell them.", _HidesSerials),
    ("in-capitals", "21", "It tells hexadecimal identities in capitals.", _InCapitals),
    ("other-on-second", "22", "Another connection has other units.", _OtherOnSecondConnection),
    ("crossed-handles", "23", "It snapshots another unit alone.", _CrossedHandles),
    ("clone-as-parent", "24", "A clone leads to its parent.", _CloneAsParent),
)

_ALSO = {"in-kibibytes": (("ARR-CLN-02",), "the size of a clone is held against that of its unit")}

CANARIES: tuple[Canary[ArrayTarget], ...] = tuple(
    canary(
        name,
        f"ARR-MAP-{number}",
        sentence,
        wrap,
        also=_ALSO.get(name, ((), ""))[0],
        because=_ALSO.get(name, ((), ""))[1],
    )
    for name, number, sentence, wrap in _PLAIN
)
