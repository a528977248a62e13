"""Mapping: the reference passes, every canary fails, near misses are misses and near."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from support_certify_topics import KINDS, NAMES, expect_caught, outcomes, reasons

from stillframe.certify.array_target import ArrayTarget, ScratchUnit
from stillframe.certify.canaries.array_mapping import CANARIES
from stillframe.certify.canary import BrokenDriver, Canary, with_driver
from stillframe.certify.checks.array_near_misses import (
    in_other_case,
    local_disks,
    of_other_arrays,
    one_character_off,
    shorter_and_longer,
)
from stillframe.certify.outcome import Verdict
from stillframe.certify.targets.modelled_array import RedirectOnWriteArray
from stillframe.drivers.records import DeviceIdentity, DeviceKind, StorageUnit

IDENTITIES = [
    DeviceIdentity.parse(text)
    for text in (
        "naa.6000eb36000000000000000000000001",
        "eui.eb36000000000001",
        "t10.ACME    LUN 17",
        "uuid.5f0c1b1e-0000-4000-8000-000000000001",
        "serial.A1",
        "filer-a.example:/vol/7",
        "file./pool/unit-0",
    )
]
Known = Mapping[DeviceIdentity, StorageUnit]


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_maps_as_it_shall(kind: type[ArrayTarget], seed: int) -> None:
    found = outcomes(kind, "ARR-MAP", seed=seed)
    assert len(found) == 24
    assert reasons(found, Verdict.PASS) == {}
    assert found["ARR-MAP-23"].compared_bytes == 5 * 4096


@pytest.mark.parametrize("canary", CANARIES, ids=[one.id for one in CANARIES])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_every_canary_fails_its_requirement(
    kind: type[ArrayTarget], canary: Canary[ArrayTarget]
) -> None:
    expect_caught(kind, canary)


# -- near misses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", IDENTITIES, ids=str)
def test_one_character_off_differs_in_one_character_and_once_in_the_last(
    device: DeviceIdentity,
) -> None:
    made = one_character_off(device, random.Random(1))
    assert len(made) >= 2
    lasts = 0
    for other in made:
        pairs = list(zip(device.value, other.value, strict=True))
        (at,) = [at for at, (one, two) in enumerate(pairs) if one != two]
        lasts += at == len(pairs) - 1
        assert other.kind is device.kind
        assert DeviceIdentity.parse(str(other)) == other
        if device.kind in (DeviceKind.NFS, DeviceKind.FILE):
            assert at > device.value.index("/")
    assert lasts == 1


@pytest.mark.parametrize("device", IDENTITIES, ids=str)
def test_parts_are_beginnings_ends_or_continuations(device: DeviceIdentity) -> None:
    made = shorter_and_longer(device, random.Random(1))
    values = [other.value for other in made]
    assert device.value not in values
    assert all(device.value in value or value in device.value for value in values)
    assert any(device.value.startswith(value) for value in values)
    assert any(value.startswith(device.value) for value in values)
    inside = [value for value in values if value.startswith(f"{device.value}/")]
    assert not inside  # what lies in an export may well belong to the unit


@pytest.mark.parametrize("device", IDENTITIES, ids=str)
def test_other_case_is_of_paths_alone(device: DeviceIdentity) -> None:
    made = in_other_case(device, random.Random(1))
    assert bool(made) is (device.kind is DeviceKind.FILE)  # the export ends in a digit
    assert all(other.value.lower() == device.value.lower() for other in made)
    assert device not in made


def test_strangers_are_of_every_kind_and_never_the_same() -> None:
    rng = random.Random(1)
    first, second = of_other_arrays(rng), of_other_arrays(rng)
    assert {one.kind for one in first} == set(DeviceKind) - {DeviceKind.LOCAL}
    assert not set(first) & set(second)
    assert {one.kind for one in local_disks(rng)} == {DeviceKind.LOCAL}
    assert all(DeviceIdentity.parse(str(one)) == one for one in (*first, *second))


class Neighbour(BrokenDriver):
    """The array has a unit for every NAA identity that nobody else has."""

    says_so = True

    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        """As the driver does, and the neighbours."""
        known: Known = await self.inner.resolve(devices)
        mine = next(iter(known.values()), None) or await self._any()
        more = {
            one: replace(mine, id=f"near/{one.value}", devices=(one,) if self.says_so else ())
            for one in devices
            if one.kind is DeviceKind.NAA and one not in known
        }
        return dict(known) | more

    async def _any(self) -> StorageUnit:
        known: Known = await self.inner.resolve([IDENTITIES[0]])
        return next(iter(known.values()))


class SecretNeighbour(Neighbour):
    """It does not say that they have the identity."""

    says_so = False


@pytest.mark.parametrize(("driver", "met"), [(Neighbour, True), (SecretNeighbour, False)])
def test_a_neighbour_that_really_has_the_identity_is_no_mistake(driver: Any, met: bool) -> None:
    kind = with_driver(driver)(RedirectOnWriteArray)
    found = outcomes(kind, "ARR-MAP-13", "ARR-MAP-14")
    assert {one.verdict is Verdict.PASS for one in found.values()} == {met}


# -- what a target does not show -------------------------------------------------------------------


class FewIdentities(RedirectOnWriteArray):
    """Units that hosts know by one page-83 identity, and nobody has the array's identifiers."""

    async def units(self) -> Sequence[ScratchUnit]:
        """The LUNs only."""
        luns = list(await super().units())[:4]
        return [replace(one, devices=one.devices[:1], unit_id=None) for one in luns]

    @staticmethod
    def _id(unit: ScratchUnit) -> str:
        return f"modelled/lun-{int(unit.devices[0].value[-1])}"


