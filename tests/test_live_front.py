"""The front door on live systems: run, plan, pull and rehearse, over drivers in memory."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from support_jobs import FOREIGN
from support_memory import GIB, Fault, Faults, MemoryArray, MemoryHypervisor, small_estate
from support_rvtools import complete, write_xlsx
from test_cli_bad_input import tree
from typer.testing import CliRunner

from stillframe import live
from stillframe.cli import app
from stillframe.drivers import registry
from stillframe.drivers.contracts import MergeResult, VmSnapshotRef, VmSnapshotRequest
from stillframe.drivers.errors import DidNotHappenError, NeverWillError
from stillframe.drivers.records import DeviceIdentity, Estate, Inventory
from stillframe.errors import InputError, StillframeError
from stillframe.reports import folder
from stillframe.reports.figures import draw_all
from stillframe.reports.folder import read_folder
from stillframe.topology.estate import load_estate


class Hypervisor(MemoryHypervisor):
    """One that can tell what hosts say of devices, and lets a test in at every removal."""

    facts: Mapping[DeviceIdentity, tuple[str, str, bool]] = {}
    on_remove: Callable[[], None] = staticmethod(lambda: None)
    on_inventory: Callable[[], None] = staticmethod(lambda: None)

    async def inventory(self, progress: Callable[[int, int], None] | None = None) -> Inventory:
        self.on_inventory()
        if progress is not None:
            progress(len(self.vms), len(self.vms))
        return await super().inventory()

    async def device_facts(self) -> Mapping[DeviceIdentity, tuple[str, str, bool]]:
        return self.facts

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        self.on_remove()
        return await super().remove_snapshot(ref)


@dataclass
class World:
    """The systems that the drivers of this module reach, and how they were opened and closed."""

    estate: Estate
    faults: Faults = field(default_factory=Faults)
    opened: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    fail_to_open: dict[str, Exception] = field(default_factory=dict)
    fail_to_close: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hypervisor = Hypervisor(self.estate.inventory, self.faults)
        self.array = MemoryArray("a1", self.estate.units, self.faults)
        for vm_id in list(self.hypervisor.vms)[:2]:
            self.hypervisor.add_foreign(vm_id, FOREIGN)

    @property
    def left(self) -> list[str]:
        """Tags of our VM snapshots that are still there."""
        refs = [ref.tag for refs in self.hypervisor.snapshots.values() for ref in refs]
        assert refs.count(FOREIGN) == 2
        return [tag for tag in refs if tag != FOREIGN]

    @asynccontextmanager
    async def open(self, system_id: str, settings: Mapping[str, Any]) -> AsyncIterator[Any]:
        """What both factories do."""
        self.opened.append((system_id, settings))
        if system_id in self.fail_to_open:
            raise self.fail_to_open[system_id]
        is_array = any(array.id == system_id for array in self.estate.arrays)
        try:
            yield self.array if is_array else self.hypervisor
        finally:
            self.closed.append(system_id)
        if system_id in self.fail_to_close:
            raise self.fail_to_close[system_id]


WORLDS: list[World] = []


def open_memory(system_id: str, settings: Mapping[str, Any]) -> Any:
    """The factory that the entry points of this module name."""
    return WORLDS[-1].open(system_id, settings)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """Drivers ``memory`` and ``vsphere`` (both in memory) beside the modelled array."""
    entries = [
        EntryPoint("memory", "test_live_front:open_memory", registry.GROUP),
        EntryPoint("vsphere", "test_live_front:open_memory", registry.GROUP),
        EntryPoint("modelled-array", "stillframe.sim.realtime:open_modelled_array", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    monkeypatch.chdir(tmp_path)
    # Drawing takes most of a run here; one test draws.
    monkeypatch.setattr(folder, "draw_all", lambda run: {})
    estate = small_estate(6, 3, [(0, 1)])
    stores = [replace(one, capacity_bytes=100 * GIB) for one in estate.inventory.datastores]
    estate = replace(estate, inventory=replace(estate.inventory, datastores=tuple(stores)))
    made = World(estate)
    monkeypatch.setattr("test_live_front.WORLDS", [made])
    return made


CONFIG: dict[str, Any] = {
    "name": "tonight",
    "title": "Everything",
    "hypervisors": {"vc": {"driver": "memory", "host": "vc.example.com"}},
    "arrays": {"a1": {"driver": "memory"}},
    "job": {
        "retry": {"first_pause": "1 ms"},
        "timeouts": {"settle": "1 s"},
    },
}
QUICK = {
    "profile": "row-flash",
    "management_latency": "1 ms",
    "snapshot_base": "1 ms",
    "fence_base": "1 ms",
}


def config(**changes: Any) -> str:
    """A configuration file in the current folder."""
    file = Path("live.yaml")
    file.write_text(yaml.safe_dump(CONFIG | changes, sort_keys=False), encoding="utf-8")
    return str(file)


def invoke(*args: str, code: int = 0) -> Any:
    """Run a command and expect this exit code."""
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == code, result.stdout + result.stderr
    return result


def only_result() -> Path:
    """The one result folder under out/."""
    (found,) = Path("out").iterdir()
    return found


def line_of(result: Any) -> str:
    """The one line on stderr."""
    lines: list[str] = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert result.stdout == ""
    return lines[0]


# -- run -----------------------------------------------------------------------------------------


def test_a_live_run_protects_releases_reports_and_closes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "draw_all", draw_all)
    result = invoke("run", "--live", config())
    assert result.stderr == ""
    assert "Report: out/tonight-" in result.stdout
    run = read_folder(only_result())
    assert run.vms["status"].to_list() == ["protected"] * 6
    assert run.meta["live"]["hypervisors"] == {"vc": "memory"}
    assert run.meta["live"]["arrays"] == {"a1": "memory"}
    assert run.meta["live"]["started_at"].endswith("+00:00")
    assert (run.meta["title"], run.meta["seed"]) == ("Everything", None)
    assert run.meta["command"] == "stillframe run --live live.yaml"
    assert only_result().name == f"tonight-{run.meta['job_id']}"
    assert not world.left
    assert {one.ref.tag for one in world.array.snapshots} == {
        tag for tags in run.catalogue["tags"].to_list() for tag in tags
    }
    assert all(
        one.ref.tag.startswith(f"stillframe-{run.meta['job_id']}-") for one in world.array.snapshots
    )
    assert world.opened == [("vc", {"host": "vc.example.com"}), ("a1", {})]
    assert world.closed == ["a1", "vc"]
    assert len(list((only_result() / "figures").glob("*.png"))) > 3
    page = (only_result() / "report.html").read_text(encoding="utf-8")
    began = run.meta["live"]["started_at"]
    assert f"begun at {began}; vc by driver <code>memory</code>; a1" in page


def test_what_a_driver_cannot_see_is_null_and_said(world: World) -> None:
    invoke("run", "--live", config())
    run = read_folder(only_result())
    assert run.vms["stun_create_s"].null_count() == 6
    assert run.vms["stun_remove_s"].null_count() == 6
    assert run.vms["quiesce_s"].null_count() == 0
    assert run.calls["fence_s"].null_count() == run.calls.height
    said = " ".join(run.meta["assumptions"])
    assert "Hypervisor vc, driver memory: cannot see when virtual CPUs stopped" in said
    assert "froze" not in said
    assert "model" not in said


def test_a_modelled_array_works_beside_a_live_hypervisor_and_says_what_it_is(world: World) -> None:
    units = [
        {"name": unit.name, "capacity": "100 GiB", "devices": [str(unit.devices[0])]}
        for unit in world.estate.units
    ]
    arrays = {"a1": {"driver": "modelled-array", "profile": QUICK, "units": units}}
    invoke("run", "--live", config(arrays=arrays))
    run = read_folder(only_result())
    assert run.vms["status"].to_list() == ["protected"] * 6
    assert run.calls["fence_s"].null_count() == 0
    assert any("a1, driver modelled-array" in one for one in run.meta["assumptions"])
    assert any("nothing can be restored" in one for one in run.meta["assumptions"])
    assert run.meta["live"]["models"] == ["a1"]
    assert "a1 is a model beside live systems" in (
        (only_result() / "report.html").read_text(encoding="utf-8")
    )
    assert not world.left


def test_two_runs_keep_both_results(world: World) -> None:
    file = config()
    invoke("run", "--live", file)
    invoke("run", "--live", file)
    assert len(list(Path("out").iterdir())) == 2


def test_json_is_one_document_with_the_folder(world: World) -> None:
    result = invoke("run", "--live", config(), "--out", "here", "--json", "--strategy", "chunks")
    document = json.loads(result.stdout)
    assert document["folder"] == "here"
    assert document["strategy"] == "chunks"
    assert len(document["vms"]) == 6
    assert read_folder(Path("here")).meta["command"].endswith("--strategy chunks")


def test_exit_codes_follow_the_job(world: World) -> None:
    never = NeverWillError("create_snapshot", "vc/vm3", "a shared bus")
    world.faults.add("create", "vc/vm3", Fault(error=never))
    invoke("run", "--live", config(), "--out", "one", code=1)
    failed = read_folder(Path("one")).vms.filter(pl.col("status") != "protected")
    assert failed["name"].to_list() == ["vm3"]
    for vm_id in world.hypervisor.vms:
        world.faults.add("create", vm_id, Fault(error=never))
    invoke("run", "--live", config(), "--out", "none", code=3)
    assert read_folder(Path("none")).meta["status"] == "failed"
    assert not world.left


def send(number: signal.Signals) -> Callable[[], None]:
    """A callback that sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)


