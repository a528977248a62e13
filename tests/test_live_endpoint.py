"""The commands against a vCenter API that is not ours: pull, rehearse, plan, run, compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_vsim import Vsim, lun, small_inventory
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.reports.folder import read_folder
from stillframe.topology.estate import load_estate


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vsim]:
    """Six VMs on three datastores, two of them with a snapshot of somebody else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLFRAME_VSPHERE_PASSWORD", Vsim.password)
    with Vsim(small_inventory(foreign=2)) as vsim:
        yield vsim


def config(vsim: Vsim, **changes: Any) -> str:
    """A configuration: the endpoint, and a modelled array over its LUNs."""
    units = [{"name": f"lun-{n}", "capacity": "1 TiB", "devices": [lun(n)]} for n in range(3)]
    quick = {"profile": "row-flash", "management_latency": "1 ms", "snapshot_base": "5 ms",
             "fence_base": "5 ms"}  # fmt: skip
    system = {"driver": "vsphere", "host": vsim.host, "port": vsim.port, "user": vsim.user,
              "ca_file": vsim.ca_file, "poll_interval": "20 ms"}  # fmt: skip
    data: dict[str, Any] = {
        "name": "tonight",
        "hypervisors": {"vc": system | changes.pop("system", {})},
        "arrays": {"a1": {"driver": "modelled-array", "profile": quick, "units": units}},
        "job": {"quiesce": {"timeout": "5 min"}, "timeouts": {"settle": "5 s"}},
    }
    file = Path("live.yaml")
    file.write_text(yaml.safe_dump(data | changes), encoding="utf-8")
    return str(file)


def invoke(*args: str, code: int = 0) -> Any:
    """Run a command and expect this exit code."""
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == code, result.stdout + result.stderr
    return result


def test_a_night_from_pull_to_comparison(endpoint: Vsim) -> None:
    target = f"{endpoint.host}:{endpoint.port}"
    login = ("--user", endpoint.user, "--ca-file", endpoint.ca_file)
    pulled = invoke("estate", "pull", "--vcenter", target, *login, "--out", "estate.yaml", "--json")
    assert json.loads(pulled.stdout)["statistics"]["protectable_vms"] == 6
    estate = load_estate("estate.yaml")
    assert sorted(str(unit.devices[0]) for unit in estate.units) == [lun(n) for n in range(3)]
    assert "6 VMs on 3 datastores" in invoke("estate", "show", "estate.yaml").stdout

    file = config(endpoint)
    assert "Nothing was touched" in invoke("plan", "--live", file).stdout
    assert not any("CreateSnapshot" in method for method in endpoint.calls())
    invoke("rehearse", file, "--estate", "estate.yaml", "--replications", "2")

    invoke("run", "--live", file, "--out", "result")
    run = read_folder(Path("result"))
    assert run.vms["status"].to_list() == ["protected"] * 6
    assert run.meta["live"]["hypervisors"] == {"vc": "vsphere"}
    assert run.vms["stun_create_s"].null_count() == 6
    left = json.loads(
        invoke("estate", "pull", "--vcenter", target, *login, "--json").stdout
    )["findings"]  # fmt: skip
    assert any(one["sentence"].startswith("2 VMs") and "snapshots already" in one["sentence"]
               for one in left)  # fmt: skip

    compared = invoke("rehearse", "--compare", "out/tonight.prediction.json", "result", "--json")
    clocks = {one["clock"]: one for one in json.loads(compared.stdout)["clocks"]}
    assert clocks["open_s"]["measured"]["count"] == 6
    assert clocks["open_s"]["predicted"]["count"] == 12
    assert clocks["stun_create_s"]["measured"]["p50_s"] is None


def test_a_wrong_password_is_one_line_and_never_shown(
    endpoint: Vsim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFRAME_VSPHERE_PASSWORD", "hunter2")
    result = invoke("run", "--live", config(endpoint), code=3)
    (line,) = result.stderr.splitlines()
    assert "vc" in line
    assert "hunter2" not in line
    assert not Path("out").exists()


def test_settings_of_the_driver_are_refused_with_file_and_field(endpoint: Vsim) -> None:
    for system, told in (
        ({"poll_interval": "soon"}, "hypervisors.vc.poll_interval: "),
        ({"ca_file": "live.yaml"}, "hypervisors.vc.ca_file: "),
        ({"hots": "x"}, "hypervisors.vc.hots: "),
    ):
        (line,) = invoke(
            "run", "--live", config(endpoint, system=system), code=2
        ).stderr.splitlines()  # fmt: skip
        assert line.startswith(f"stillframe: live.yaml: {told}")
        assert not Path("out").exists()
