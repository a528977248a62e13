"""``stillframe estate``: imports, summaries and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.scenarios.generate import GeneratedEstate
from stillframe.topology.estate import dump_estate, load_estate


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["estate", *args])
    assert result.exit_code == code, result.stdout + result.stderr
    return result


def document(*args: str) -> Any:
    return json.loads(invoke(*args, "--json").stdout)


def export(folder: Path) -> None:
    """The smallest export that names VMs, a datastore and its device."""
    folder.mkdir()
    (folder / "RVTools_tabvInfo.csv").write_text(
        "VM,Powerstate,Template,Path,Host,VI SDK Server\n"
        "db-1,poweredOn,False,[ds-1] db-1/db-1.vmx,esx-1,vc-1\n",
        encoding="utf-8",
    )
    (folder / "RVTools_tabvDisk.csv").write_text(
        "VM,Disk,Capacity MiB,Path,Disk Key\ndb-1,Hard disk 1,61440,[ds-1] db-1/db-1.vmdk,2000\n",
        encoding="utf-8",
    )


def test_import_says_what_the_export_lacks_and_keeps_the_estate(here: Path) -> None:
    export(here / "export")
    text = invoke("import", "export", "--out", "estate.yaml").stdout
    assert "1 VM with 1 disk" in text
    assert "What the export does not say" in text
    assert "cannot" in text
    assert [vm.name for vm in load_estate(here / "estate.yaml").inventory.vms] == ["db-1"]
    assert "db-1" not in invoke("show", "estate.yaml").stdout.splitlines()[0]
    found = document("import", "export")
    assert found["statistics"]["vms"] == 1
    assert found["estate"] is None
    assert {finding["severity"] for finding in found["findings"]} >= {"cannot"}


def test_import_replaces_a_file_only_when_told_to(here: Path) -> None:
    export(here / "export")
    (here / "mine.yaml").write_text("mine", encoding="utf-8")
    args = ("import", "export", "--out", "mine.yaml")
    assert "--force" in invoke(*args, code=2).stderr
    assert (here / "mine.yaml").read_text("utf-8") == "mine"
    invoke(*args, "--force")
    assert load_estate(here / "mine.yaml").inventory.vms


def test_show_takes_scenarios_estates_and_exports(here: Path) -> None:
    estate = GeneratedEstate(vms=30, datastores=4, local_datastores=1, local_share=0.2).build()
    (here / "estate.yaml").write_text(dump_estate(estate), encoding="utf-8")
    export(here / "export")
    text = invoke("show", "estate.yaml").stdout
    assert "estate: 30 VMs on 5 datastores" in text
    assert "Components of" in text
    assert "What array snapshots cannot hold" in text
    shown = document("show", "estate.yaml")
    assert shown["counts"]["vms"] == shown["counts"]["selected"] == 30
    assert sum(store["vms"] for store in shown["datastores"]) >= 30
    assert len(shown["units"]) == shown["counts"]["units"] == len(estate.units)
    assert shown["unresolved_devices"] == ["mpx.vmhba0:C0:T0:L0"]
    scenario = document("show", "first-claim")
    assert scenario["counts"]["selected"] == 5
    assert [len(part["vms"]) for part in scenario["components"]] == [3, 2]
    assert "shop-db" in scenario["components"][0]["ties"][0]
    assert document("show", "export")["counts"]["vms"] == 1
    assert sorted(path.name for path in here.iterdir()) == ["estate.yaml", "export"]


def test_show_draws_the_topology(here: Path) -> None:
    text = invoke("show", "first-claim", "--out", "it.png").stdout
    assert text.splitlines()[-1] == "Picture: it.png"
    assert (here / "it.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in here.iterdir()] == ["it.png"]


def test_a_shipped_scenario_is_meant_although_a_folder_has_its_name(here: Path) -> None:
    (here / "demo").mkdir()
    assert "200 VMs" in invoke("show", "demo").stdout