def test_ctrl_c_cancels_the_job_releases_everything_and_still_reports(world: World) -> None:
    once = [send(signal.SIGINT)]
    world.hypervisor.on_created = lambda _: once.pop()() if once else None
    result = invoke("run", "--live", config(), code=130)
    first, last = result.stderr.splitlines()
    assert "stopping: the job is cancelled and releases its VMs" in first
    assert last.startswith("stillframe: interrupted; the job was cancelled, the report says")
    assert read_folder(only_result()).meta["status"] == "cancelled"
    assert not once
    assert not world.left
    assert world.closed == ["a1", "vc"]


def test_a_second_ctrl_c_does_not_leave_snapshots_behind(world: World) -> None:
    once, twice = [send(signal.SIGINT)], [send(signal.SIGINT)]
    world.hypervisor.on_created = lambda _: once.pop()() if once else None
    world.hypervisor.on_remove = lambda: twice.pop()() if twice else None
    result = invoke("run", "--live", config(), code=130)
    assert "once more Ctrl-C gives up" in result.stderr
    assert not twice
    assert not world.left
    assert read_folder(only_result()).meta["status"] == "cancelled"


def test_sigterm_ends_the_job_in_good_order(world: World) -> None:
    once = [send(signal.SIGTERM)]
    world.hypervisor.on_created = lambda _: once.pop()() if once else None
    result = invoke("run", "--live", config(), code=3)
    assert "interrupted" not in result.stderr
    assert read_folder(only_result()).meta["status"] == "cancelled"
    assert not world.left
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ctrl_c_before_the_job_leaves_no_result(world: World) -> None:
    world.hypervisor.on_inventory = send(signal.SIGINT)
    before = tree(Path())
    file = config()
    result = invoke("run", "--live", file, code=130)
    assert line_of(result) == "stillframe: interrupted; the command did not finish"
    assert set(tree(Path())) - set(before) == {"live.yaml"}
    assert not world.array.snapshots
    assert world.closed == ["a1", "vc"]


