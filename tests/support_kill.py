"""Live jobs in processes of their own, killed with SIGKILL at chosen moments, and recovered.

The vCenter is the test endpoint; the array is modelled and keeps its snapshots in a file, so that
they outlive the process as those of a real one do. :func:`kill_and_recover` tells what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from pyVmomi import vim
from support_pyvmomi import Client
from support_vsim import FOREIGN, Vsim, lun, small_inventory
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.drivers.vsphere_settings import PASSWORD_ENV
from stillframe.errors import StillframeError
from stillframe.live_journal import read_journal
from stillframe.scenarios.live import load_live
from stillframe.sim.kept_array import KeptSnapshots

ARRAY = "array-1"
STATE = "array.state"
ENVIRONMENT = {**os.environ, PASSWORD_ENV: Vsim.password}
JOB: dict[str, Any] = {
    "timeouts": {"settle": "1500 ms", "query": "10 s"},
    "retry": {"first_pause": "50 ms"},
}
PROMPT = {
    "management_latency": "5 ms",
    "snapshot_base": "200 ms",
    "fence_base": "20 ms",
    "delete_latency": "20 ms",
}
VMS = 6
CREATE = "CreateSnapshotEx_Task"
REMOVE = "RemoveSnapshot_Task"
SLOW_CREATES = [{"method": CREATE, "delayMs": 400, "times": 0}]
SLOW_REMOVALS = [{"method": REMOVE, "delayMs": 400, "times": 0}]
_LOOK_S = 0.02
_CHILD = Path(__file__).with_name("support_kill_child.py")


class AtJournal(NamedTuple):
    """When a method of the journal (``intend``, ``keep``, ``finish``) has returned so often."""

    method: str
    count: int


class AtCalls(NamedTuple):
    """When the endpoint has had so many calls of a method, and answered none of them yet or all."""

    method: str
    count: int


class AfterFirstIntent(NamedTuple):
    """So many seconds after the first intent is in the journal."""

    seconds: float


@pytest.fixture
def vsim() -> Iterator[Vsim]:
    """Six VMs on three datastores of a LUN each; two carry somebody else's snapshot."""
    with Vsim(small_inventory(VMS, 3, 3, foreign=2), keep=True) as running:
        yield running


@pytest.fixture
def config(vsim: Vsim, tmp_path: Path) -> Path:
    """A configuration on it, in an empty folder."""
    return durable_config(vsim, tmp_path)


Moment = AtJournal | AtCalls | AfterFirstIntent


def durable_config(
    vsim: Vsim, folder: Path, *, luns: int = 3, job: Mapping[str, Any] | None = None, **changes: Any
) -> Path:
    """A live configuration on an endpoint, and one array with a state file that holds its LUNs."""
    config: dict[str, Any] = {
        "name": "durable",
        "hypervisors": {
            "vc": {
                "driver": "vsphere",
                "host": vsim.host,
                "port": vsim.port,
                "ca_file": vsim.ca_file,
                "user": vsim.user,
                "poll_interval": "20 ms",
            }
        },
        "arrays": {
            ARRAY: {
                "driver": "modelled-array",
                "state_file": STATE,
                "profile": PROMPT,
                "units": [
                    {"name": f"lun-{i}", "capacity": "10 TiB", "devices": [lun(i)]}
                    for i in range(luns)
                ],
            }
        },
        "job": dict(JOB if job is None else job),
    }
    path = folder / "durable.yaml"
    path.write_text(yaml.safe_dump(config | changes, sort_keys=False), encoding="utf-8")
    return path


