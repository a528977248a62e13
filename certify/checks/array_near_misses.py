"""Identities that look like those of units and are not: what a careless comparison mixes up."""

from __future__ import annotations

import random
import string

from ...drivers.records import DeviceIdentity, DeviceKind

OTHER_KINDS = (
    DeviceKind.NAA,
    DeviceKind.EUI,
    DeviceKind.T10,
    DeviceKind.UUID,
    DeviceKind.SERIAL,
)
"""The name spaces of devices whose values are not paths."""

_HEXADECIMAL = frozenset({DeviceKind.NAA, DeviceKind.EUI, DeviceKind.UUID})
_PATHS = frozenset({DeviceKind.NFS, DeviceKind.FILE})
_PLACES = 6
"""Characters that are changed in each identity, one at a time, the last one always."""


def of_other_arrays(rng: random.Random) -> list[DeviceIdentity]:
    """One made-up identity of each name space that arrays use; no system has them."""

    def word(length: int) -> str:
        return "".join(rng.choices("0123456789abcdef", k=length))

    uuid = "-".join(word(length) for length in (8, 4, 4, 4, 12))
    return [
        DeviceIdentity(DeviceKind.NAA, f"6{word(31)}"),
        DeviceIdentity(DeviceKind.NAA, f"5{word(15)}"),
        DeviceIdentity(DeviceKind.EUI, word(16)),
        DeviceIdentity(DeviceKind.T10, f"NOBODY  {word(16)}"),
        DeviceIdentity(DeviceKind.UUID, uuid),
        DeviceIdentity(DeviceKind.SERIAL, word(20)),
        DeviceIdentity(DeviceKind.NFS, f"{word(8)}.invalid:/export/{word(8)}"),
        DeviceIdentity(DeviceKind.FILE, f"/nowhere/{word(8)}/unit-0"),
    ]


def local_disks(rng: random.Random) -> list[DeviceIdentity]:
    """Names of disks that are inside hosts."""
    return [
        DeviceIdentity(DeviceKind.LOCAL, f"vmhba{rng.randrange(8)}:C0:T{target}:L0")
        for target in range(3)
    ]


def one_character_off(device: DeviceIdentity, rng: random.Random) -> list[DeviceIdentity]:
    """The identity with one character changed: the last, and some others."""
    # The server of an export may well have several names.
    first = device.value.index("/") if device.kind in _PATHS else 0
    places = [at for at in range(first, len(device.value)) if device.value[at].isalnum()]
    chosen = {*places[-1:], *rng.sample(places, min(_PLACES - 1, len(places)))}
    letters = string.digits + ("abcdef" if device.kind in _HEXADECIMAL else "abcdefghij")
    found = []
    for at in sorted(chosen):
        other = rng.choice([one for one in letters if one != device.value[at].lower()])
        found.append(
            DeviceIdentity(device.kind, device.value[:at] + other + device.value[at + 1 :])
        )
    return found


def shorter_and_longer(device: DeviceIdentity, rng: random.Random) -> list[DeviceIdentity]:
    """Beginnings and ends of the identity, and the identity with characters before and behind."""
    value, more = device.value, rng.choice("0123456789")
    found = {value[:-1], value[: len(value) // 2], value + more, value + more + more}
    if device.kind not in _PATHS:
        found |= {value[1:], value[len(value) // 2 :], more + value}
    return [DeviceIdentity(device.kind, one) for one in sorted(found) if one and one != value]


def in_other_case(device: DeviceIdentity, _: random.Random) -> list[DeviceIdentity]:
    """An export or a file whose last name is written in the other case; none without letters."""
    if device.kind not in _PATHS:
        return []
    head, separator, name = device.value.rpartition("/")
    found = {head + separator + other for other in (name.swapcase(), name.upper(), name.title())}
    return [DeviceIdentity(device.kind, one) for one in sorted(found - {device.value})]