def test_a_system_that_does_not_close_well_does_not_cost_the_report(world: World) -> None:
    world.fail_to_close["vc"] = DidNotHappenError("logout", "vc", "the session was gone")
    result = invoke("run", "--live", config())
    assert "logout on vc failed: the session was gone" in result.stderr
    run = read_folder(only_result())
    assert run.meta["status"] == "protected"
    assert any("could not be closed" in one for one in run.meta["assumptions"])


def test_a_defect_in_a_driver_is_reported_after_the_releases(world: World) -> None:
    class Broken(Hypervisor):
        async def create_snapshot(self, request: VmSnapshotRequest) -> Any:
            if request.vm_id == "vc/vm5":
                raise ZeroDivisionError("a defect")
            return await super().create_snapshot(request)

    world.hypervisor.__class__ = Broken
    result = invoke("run", "--live", config(), code=3)
    assert "ZeroDivisionError: a defect" in result.stderr
    assert "internal error" in result.stderr
    assert read_folder(only_result()).meta["job"]["selected"] == 6
    assert not world.left


# -- refusals ------------------------------------------------------------------------------------


def refuse(*args: str, code: int = 2) -> str:
    """Run a command that is refused with one line and writes nothing."""
    before = tree(Path())
    line = line_of(invoke(*args, code=code))
    assert tree(Path()) == before
    return line


