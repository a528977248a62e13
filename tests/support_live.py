"""Live jobs of tests: the endpoint as vCenter, a modelled array in real time beside it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_vsim import Vsim, lun
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from stillframe.drivers.vsphere_settings import PASSWORD_ENV
from stillframe.sim import realtime
from stillframe.sim.array import ModelArray

PROMPT = {
    "management_latency": "10 ms",
    "snapshot_base": "50 ms",
    "fence_base": "20 ms",
    "delete_latency": "50 ms",
}
"""An array that answers soon: these tests wait in real time."""
Hook = Callable[[GroupSnapshotRequest], Awaitable[None]]


@dataclass
class ArrayLog:
    """What modelled arrays of jobs hold, and what is to happen just before one cuts."""

    held: dict[str, set[str]] = field(default_factory=dict)
    """Names of the units in each group snapshot that exists, by its tag."""
    cuts: list[GroupSnapshotRequest] = field(default_factory=list)
    before_cut: Hook | None = None


@pytest.fixture
def array_log(monkeypatch: pytest.MonkeyPatch) -> ArrayLog:
    """Watches every array that the driver ``modelled-array`` opens from now on."""
    log = ArrayLog()

    class Watched(ModelArray):
        """The model itself; it also notes what it is asked for."""

        async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
            log.cuts.append(request)
            if log.before_cut is not None:
                await log.before_cut(request)
            made = await super().snapshot_group(request)
            log.held[made.ref.tag] = {unit.partition("/")[2] for unit in made.unit_ids}
            return made

        async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
            await super().delete_snapshot(ref)
            del log.held[ref.tag]

    monkeypatch.setattr(realtime, "ModelArray", Watched)
    return log


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as working directory, with the endpoint's password in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PASSWORD_ENV, Vsim.password)
    return tmp_path


def configure(
    vsim: Vsim,
    job: Mapping[str, Any],
    *,
    luns: int,
    vcenter: Mapping[str, Any] | None = None,
    others: Sequence[Vsim] = (),
) -> Path:
    """A live configuration on an endpoint and one array that holds all its LUNs.

    ``vcenter`` are settings to add or replace; ``others`` are further vCenters on the same array.
    """
    hypervisors = {"vc": {**_reach(vsim), **(vcenter or {})}}
    hypervisors.update({f"vc-{i}": _reach(other) for i, other in enumerate(others, 2)})
    config = {
        "name": "live-test",
        "hypervisors": hypervisors,
        "arrays": {
            "array-1": {
                "driver": "modelled-array",
                "profile": PROMPT,
                "units": [
                    {"name": f"lun-{i}", "capacity": "10 TiB", "devices": [lun(i)]}
                    for i in range(luns)
                ],
            }
        },
        "job": dict(job),
    }
    path = Path("live.yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def _reach(vsim: Vsim) -> dict[str, Any]:
    return {
        "driver": "vsphere",
        "host": vsim.host,
        "port": vsim.port,
        "ca_file": vsim.ca_file,
        "user": vsim.user,
    }


@dataclass
class Ran:
    """A finished ``stillframe run --live``."""

    code: int
    stdout: str
    stderr: str
    exception: BaseException | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The JSON that it wrote."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed

    def vm(self, name: str) -> dict[str, Any]:
        """What the report says about a VM."""
        return next(vm for vm in self.document["vms"] if vm["name"] == name)


def run_job(config: Path, *options: str) -> Ran:
    """Run a live job as the command line does."""
    result = CliRunner().invoke(app, ["run", "--live", str(config), "--json", *options])
    return Ran(result.exit_code, result.stdout, result.stderr, result.exception)
