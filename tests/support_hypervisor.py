"""A modelled hypervisor with one VM, and what the tests of it share."""

from __future__ import annotations

from typing import Any

import pytest
from support_world import Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import VmSnapshot
from stillframe.drivers.errors import DriverError

SILENT = {"dirty_age": 0}
"""A guest rule: nothing dirty, so that a freeze is its call alone."""
WINDOWS = "Microsoft Windows Server 2022 (64-bit)"


def bench(*, guest_os: str = "Linux", guest: dict[str, Any] | None = None, **how: Any) -> Bench:
    return Bench(
        estate(vm("a", disk(1, "ds1"), guest_os=guest_os)), config(guest=guest or SILENT, **how)
    )


def create(b: Bench, **more: Any) -> VmSnapshot:
    answer: VmSnapshot = b.go(lambda: b.vc.create_snapshot(request(**more)))
    return answer


def refused(b: Bench, kind: type[DriverError], **more: Any) -> DriverError:
    """A create that fails in this way and leaves nothing behind."""
    with pytest.raises(kind) as caught:
        create(b, **more)
    assert b.world.leftovers() == []
    assert b.world.in_flight == 0
    return caught.value