def test_a_driver_that_refuses_its_settings_is_quoted_with_the_place(world: World) -> None:
    world.fail_to_open["a1"] = InputError("array a1", "colour", "'mauve' is none", "try beige")
    line = refuse("run", "--live", config())
    assert line == "stillframe: live.yaml: arrays.a1.colour: 'mauve' is none (try beige)"
    assert world.closed == ["vc"]


def test_a_file_that_a_driver_refuses_keeps_its_own_name(world: World) -> None:
    Path("ca.pem").write_text("")
    world.fail_to_open["vc"] = InputError("ca.pem", "", "is empty")
    assert refuse("run", "--live", config()) == "stillframe: ca.pem: is empty"


def test_a_system_that_cannot_be_reached_fails_with_one_line(world: World) -> None:
    world.fail_to_open["vc"] = DidNotHappenError("connect", "vc", "refused", "is the port open?")
    line = refuse("run", "--live", config(), code=3)
    assert line == "stillframe: connect on vc failed: refused (is the port open?)"


def test_a_driver_in_the_wrong_section_is_refused(world: World) -> None:
    arrays = {"a1": {"driver": "memory"}, "other": {"driver": "memory"}}
    line = refuse("run", "--live", config(arrays=arrays))
    assert line == "stillframe: live.yaml: arrays.other.driver: driver 'memory' is not for arrays"
    line = refuse("run", "--live", config(hypervisors={"a1": {"driver": "memory"}}))
    assert "hypervisors.a1.driver: driver 'memory' is not for hypervisors" in line


def test_a_driver_that_answers_for_another_system_is_refused(world: World) -> None:
    systems = {"vc-9": {"driver": "memory"}}
    line = refuse("run", "--live", config(hypervisors=systems), code=3)
    assert "a driver answered for 'vc', which is not in live.yaml" in line


def test_nothing_selected_is_the_configurations_fault(world: World) -> None:
    job = {"select": {"include": {"name": "no-such-*"}}}
    for command in ("run", "plan"):
        line = refuse(command, "--live", config(job=job))
        assert "live.yaml: job.select: the selection matches no VM" in line
    assert not world.array.snapshots