class LiveProcess:
    """``stillframe run --live CONFIG`` in a process of its own; use it as a context manager."""

    def __init__(
        self,
        config: Path,
        *options: str,
        command: tuple[str, ...] = ("run", "--live"),
        die: AtJournal | None = None,
    ) -> None:
        wanted = ("-", "0") if die is None else (die.method, str(die.count))
        words = [sys.executable, str(_CHILD), *wanted, *command, config.name, *options]
        self.config = config
        self._log = (config.parent / "process.log").open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            words, cwd=config.parent, env=ENVIRONMENT, stdout=self._log, stderr=self._log
        )

    def __enter__(self) -> LiveProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def output(self) -> str:
        """What it has written so far."""
        return (self.config.parent / "process.log").read_text(encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait_for_calls(self, vsim: Vsim, method: str, count: int) -> bool:
        """Wait until the endpoint has had so many calls; False when the process ended before."""
        while vsim.calls().get(method, 0) < count:
            if self._ended():
                return False
        return True

    def wait_for_intent(self) -> bool:
        """Wait for the first intent in the journal; False when the process ended before."""
        while not (self.config_journal.exists() and self._has_intent()):
            if self._ended():
                return False
        return True

    @property
    def config_journal(self) -> Path:
        """The file with its journal."""
        return load_live(self.config).journal

    def _has_intent(self) -> bool:
        store = read_journal(self.config_journal)
        try:
            return any(job.open_intents for job in store.jobs())
        finally:
            store.close()

    def _ended(self) -> bool:
        """Whether it has ended within a look's time."""
        try:
            self.process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            return False
        return True


def kill_live(vsim: Vsim, config: Path, moment: Moment, *options: str) -> bool:
    """Run a job and kill its process at a moment; False when it had ended by itself before."""
    die = moment if isinstance(moment, AtJournal) else None
    vsim.reset_calls()
    with LiveProcess(config, *options, die=die) as running:
        if isinstance(moment, AtCalls):
            running.wait_for_calls(vsim, moment.method, moment.count)
        elif isinstance(moment, AfterFirstIntent) and running.wait_for_intent():
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(moment.seconds)
        else:
            running.process.wait()
        running.process.kill()
        return running.process.wait() == -signal.SIGKILL


def recover(config: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """``stillframe recover CONFIG --json``: exit code, what it answered, what it told."""
    arguments = ["recover", str(config), "--json", *options]
    result = CliRunner().invoke(app, arguments, env=ENVIRONMENT)
    answer = json.loads(result.stdout) if result.stdout else {}
    return result.exit_code, answer, result.stderr


def on_vms(vsim: Vsim) -> tuple[list[str], int]:
    """Names of our VM snapshots on the endpoint, and how many it holds of somebody else."""
    with Client(vsim) as client:
        found = [client.names(vm) for vm in client.all(vim.VirtualMachine).values()]
    names = [name for some in found for name in some]
    return sorted(one for one in names if one.startswith("stillframe-")), names.count(FOREIGN)


def on_array(config: Path) -> set[str]:
    """Tags of the snapshots that the array holds, and of those that it has still to finish."""
    with KeptSnapshots(config.parent / STATE, ARRAY) as kept:
        return {one.tag for one in kept.all()}


def catalogued(config: Path) -> set[str]:
    """Tags of the array snapshots that the catalogue names."""
    store = read_journal(load_live(config).journal)
    try:
        return {cut.tag for entry in store.entries() for cut in entry.cuts}
    finally:
        store.close()


def unfinished_jobs(config: Path) -> int:
    """How many jobs in the journal want to be recovered; none when there is no journal."""
    journal = load_live(config).journal
    if not journal.exists():
        return 0
    store = read_journal(journal)
    try:
        return sum(job.unfinished for job in store.jobs())
    finally:
        store.close()


def kill_and_recover(vsim: Vsim, config: Path, moment: Moment, *options: str) -> dict[str, Any]:
    """Run, kill, recover; what is left, by count.

    Parameters
    ----------
    vsim, config:
        The endpoint, and a configuration made by :func:`durable_config`.
    options:
        Further options of ``run --live``.

    Returns
    -------
    dict
        ``moment``; ``killed`` (it had not ended before); ``exit`` of ``recover`` and how long it
        took (``recover_s``); ``interrupted_snapshots`` (ours on VMs between the kill and the
        recovery); ``orphans`` (ours on VMs afterwards), ``array_orphans`` (on the array, in no
        entry), ``lies`` (in an entry, not on the array), ``foreign_lost``; ``journal_ok`` (it can
        be read, its sums hold, and no job is unfinished).
    """
    _, foreign = on_vms(vsim)
    killed = kill_live(vsim, config, moment, *options)
    interrupted = len(on_vms(vsim)[0])
    has_journal = load_live(config).journal.exists()
    began_s = time.monotonic()
    code, _, told = recover(config) if has_journal else (0, {}, "")
    recover_s = time.monotonic() - began_s
    try:
        named, unfinished = (
            (catalogued(config), unfinished_jobs(config)) if has_journal else ({}, 0)
        )
        journal_ok = unfinished == 0
    except StillframeError as error:
        named, journal_ok, told = set(), False, f"{told}{error}"
    held = on_array(config)
    orphans, foreign_after = on_vms(vsim)
    return {
        "moment": str(moment),
        "killed": killed,
        "exit": code,
        "recover_s": round(recover_s, 3),
        "interrupted_snapshots": interrupted,
        "orphans": len(orphans),
        "array_orphans": len(held - set(named)),
        "lies": len(set(named) - held),
        "foreign_lost": foreign - foreign_after,
        "journal_ok": journal_ok,
        "told": told,
    }


def assert_nothing_is_left(vsim: Vsim, config: Path) -> None:
    """No snapshot of ours on a VM, none on the array that is in no entry, no entry without its."""
    assert on_vms(vsim) == ([], 2)
    assert on_array(config) == catalogued(config)
    assert unfinished_jobs(config) == 0
