"""Identity and mapping: the right unit for each identity that a host may know, and no other.

What is asked of the driver here is asked about before anything is snapshotted: a unit that is
mapped wrongly gives a clean image of somebody else's data.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from ...drivers.contracts import GroupSnapshotRef
from ...drivers.records import DeviceIdentity, DeviceKind, UnitKind
from ..array_bench import ArrayBench, BenchUnit
from ..array_target import BLOCK_BYTES
from ..requirement import Level, NotTested, Topic
from .array_common import largest_group
from .array_identities import (
    among_strangers,
    asked_alone,
    described,
    expect_same,
    expect_unit,
    is_nobody,
)
from .array_near_misses import (
    OTHER_KINDS,
    in_other_case,
    local_disks,
    of_other_arrays,
    one_character_off,
    shorter_and_longer,
)

TOPIC: Topic[ArrayBench] = Topic("identity and mapping", "ARR-MAP")

PAGE_83 = frozenset({DeviceKind.NAA, DeviceKind.EUI, DeviceKind.T10})
NUMBERS = frozenset({DeviceKind.SERIAL, DeviceKind.UUID})
MANY = 1000
"""Identities in one question: as many as the datastores of a large estate have extents."""


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall give the unit behind each page-83 identity (NAA, EUI, T10) that hosts know it "
    "by.",
)
async def page_83(bench: ArrayBench) -> None:
    await _leads_to_its_unit(bench, PAGE_83, "a page-83 identity")


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall give the unit behind each serial number and UUID that hosts know it by.",
)
async def serial_numbers(bench: ArrayBench) -> None:
    await _leads_to_its_unit(bench, NUMBERS, "a serial number or UUID")


@TOPIC.shall(
    3, Level.CORE, "A driver shall give the unit behind each NFS export that hosts know it by."
)
async def nfs_exports(bench: ArrayBench) -> None:
    await _leads_to_its_unit(bench, {DeviceKind.NFS}, "an NFS export")


@TOPIC.shall(
    4, Level.CORE, "A driver shall give the unit behind each file that stands for it on a host."
)
async def files(bench: ArrayBench) -> None:
    await _leads_to_its_unit(bench, {DeviceKind.FILE}, "a file")


async def _leads_to_its_unit(bench: ArrayBench, kinds: Iterable[DeviceKind], what: str) -> None:
    wanted = frozenset(kinds)
    asked = [(u, d) for u in bench.units for d in u.scratch.devices if d.kind in wanted]
    if not asked:
        raise NotTested(f"no scratch unit is known to hosts by {what}")
    for unit, device in asked:
        expect_unit(bench, await bench.driver.resolve([device]), device, unit)
    bench.note(identities=[str(device) for _, device in asked])


@TOPIC.shall(
    5,
    Level.CORE,
    "A driver shall give the same unit for all identities of a unit that are asked in one call.",
)
async def several_identities(bench: ArrayBench) -> None:
    several = [unit for unit in bench.units if len(unit.scratch.devices) > 1]
    if not several:
        raise NotTested("every scratch unit is known to hosts by one identity")
    for unit in several:
        alone = await asked_alone(bench, *unit.scratch.devices)
        known = await bench.driver.resolve(list(unit.scratch.devices))
        expect_same(bench, known, alone, "beside other identities")


@TOPIC.shall(
    6,
    Level.CORE,
    "A driver shall give each extent of a datastore on several units its own unit, in one call.",
    units=3,
)
async def several_extents(bench: ArrayBench) -> None:
    alone = await asked_alone(bench, *(unit.scratch.devices[0] for unit in bench.units))
    for order in (list(alone), list(alone)[::-1]):
        known = await bench.driver.resolve(order)
        expect_same(bench, known, alone, "beside those of other units")


@TOPIC.shall(
    7,
    Level.CORE,
    "A driver shall give the same answer for an identity that one call names twice.",
)
async def asked_twice(bench: ArrayBench) -> None:
    for unit in bench.units:
        device = unit.scratch.devices[0]
        alone = await asked_alone(bench, device)
        known = await bench.driver.resolve([device, device])
        expect_same(bench, known, alone, "when it is asked twice")


@TOPIC.shall(
    8, Level.CORE, "A driver shall answer for the identities that are asked, and for no other."
)
async def only_what_is_asked(bench: ArrayBench) -> None:
    for unit in bench.units:
        device = unit.scratch.devices[0]
        known = await bench.driver.resolve([device])
        more = sorted(str(one) for one in known if one != device)
        bench.expect(not more, "it answers for what was not asked", asked=str(device), more=more)


@TOPIC.shall(9, Level.CORE, "A driver shall answer with nothing when it is asked about nothing.")
async def nothing_asked(bench: ArrayBench) -> None:
    known = await bench.driver.resolve([])
    bench.expect(not known, "asked about nothing, it answers", more=sorted(map(str, known)))


@TOPIC.shall(
    10,
    Level.CORE,
    "A driver shall leave out devices of other arrays, and answer for its own among them.",
)
async def other_arrays(bench: ArrayBench) -> None:
    foreign = [*of_other_arrays(bench.rng), *bench.target.foreign_devices()]
    await among_strangers(bench, foreign)


@TOPIC.shall(
    11,
    Level.CORE,
    "A driver shall leave out hosts' local disks, and answer for its own devices among them.",
)
async def host_disks(bench: ArrayBench) -> None:
    await among_strangers(bench, local_disks(bench.rng))


@TOPIC.shall(
    12,
    Level.CORE,
    f"A driver shall answer for its device after {MANY} others that one call names.",
)
async def many_devices(bench: ArrayBench) -> None:
    strangers = [one for _ in range(MANY // 8) for one in of_other_arrays(bench.rng)]
    await among_strangers(bench, strangers, last=True)
    bench.note(identities_in_one_call=len(strangers))


@TOPIC.shall(
    13,
    Level.CORE,
    "A driver shall not take an identity that differs in one character for that of a unit.",
)
async def one_off(bench: ArrayBench) -> None:
    await is_nobody(bench, one_character_off, "differs in one character")


@TOPIC.shall(
    14,
    Level.CORE,
    "A driver shall not take a beginning, an end or a continuation of an identity for that of a "
    "unit.",
)
async def parts(bench: ArrayBench) -> None:
    await is_nobody(bench, shorter_and_longer, "is shorter or longer")


@TOPIC.shall(
    15,
    Level.CORE,
    "A driver shall not take the value of an identity in another name space for that of a unit.",
)
async def other_name_space(bench: ArrayBench) -> None:
    def elsewhere(device: DeviceIdentity, _: random.Random) -> list[DeviceIdentity]:
        others = (kind for kind in OTHER_KINDS if kind is not device.kind)
        return [DeviceIdentity(kind, device.value) for kind in others]

    await is_nobody(bench, elsewhere, "has the same value in another name space")


@TOPIC.shall(
    16,
    Level.CORE,
    "A driver shall tell exports and files apart whose paths differ in the case of letters.",
)
async def case_of_paths(bench: ArrayBench) -> None:
    await is_nobody(bench, in_other_case, "differs in the case of letters")


@TOPIC.shall(
    17, Level.CORE, "A driver shall tell the size of a unit, in bytes, as hosts see it.", units=2
)
async def sizes(bench: ArrayBench) -> None:
    for unit, found in await described(bench):
        begins, size = unit.scratch.begins_bytes, unit.scratch.capacity_bytes
        told = found.capacity_bytes
        # Where hosts reach a part of a unit only, the rest of it may go on behind that.
        right = told == size if not begins else told >= begins + size
        seen = {"begins_bytes": begins, "capacity_bytes": size, "told_bytes": told}
        bench.expect(right, f"unit {found.id} is not of the size that the driver tells", **seen)


@TOPIC.shall(
    18,
    Level.CORE,
    "A driver shall call a unit that hosts know by an NFS export a volume, and one that they know "
    "by a page-83 identity a LUN.",
)
async def kinds(bench: ArrayBench) -> None:
    seen: set[UnitKind] = set()
    for unit, found in await described(bench):
        known_by = {device.kind for device in unit.scratch.devices}
        if DeviceKind.NFS in known_by:
            wanted = UnitKind.NFS_VOLUME
        elif known_by & PAGE_83:
            wanted = UnitKind.LUN
        else:
            continue
        seen.add(wanted)
        bench.expect(found.kind is wanted, f"{unit.scratch.devices[0]} is called {found.kind}")
    if not seen:
        raise NotTested("no scratch unit is known to hosts by an export or a page-83 identity")
    bench.note(kinds=sorted(kind.value for kind in seen))


@TOPIC.shall(
    19,
    Level.CORE,
    "A driver shall give its units identifiers that differ, and one array, which its snapshots "
    "name too.",
    units=2,
)
async def identifiers(bench: ArrayBench) -> None:
    found = [one for _, one in await described(bench)]
    ids, arrays = [one.id for one in found], {one.array_id for one in found}
    bench.expect(len(set(ids)) == len(ids), "two units have the same identifier", ids=ids)
    bench.expect(all(ids) and all(arrays), "an identifier is empty", ids=ids, arrays=sorted(arrays))
    bench.expect(len(arrays) == 1, "its units lie on several arrays", arrays=sorted(arrays))
    named = (await bench.cut(bench.units[0])).ref.array_id
    bench.expect({named} == arrays, f"units lie on {min(arrays)}, and a snapshot on {named}")


@TOPIC.shall(
    20, Level.CORE, "A driver shall tell with a unit every identity by which it answers for it."
)
async def told_identities(bench: ArrayBench) -> None:
    for unit in bench.units:
        own = unit.scratch.devices
        # One by one: a driver may make the record for the identity that was asked.
        for device in own:
            known = await bench.setup(bench.driver.resolve([device]), "resolving")
            for one in known.values():
                bench.expect(device in one.devices, f"unit {one.id} is not said to have {device}")
                more = [other for other in one.devices if other not in own]
                if more:
                    again = await bench.driver.resolve(more)
                    how = f"though it is told with {device}"
                    expect_same(bench, again, dict.fromkeys(more, one.id), how)


@TOPIC.shall(
    21,
    Level.CORE,
    "A driver shall tell identities in their normal form: hexadecimal and server names in lower "
    "case, an export without a slash at its end.",
)
async def normal_form(bench: ArrayBench) -> None:
    for _, found in await described(bench):
        for device in found.devices:
            normal = DeviceIdentity.parse(str(device))
            bench.expect(device == normal, f"{device} is not told in its normal form, {normal}")


@TOPIC.shall(
    22,
    Level.CORE,
    "A driver shall give the same unit for an identity on every connection, and after snapshots "
    "came and went.",
    units=2,
)
async def every_connection(bench: ArrayBench) -> None:
    devices = [unit.scratch.devices[0] for unit in bench.units]
    alone = await asked_alone(bench, *devices)
    made = await bench.cut(bench.units[0])
    async with bench.another_driver() as other:
        for device, unit_id in alone.items():
            known = await other.resolve([device])
            expect_same(bench, known, {device: unit_id}, "on another connection")
    await bench.delete(made.ref)
    again = await asked_alone(bench, *devices)
    bench.expect(again == alone, "identities lead elsewhere after a snapshot came and went")


@TOPIC.shall(
    23,
    Level.DATA,
    "A driver shall snapshot under a unit's identifier what hosts write under the unit's identity.",
    capability="reads_back",
    units=3,
)
async def what_hosts_write(bench: ArrayBench) -> None:
    offset_bytes = bench.block()
    stamps = {unit.id: bench.random_bytes(BLOCK_BYTES) for unit in bench.units}
    for unit in bench.units:
        await bench.write(unit, offset_bytes, stamps[unit.id])
    step = largest_group(bench)
    for start in range(0, len(bench.units), step):
        group = bench.units[start : start + step]
        made = await bench.cut(*group)
        for unit in group:
            held = await _held(bench, made.ref, unit, offset_bytes)
            others = [name for name, stamp in stamps.items() if stamp == held and name != unit.id]
            if others:
                where = unit.scratch.devices[0]
                bench.expect(False, f"{where} leads to {unit.id}, which is {others[0]} to hosts")
            bench.compare(held, stamps[unit.id], f"the snapshot of {unit.id}")


async def _held(
    bench: ArrayBench, ref: GroupSnapshotRef, unit: BenchUnit, offset_bytes: int
) -> bytes:
    return await bench.held(ref, unit, offset_bytes, BLOCK_BYTES)


@TOPIC.shall(
    24,
    Level.CORE,
    "A driver shall not take a clone for the unit that it was made from.",
    capability="clones",
)
async def clones(bench: ArrayBench) -> None:
    unit = bench.units[0]
    before = await asked_alone(bench, *unit.scratch.devices)
    made = await bench.cut(unit)
    clone = await bench.clone(made.ref, unit, "mapped")
    if not clone.devices:
        raise NotTested("the clone has no identity")
    own = {one.id for one in bench.units}
    bench.expect(clone.id not in own, f"the clone has the identifier of a unit, {clone.id}")
    for device in clone.devices:
        found = (await bench.driver.resolve([device])).get(device)
        right = found is None or found.id == clone.id
        bench.expect(right, f"{device} is a clone's, and leads to {found.id if found else ''}")
    again = await asked_alone(bench, *unit.scratch.devices)
    bench.expect(again == before, "identities of the unit lead elsewhere when it has a clone")