def test_a_folder_of_somebody_else_is_refused_before_anything_is_opened(world: World) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    assert "holds something else" in refuse("run", "--live", config(), "--out", "mine")
    assert world.opened == []


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("run", "demo", "--live", "live.yaml"), "give a SCENARIO or --live CONFIG, not both"),
        (("plan", "demo", "--live", "live.yaml"), "give a SCENARIO or --live CONFIG, not both"),
        (("run", "--live", "live.yaml", "--seed", "1"), "--seed has no meaning with --live"),
        (("run",), "Missing argument 'SCENARIO'"),
        (("plan",), "Missing argument 'SCENARIO'"),
        (("run", "--live", "nowhere.yaml"), "nowhere.yaml: does not exist"),
        (("run", "--live", "live.yaml", "--strategy", "best"), "--strategy: 'best' is not known"),
        (("estate", "pull"), "--vcenter"),
        (("estate", "pull", "--vcenter", "root:hunter2@vc"), "is not the name of a host"),
        (("estate", "pull", "--vcenter", "vc:https"), "'https' in 'vc:https' is not a port"),
        (("estate", "pull", "--vcenter", ":443"), "':443' names no host"),
        (("estate", "pull", "--vcenter", "vc", "--vcenter", "vc:1"), "'vc' is named twice"),
        (("estate", "pull", "--vcenter", "vc", "--out", "live.yaml"), "live.yaml exists already"),
        (("rehearse", "live.yaml"), "give CONFIG and --estate FILE, or --compare"),
        (("rehearse", "--estate", "e.yaml"), "give CONFIG and --estate FILE, or --compare"),
        (("rehearse", "live.yaml", "--estate", "no.yaml"), "no.yaml: does not exist"),
        (("rehearse", "live.yaml", "--estate", "e", "--replications", "0"), "--replications"),
        (("rehearse", "live.yaml", "--estate", "e", "--out", "live.yaml"), "something else than"),
        (("rehearse", "live.yaml", "--estate", "e", "--out", "no/p.json"), "no does not exist"),
        (("rehearse", "live.yaml", "--compare", "a", "b"), "no more"),
        (("rehearse", "--compare", "live.yaml", "b"), "live.yaml: is not a prediction"),
        (("rehearse", "--compare", "no.json", "b"), "no.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_touches_nothing(
    world: World, args: tuple[str, ...], told: str
) -> None:
    config()
    line = refuse(*args)
    assert told in line
    assert "hunter2" not in line
    assert world.opened == []


# -- plan, pull, rehearse ------------------------------------------------------------------------


def test_plan_touches_nothing(world: World) -> None:
    result = invoke("plan", "--live", config())
    assert "6 VMs selected" in result.stdout
    assert "Nothing was touched." in result.stdout
    assert not world.left
    assert not world.array.snapshots
    assert not Path("out").exists()
    assert world.closed == ["a1", "vc"]
    document = json.loads(invoke("plan", "--live", config(), "--json").stdout)
    assert document["predicted"] is None
    assert sorted(document["selected"]) == [f"vc/vm{n}" for n in range(6)]


def test_plan_says_what_cannot_be_protected(world: World) -> None:
    world.array.units.pop("a1/lun2")
    invoke("plan", "--live", config(), code=1)
    world.array.units.clear()
    invoke("plan", "--live", config(), code=3)


def pulled(*args: str) -> Any:
    """The JSON that ``estate pull`` answers with."""
    return json.loads(invoke("estate", "pull", "--vcenter", "vc", "--json", *args).stdout)


def test_pull_writes_an_estate_whose_units_are_made_from_devices(world: World) -> None:
    devices = [unit.devices[0] for unit in world.estate.units]
    world.hypervisor.facts = {
        devices[0]: ("ACME", "X1", False),
        devices[1]: ("ACME", "X1", False),
        devices[2]: ("ATA", "SSD", True),
    }
    document = pulled("--out", "estate.yaml")
    estate = load_estate("estate.yaml")
    assert estate.inventory == world.estate.inventory
    assert [(unit.array_id, unit.devices) for unit in estate.units] == [
        ("ACME X1", (device,)) for device in devices[:2]
    ]
    assert document["statistics"]["protectable_vms"] == 4
    told = " ".join(one["sentence"] for one in document["findings"])
    assert "1 datastore (ds2): on disks of a host itself" in told
    assert "1 array (ACME X1): LUNs of the same vendor and model count as one array" in told
    assert "4 of 6 VMs can be protected" in told


def test_pull_without_facts_says_that_the_array_is_unknown(world: World) -> None:
    document = pulled()
    told = [one["sentence"] for one in document["findings"] if one["severity"] == "assumed"]
    assert any("3 devices" in one and "one unknown array" in one for one in told)
    assert document["estate"] is None
    assert not Path("estate.yaml").exists()
    text = invoke("estate", "pull", "--vcenter", "vc").stdout
    assert "6 VMs with 7 disks on 3 datastores; 3 units on 1 array; 6 VMs can" in text
    assert "can be protected by array snapshots" in text