def test_what_a_target_has_not_is_not_tested() -> None:
    found = outcomes(FewIdentities, "ARR-MAP")
    assert reasons(found, Verdict.PASS) == {
        "ARR-MAP-02": "no scratch unit is known to hosts by a serial number or UUID",
        "ARR-MAP-03": "no scratch unit is known to hosts by an NFS export",
        "ARR-MAP-04": "no scratch unit is known to hosts by a file",
        "ARR-MAP-05": "every scratch unit is known to hosts by one identity",
        "ARR-MAP-16": "no scratch unit has an identity of such a form",
    }
    assert all(one.verdict in (Verdict.PASS, Verdict.NOT_TESTED) for one in found.values())


class Permuted(BrokenDriver):
    """Every identity of one unit leads to another, always."""

    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Known:
        """Units 0 and 1 the other way round."""
        known: Known = await self.inner.resolve(devices)
        names = {"modelled/lun-0": "modelled/lun-1", "modelled/lun-1": "modelled/lun-0"}
        return {
            one: replace(unit, id=names.get(unit.id, unit.id), devices=(one,))
            for one, unit in known.items()
        }


def test_a_mapping_that_is_wrong_throughout_shows_in_the_data() -> None:
    found = outcomes(with_driver(Permuted)(FewIdentities), "ARR-MAP")
    (wrong,) = reasons(found, Verdict.PASS, Verdict.NOT_TESTED).items()
    device = DeviceIdentity(DeviceKind.NAA, f"6000eb36{0:024x}")
    reason = f"{device} leads to modelled/lun-1, which is modelled/lun-0 to hosts"
    assert wrong == ("ARR-MAP-23", reason)


class PartOfAUnit(FewIdentities):
    """Hosts reach what lies behind the first MiB of each unit."""

    async def units(self) -> Sequence[ScratchUnit]:
        """Parts."""
        begins = 1 << 20
        whole = await super().units()
        return [
            replace(one, begins_bytes=begins, capacity_bytes=one.capacity_bytes - 2 * begins)
            for one in whole
        ]

    async def write(self, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
        """Behind the beginning."""
        await super().write(unit, unit.begins_bytes + offset_bytes, data)

    async def read(self, unit: ScratchUnit, offset_bytes: int, length_bytes: int) -> bytes:
        """Behind the beginning."""
        return await super().read(unit, unit.begins_bytes + offset_bytes, length_bytes)


def test_hosts_may_reach_a_part_of_a_unit_only() -> None:
    found = outcomes(PartOfAUnit, "ARR-MAP", "ARR-ERR", "ARR-ASK")
    assert reasons(found, Verdict.PASS, Verdict.NOT_TESTED) == {}
    assert found["ARR-MAP-17"].verdict is Verdict.PASS
    assert found["ARR-ERR-07"].verdict is Verdict.PASS
