"""An array as a target by configuration alone: what is asked of it, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support_lab import needs_lab, short_folder

from stillframe.certify.array_suite import certify_array
from stillframe.certify.effort import EFFORTS
from stillframe.certify.outcome import SuiteResult, Verdict
from stillframe.certify.running import SuiteOptions
from stillframe.certify.targets.live_array import LiveArray, LiveArraySettings
from stillframe.errors import InputError, StillframeError
from stillframe.lab.backend_xfs import XfsBackend

UNIT_BYTES = 16 << 20


def settings(files: list[Path], **more: Any) -> dict[str, Any]:
    """Of an XFS pool whose units are these files."""
    units = [
        {"devices": [f"file.{file}"], "path": str(file), "capacity": f"{UNIT_BYTES} B"}
        for file in files
    ]
    pool = {"pool_folder": str(files[0].parent), "unheld": "allow"}
    return {"driver": "xfs-reflink", "settings": pool, "units": units, **more}


def target(given: dict[str, Any], folder: Path) -> LiveArray:
    return LiveArray(LiveArraySettings.model_validate(given), folder, 1)


async def certified(folder: Path, *only: str, **more: Any) -> SuiteResult:
    """The kit on a pool that is there already."""
    backend = XfsBackend(folder / "array", 3, UNIT_BYTES)
    files = await backend.up()
    try:
        made = target(settings(files, **more), folder)
        effort = EFFORTS["quick"]
        return await certify_array(
            made, SuiteOptions(run="live", effort=effort, only=frozenset(only))
        )
    finally:
        await backend.down()


@needs_lab("root", "xfs", "loop")
def test_an_array_is_certified_by_configuration_alone() -> None:
    with short_folder("live") as folder:
        only = ("ARR-MAP-04", "ARR-MAP-17", "ARR-LIF-01", "ARR-DAT-01", "ARR-GRP-02", "ARR-LIF-03")
        result = asyncio.run(certified(folder, *only))
    verdicts = {one.requirement_id: one.verdict for one in result.outcomes}
    assert verdicts.pop("ARR-LIF-03") is Verdict.NOT_TESTED  # no command tells of the device
    assert verdicts.pop("ARR-GRP-02") is Verdict.ABSENT  # with unheld: allow nothing is claimed
    assert verdicts == dict.fromkeys(verdicts, Verdict.PASS)
    assert result.driver.endswith("XfsReflinkDriver")
    assert result.hooks == ()


@needs_lab("root", "xfs", "loop")
def test_a_command_is_a_hook() -> None:
    with short_folder("live") as folder:
        pool = folder / "array" / "pool" / ".stillframe"
        look = ["find", str(pool), "-path", "*/units/*", "-printf", "%p\\n"]
        commands = {"snapshots_on_device": look}
        result = asyncio.run(certified(folder, "ARR-LIF-03", commands=commands))
        (outcome,) = result.outcomes
        assert (outcome.verdict, result.hooks) == (Verdict.PASS, ("snapshots_on_device",))


def test_what_is_wrong_with_the_settings_is_named(tmp_path: Path) -> None:
    files = [tmp_path / f"unit-{number}" for number in range(3)]
    right = settings(files)
    assert len(LiveArraySettings.model_validate(right).units) == 3
    for field, wrong, said in (
        ("units", right["units"][:2], "at least 3"),
        ("units", [{**right["units"][0], "devices": ["naa"]}] * 3, "no known form"),
        ("units", [{**right["units"][0], "devices": []}] * 3, "at least 1"),
        ("foreign", ["disk 7"], "no known form"),
        ("commands", {"unplug": ["true"]}, "'unplug' cannot be a command"),
        ("commands", {"restart": []}, "at least 1"),
    ):
        with pytest.raises(ValidationError, match=said):
            LiveArraySettings.model_validate(right | {field: wrong})


def test_a_unit_or_driver_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    files = [tmp_path / f"unit-{number}" for number in range(3)]
    for file in files[:2]:
        file.touch()
    with pytest.raises(InputError, match=r"units\.2\.path.*there is no"):
        asyncio.run(target(settings(files), tmp_path).units())
    with pytest.raises(StillframeError, match="there is no driver 'acme'"):
        target(settings(files, driver="acme"), tmp_path).connect()