def test_pull_counts_a_datastore_of_unknown_size_as_nothing_and_says_so(world: World) -> None:
    inventory = world.hypervisor.contents
    stores = tuple(replace(one, capacity_bytes=None) for one in inventory.datastores[:1])
    world.hypervisor.contents = replace(inventory, datastores=stores + inventory.datastores[1:])
    told = [one["sentence"] for one in pulled("--out", "estate.yaml")["findings"]]
    assert any("1 unit (naa.60" in one and "capacity not known" in one for one in told)
    assert [unit.capacity_bytes for unit in load_estate("estate.yaml").units] == [
        0, 100 * GIB, 100 * GIB,
    ]  # fmt: skip


def test_pull_hands_host_port_user_and_ca_file_to_the_driver(world: World) -> None:
    invoke("estate", "pull", "--vcenter", "vc:8443", "--user", "reader", "--ca-file", "ca.pem")
    invoke("estate", "pull", "--vcenter", "[::1]")
    invoke("estate", "pull", "--vcenter", "vc", "--keyring", "vms", "--insecure-no-verification")
    assert world.opened == [
        ("vc", {"host": "vc", "port": 8443, "user": "reader", "ca_file": "ca.pem"}),
        ("::1", {"host": "::1"}),
        ("vc", {"host": "vc", "verify": "insecure-no-verification", "keyring": "vms"}),
    ]
    assert world.closed == ["vc", "::1", "vc"]


def test_pull_names_what_matters_for_snapshots(world: World) -> None:
    vms = world.hypervisor.vms
    vms["vc/vm1"] = replace(vms["vc/vm1"], snapshot_count=2)
    vms["vc/vm2"] = replace(vms["vc/vm2"], can_quiesce=False)
    told = " ".join(one["sentence"] for one in pulled()["findings"])
    assert "1 VM (vm1): have snapshots already" in told
    assert "1 VM (vm2): the guest cannot be quiesced" in told


WORLD_SECTION = {"guests": [{"match": "*", "scale_sigma": 0.0}]}


def rehearsal(*args: str, **changes: Any) -> Any:
    """Pull, then rehearse; the JSON that ``rehearse`` answers with."""
    if not Path("estate.yaml").exists():
        pulled("--out", "estate.yaml")
    file = config(world=WORLD_SECTION, **changes)
    result = invoke("rehearse", file, "--estate", "estate.yaml", "--json", *args)
    return json.loads(result.stdout)


def test_a_rehearsal_predicts_every_clock_and_is_saved(world: World) -> None:
    document = rehearsal("--replications", "3", "--seed", "5")
    prediction = document["prediction"]
    assert json.loads(Path(document["file"]).read_text()) == prediction
    assert document["file"] == "out/tonight.prediction.json"
    assert len(document["plan"]["selected"]) == 6
    assert (prediction["replications"], prediction["seed"]) == (3, 5)
    assert prediction["protected"] == [6, 6, 6]
    assert len(set(prediction["makespan_s"])) == 3
    clocks = {one["clock"]: one for one in prediction["clocks"]}
    assert clocks["open_s"]["count"] == 18
    assert clocks["stun_create_s"]["count"] == 18
    assert 0 < clocks["open_s"]["p50_s"] <= clocks["open_s"]["max_s"]
    assert world.array.snapshots == []
    assert not world.left


def test_the_replications_are_the_runs_of_their_seeds(world: World) -> None:
    three = rehearsal("--replications", "3", "--seed", "5")["prediction"]
    singles = [
        rehearsal("--seed", str(seed), "--out", f"{seed}.json")["prediction"] for seed in (5, 6, 7)
    ]
    assert three["makespan_s"] == [one["makespan_s"][0] for one in singles]
    worst = [max(one["clocks"][n]["max_s"] for one in singles) for n in range(len(three["clocks"]))]
    assert [one["max_s"] for one in three["clocks"]] == worst


