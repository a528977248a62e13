"""The test endpoint (docs/vsphere-endpoint.md) as a process that a test starts and bends.

``Vsim`` starts it with an inventory in a folder of its own, and ends it: a test in which it
panicked or did not end well has failed. ``vsim_binary`` builds it, once. A machine that cannot
build it skips these tests with the reason, or fails them where ``CI=true``.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

ROOT = Path(__file__).resolve().parents[1]
USER = "stillframe-test"
PASSWORD = "correct horse"  # noqa: S105  of an endpoint that lives for one test
FOREIGN = "before-upgrade"
"""The name of a snapshot that a person took before; no test may lose it."""


@functools.cache
def _build() -> tuple[str, str]:
    """The binary's path and "", or "" and the reason why there is none."""
    given = os.environ.get("STILLFRAME_VSIM")
    if given:
        return given, ""
    done = subprocess.run(
        [str(ROOT / "scripts" / "build-vsim.sh")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return "", lines[-1] if lines else f"build-vsim.sh ended with {done.returncode}"
    return done.stdout.strip().splitlines()[-1], ""


def vsim_binary() -> str:
    """The endpoint's binary: $STILLFRAME_VSIM, or what scripts/build-vsim.sh makes."""
    path, reason = _build()
    if not path and os.environ.get("CI") == "true":
        pytest.fail(f"the vSphere endpoint cannot be had: {reason}")
    if not path:
        pytest.skip(f"no vSphere endpoint: {reason}")
    return path


class Vsim:
    """One endpoint over one inventory; use it as a context manager.

    Parameters
    ----------
    inventory:
        What it holds; the form is in docs/vsphere-endpoint.md.
    keep:
        Keep snapshots and places over ``restart``.
    """

    user = USER
    password = PASSWORD
    host = "127.0.0.1"

    def __init__(self, inventory: Mapping[str, Any], *, keep: bool = False) -> None:
        self._binary = vsim_binary()
        memory = Path("/dev/shm")  # noqa: S108  halves the start; the folder itself is private
        where = memory if os.access(memory, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="vsim-", dir=where))
        self._keep = keep
        self._process: subprocess.Popen[str] | None = None
        self._log = self.folder / "log"
        self.port = 0
        (self.folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")

    @property
    def ca_file(self) -> str:
        """The authority that signed its certificate."""
        return str(self.folder / "ca.pem")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self.folder)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            status = self._stop()
            log = self._log.read_text(encoding="utf-8")
        finally:
            shutil.rmtree(self.folder)
        if error is None:  # never hide the failure of the test itself
            assert status == 0, log
            assert "panic" not in log, log
            assert "fatal error" not in log, log

    def start(self) -> None:
        """Start it and wait for the line that says that it listens."""
        command = [self._binary, "-l", f"{self.host}:{self.port}", "-dir", str(self.folder)]
        command += ["-inventory", str(self.folder / "inventory.json")]
        command += ["-username", self.user, "-password", self.password]
        command += ["-tlscert", str(self.folder / "cert.pem"), "-tlskey"]
        command += [str(self.folder / "key.pem"), "-tlsca", self.ca_file]
        if self._keep:
            command += ["-state", str(self.folder / "state")]
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if not ready:
            self._stop()
            raise AssertionError(f"no endpoint: {self._log.read_text(encoding='utf-8')}")
        self.port = int(json.loads(ready)["port"])

    def _stop(self) -> int:
        """Close its standard input, which ends it; the status that it ended with."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.communicate(timeout=30)
        return process.returncode

    def kill(self) -> None:
        """End it as a crash does: nothing is written, connections break."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()
        self._process = None

    def restart(self) -> None:
        """Start it again on the same port after ``kill``; sessions and tasks are gone."""
        assert self._process is None
        self.start()

    def context(self) -> ssl.SSLContext:
        """TLS settings that trust this endpoint and nothing else."""
        return ssl.create_default_context(cafile=self.ca_file)

    def _lab(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(
            f"https://{self.host}:{self.port}/lab/{path}", data=body, method=method
        )
        with urllib.request.urlopen(request, context=self.context(), timeout=30) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content

    def rules(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Put these rules in place of all before."""
        self._lab("PUT", "rules", json.dumps(list(rules)).encode())

    def calls(self) -> dict[str, int]:
        """How often each method was called since the start, or since ``reset_calls``."""
        counts: dict[str, int] = json.loads(self._lab("GET", "calls"))
        return counts

    def reset_calls(self) -> None:
        """Count from zero."""
        self._lab("DELETE", "calls")


def lun(number: int) -> str:
    """The canonical name of a LUN."""
    return f"naa.60{number:030x}"


def small_inventory(
    vms: int = 6, stores: int = 3, luns: int = 3, *, foreign: int = 0, hosts: int = 2
) -> dict[str, Any]:
    """VMs by turns over VMFS datastores, datastores by turns over LUNs.

    The first ``foreign`` VMs carry a snapshot that somebody else took. With fewer LUNs than
    datastores, a LUN carries several datastores, each on a partition of its own.
    """
    return {
        "hosts": hosts,
        "luns": [{"name": lun(i), "serial": f"SN{i:04d}"} for i in range(luns)],
        "datastores": [
            {"name": f"ds{i}", "type": "VMFS", "lun": [lun(i % luns)]} for i in range(stores)
        ],
        "vms": [
            {
                "name": f"vm{i:04d}",
                "disks": [f"ds{i % stores}"],
                "snapshots": [FOREIGN] if i < foreign else [],
            }
            for i in range(vms)
        ],
    }


def varied() -> dict[str, object]:
    """An inventory with one of everything."""
    return {
        "clusters": [{"name": "east", "hosts": 2}, {"name": "west", "hosts": 1}],
        "luns": [{"name": lun(1), "serial": "SN1", "vendor": "V", "model": "M"}],
        "datastores": [
            {"name": "one", "type": "VMFS", "lun": [lun(1)]},
            {"name": "two", "type": "VMFS", "lun": [lun(2), lun(3)], "capacityGb": 10},
            {"name": "also-one", "type": "VMFS", "lun": [lun(1)]},
            {"name": "share", "type": "NFS", "host": "nas.example", "path": "/export/a"},
        ],
        "vms": [
            {
                "name": "db",
                "folder": "prod/sql",
                "host": "west-host-1",
                "guestId": "windows9Server64Guest",
                "disks": [
                    {"datastore": "one", "sizeMb": 2048},
                    {"datastore": "two", "mode": "independent_persistent"},
                    {"datastore": "one", "rawLun": lun(7), "rawMode": "physicalMode"},
                    {"datastore": "one", "rawLun": lun(8)},
                ],
            },
            {"name": "web", "folder": "prod", "disks": ["share"], "tools": "notRunning"},
            {"name": "gold", "disks": ["share"], "template": True},
            {"name": "bare", "disks": ["share"], "off": True, "tools": "notInstalled"},
        ],
    }
