"""A hypervisor driver certified by configuration alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support_certify import certified
from support_lab import needs_lab
from support_qemu import DISK_BYTES, fake_host

from stillframe.certify.hypervisor_requirements import HYPERVISOR_REQUIREMENTS
from stillframe.certify.outcome import Verdict
from stillframe.certify.targets.live_hypervisor import LiveHypervisor, LiveHypervisorSettings
from stillframe.errors import StillframeError

PLAIN = {"name": "web-1", "datastores": ["ds1"]}
TRIED = ("HYP-INV-01", "HYP-LIF-03", "HYP-LIF-04", "HYP-ERR-03", "HYP-FLT-06")


def target(folder: Path, **settings: Any) -> LiveHypervisor:
    """A target with these settings and a plain VM."""
    given = {"driver": "qemu", "vms": {"plain": PLAIN}, **settings}
    return LiveHypervisor(LiveHypervisorSettings.model_validate(given), folder, 1)


@needs_lab("qemu")
def test_an_installed_driver_is_certified_without_code() -> None:
    with fake_host() as host:
        vm = host.add("web-1", "ds1")
        asyncio.run(host.up())
        settings = {
            "driver": "qemu",
            "settings": {"guests_folder": str(host.guests)},
            "vms": {"plain": {**PLAIN, "datastores": ["/"], "capacities": [DISK_BYTES]}},
        }
        chosen = [one for one in HYPERVISOR_REQUIREMENTS if one.id in TRIED]
        result = certified(LiveHypervisor, chosen, settings)
        assert vm.overlays() == []
    verdicts = {one.requirement_id: one.verdict for one in result.outcomes}
    assert verdicts.pop("HYP-FLT-06") is Verdict.NOT_TESTED  # it has no command to restart by
    assert len(verdicts) == 4
    assert set(verdicts.values()) == {Verdict.PASS}, result.outcomes


def test_hooks_are_offered_where_there_is_a_command(tmp_path: Path) -> None:
    one = target(tmp_path, commands={"restart": ["true"]})
    assert one.offers("restart")
    assert not one.offers("power_off")
    assert not one.offers("write")


def test_a_command_hears_of_the_vm_and_its_failure_is_told(tmp_path: Path) -> None:
    told = tmp_path / "told"
    say = ["sh", "-c", f'echo "$@" >> {told}', "sh"]
    commands = {
        "power_off": [*say, "off", "{vm}"],
        "migrate": [*say, "move", "{vm}", "to={datastore}"],
        "restart": ["false"],
    }
    one = target(tmp_path, commands=commands)

    async def main() -> None:
        vm = (await one.vms())["plain"]
        await one.power_off(vm)
        await one.migrate(vm, "ds2")
        with pytest.raises(StillframeError, match="`false` failed"):
            await one.restart()

    asyncio.run(main())
    assert told.read_text(encoding="utf-8") == "off web-1\nmove web-1 to=ds2\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"vms": {"off": PLAIN}}, "there is no VM of role plain"),
        ({"vms": {"plain": PLAIN, "fancy": PLAIN}}, "'fancy' is no role"),
        ({"vms": {"plain": {**PLAIN, "capacities": [1, 2]}}}, "not equally many"),
        ({"vms": {"plain": {**PLAIN, "extents": {"ds1": ["who knows"]}}}}, "has no known form"),
        ({"commands": {"write": ["true"]}}, "'write' cannot be a command"),
        ({"commands": {"power_on": ["virsh", "start"]}}, "lacks {vm}"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        target(tmp_path, **settings)