def test_a_prediction_replaces_one_and_nothing_else(world: World) -> None:
    rehearsal("--out", "p.json")
    rehearsal("--out", "p.json")
    Path("p.json").write_text('{"format": "other"}')
    result = invoke("rehearse", "live.yaml", "--estate", "estate.yaml", "--out", "p.json", code=2)
    assert "p.json holds something else than a prediction" in line_of(result)


def test_a_rehearsal_for_people_shows_plan_and_windows(world: World) -> None:
    pulled("--out", "estate.yaml")
    text = invoke("rehearse", config(), "--estate", "estate.yaml").stdout
    for part in ("Rehearsal: Everything", "Groups", "Predicted by one modelled run, seed 1",
                 "stun at remove", "The modelled job takes", "protects 6 of 6 VMs",
                 "Prediction: out/tonight.prediction.json"):  # fmt: skip
        assert part in text


def test_a_rehearsal_names_what_does_not_fit_the_twin(world: World) -> None:
    pulled("--out", "estate.yaml")
    file = config(world={"arrays": {"floppy": {}}})
    line = line_of(invoke("rehearse", file, "--estate", "estate.yaml", code=2))
    assert "live.yaml: world.arrays.floppy: no such array" in line
    file = config(job={"select": {"include": {"name": "no-*"}}})
    line = line_of(invoke("rehearse", file, "--estate", "estate.yaml", code=2))
    assert "live.yaml: job.select: the selection matches no VM of estate.yaml" in line
    assert not Path("out").exists()


def test_an_rvtools_export_serves_as_the_estate_of_a_twin(world: World) -> None:
    write_xlsx(Path("export.xlsx"), complete())
    result = invoke("rehearse", config(), "--estate", "export.xlsx", "--json")
    assert json.loads(result.stdout)["prediction"]["estate"] == "export.xlsx"
    assert world.opened == []


def test_a_prediction_stands_beside_what_was_measured(world: World) -> None:
    prediction = rehearsal()["prediction"]
    invoke("run", "--live", config(), "--out", "result")
    arguments = ("rehearse", "--compare", "out/tonight.prediction.json", "result")
    document = json.loads(invoke(*arguments, "--json").stdout)
    assert document["measured_on"] == "live systems"
    assert document["protected"] == {"predicted": [6], "measured": 6}
    clocks = {one["clock"]: one for one in document["clocks"]}
    predicted = {one["clock"]: one for one in prediction["clocks"]}
    assert clocks["open_s"]["predicted"]["p95_s"] == predicted["open_s"]["p95_s"]
    run = read_folder(Path("result"))
    assert clocks["merge_s"]["measured"]["max_s"] == run.vms["merge_s"].max()
    assert clocks["stun_create_s"]["predicted"]["count"] == 6
    assert clocks["stun_create_s"]["measured"] == {
        "count": 0, "absent": 6, "p50_s": None, "p95_s": None, "p99_s": None, "max_s": None,
        "upper_bounds": 0,
    }  # fmt: skip
    text = invoke(*arguments).stdout
    assert "measured on live systems" in text
    rows = [line.split() for line in text.splitlines()]
    place = next(n for n, row in enumerate(rows) if row[:3] == ["stun", "at", "create"])
    assert rows[place + 1] == ["measured", "0", *["absent"] * 4]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not a prediction"),
        ("[]", "format: this is not a prediction"),
        ('{"format": "stillframe-prediction"}', "name: is missing"),
    ],
)
def test_a_damaged_prediction_is_named(world: World, text: str, told: str) -> None:
    Path("p.json").write_text(text)
    assert told in refuse("rehearse", "--compare", "p.json", "result")


def test_job_ids_differ_and_sort_by_time() -> None:
    ids = [live.new_job_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(one.replace("-", "").isalnum() for one in ids)


def test_a_missing_driver_is_a_stillframe_error() -> None:
    with pytest.raises(StillframeError):
        registry.driver_factory("nothing")
