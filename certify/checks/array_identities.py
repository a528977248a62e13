"""What the checks of mapping ask a driver about the identities of the scratch units."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from ...drivers.records import DeviceIdentity, StorageUnit, UnitId
from ..array_bench import ArrayBench, BenchUnit
from ..requirement import Blocked, NotTested

NearMisses = Callable[[DeviceIdentity, random.Random], Iterable[DeviceIdentity]]
"""Identities that look like one, made with the check's own choices."""


def expect_unit(
    bench: ArrayBench,
    known: Mapping[DeviceIdentity, StorageUnit],
    device: DeviceIdentity,
    unit: BenchUnit,
) -> None:
    """The driver breaks the requirement unless an answer gives this unit for the identity."""
    found = known.get(device)
    if found is None:
        bench.expect(False, f"{device} is left out, and is unit {unit.id}")
    else:
        bench.expect(found.id == unit.id, f"{device} leads to {found.id} instead of {unit.id}")


async def described(bench: ArrayBench) -> list[tuple[BenchUnit, StorageUnit]]:
    """Each unit with what the driver says of it when asked by its first identity."""
    pairs = []
    for unit in bench.units:
        device = unit.scratch.devices[0]
        known = await bench.setup(bench.driver.resolve([device]), "resolving")
        if device not in known:
            raise Blocked(f"{device} leads to no unit")
        pairs.append((unit, known[device]))
    return pairs


async def asked_alone(bench: ArrayBench, *devices: DeviceIdentity) -> dict[DeviceIdentity, UnitId]:
    """The unit behind each identity when one call asks for nothing else; unknown ones left out."""
    found = {}
    for device in devices:
        known = await bench.setup(bench.driver.resolve([device]), "resolving")
        if device in known:
            found[device] = known[device].id
    if not found:
        raise Blocked(f"{', '.join(map(str, devices))} lead to no unit")
    return found


def expect_same(
    bench: ArrayBench,
    known: Mapping[DeviceIdentity, StorageUnit],
    alone: Mapping[DeviceIdentity, UnitId],
    how: str,
) -> None:
    """The driver breaks the requirement unless identities lead where they lead when asked alone."""
    for device, unit_id in alone.items():
        found = known.get(device)
        name = "no unit" if found is None else f"unit {found.id}"
        sentence = f"{device} is {name} {how}, and unit {unit_id} when it is asked alone"
        bench.expect(name == f"unit {unit_id}", sentence)


async def among_strangers(
    bench: ArrayBench, strangers: Sequence[DeviceIdentity], *, last: bool = False
) -> None:
    """One call names an identity of a scratch unit among others: only that one is answered.

    Parameters
    ----------
    last:
        Whether it comes after all others; anywhere among them if not.
    """
    for unit in bench.units:
        alone = await asked_alone(bench, *unit.scratch.devices)
        device = bench.rng.choice(sorted(alone))
        asked = list(strangers)
        bench.rng.shuffle(asked)
        asked.insert(len(asked) if last else bench.rng.randint(0, len(asked)), device)
        known = await bench.driver.resolve(asked)
        wrong = [str(one) for one in strangers if one in known]
        bench.expect(not wrong, "it answers for devices that are not on the array", answered=wrong)
        expect_same(bench, known, {device: alone[device]}, f"among {len(asked)} that are asked")


async def is_nobody(bench: ArrayBench, others: NearMisses, how: str) -> None:
    """Identities that no unit has, made from those that units have, lead to none of them."""
    told = await _told(bench)
    asked: dict[DeviceIdentity, DeviceIdentity] = {}
    for unit in bench.units:
        for device in unit.scratch.devices:
            for other in others(device, bench.rng):
                if other not in told:
                    asked[other] = device
    if not asked:
        raise NotTested("no scratch unit has an identity of such a form")
    known = await bench.driver.resolve(list(asked))
    ours = {unit.id for unit in bench.units}
    for device, found in known.items():
        # A neighbour on the array may really have it: then it is no scratch unit, and says so.
        right = found.id not in ours and device in found.devices
        sentence = f"{device} {how} and leads to unit {found.id}"
        bench.expect(right, sentence, asked=str(device), of_the_unit=str(asked.get(device)))
    bench.note(identities=len(asked))


async def _told(bench: ArrayBench) -> set[DeviceIdentity]:
    """Every identity that a scratch unit is known to have."""
    own = {device for unit in bench.units for device in unit.scratch.devices}
    known = await bench.setup(bench.driver.resolve(list(own)), "resolving")
    return own | {device for unit in known.values() for device in unit.devices}
