"""A Ceph cluster, gateway or worker process that is gone or says nothing: clear errors, in time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support_ceph import (
    NEEDS,
    CephArray,
    ceph_array,
    delete_all,
    pid_of,
    request,
    tags,
    unit_ids,
    write,
)
from support_lab import needs_lab

from stillframe.drivers.ceph_rbd import open_ceph_rbd
from stillframe.drivers.errors import BusyError, DidNotHappenError, UnknownOutcomeError
from stillframe.drivers.records import DeviceIdentity
from stillframe.errors import InputError, StillframeError

_SILENT = r"does not answer|cannot be opened"
PATIENCE_S = 40.0
"""Far above any limit in these tests: an answer that takes longer never comes."""


@pytest.fixture(scope="module")
def array() -> Iterator[CephArray]:
    """One array; every test leaves it without snapshots."""
    with ceph_array(units=2) as up:
        yield up


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes that stand still meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@needs_lab(*NEEDS)
def test_a_cluster_that_says_nothing_is_an_error_and_works_again_afterwards(
    array: CephArray,
) -> None:
    cluster = array.backend.cluster

    async def main() -> None:
        async with (
            asyncio.timeout(PATIENCE_S),
            array.open(timeout=1) as driver,
            array.open(timeout=1) as other,
        ):
            ref = (await driver.snapshot_group(request("before", 0))).ref
            with stopped(pid_of(cluster.osd), pid_of(cluster.monitor)):
                with pytest.raises(UnknownOutcomeError, match="does not answer"):
                    await other.delete_snapshot(ref)
                for asked in (
                    driver.list_snapshots(""),
                    driver.read_back(ref, unit_ids(0)[0], 0, 512),
                ):
                    with pytest.raises(DidNotHappenError, match=_SILENT):
                        await asked
                # It is never sent: no process that asks the cluster gets hold of it.
                with pytest.raises(DidNotHappenError, match="cannot be opened"):
                    await driver.delete_snapshot(ref)
                with pytest.raises((DidNotHappenError, UnknownOutcomeError, BusyError)):
                    await driver.snapshot_group(request("during", 0, 1, fence_s=0.5))
        async with asyncio.timeout(PATIENCE_S), array.open() as driver:
            await delete_all(driver)
            made = await driver.snapshot_group(request("after", 0, 1))
            assert set(made.unit_ids) == set(unit_ids(0, 1))
            assert await tags(driver) == ["after"]
            await driver.delete_snapshot(made.ref)
            assert array.groups() == {}

    asyncio.run(main())


@needs_lab(*NEEDS)
def test_a_cluster_that_says_nothing_cannot_be_opened(array: CephArray) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S):
            with (
                stopped(pid_of(array.backend.cluster.monitor)),
                pytest.raises(StillframeError, match=r"pool 'rbd' of .* cannot be opened"),
            ):
                async with array.open(timeout=1):
                    pass

    asyncio.run(main())


def worker_of() -> int:
    """The process of this test that talks to the cluster."""
    children = [
        int(pid)
        for table in Path("/proc/self/task").glob("*/children")
        for pid in table.read_text(encoding="ascii").split()
    ]
    found = [
        pid for pid in children if b"ceph_worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(found) == 1
    return found[0]


@needs_lab(*NEEDS)
def test_a_worker_that_died_is_replaced(array: CephArray) -> None:
    async def main() -> None:
        async with array.open() as driver:
            assert await tags(driver) == []
            os.kill(worker_of(), signal.SIGKILL)
            assert await tags(driver) == []

    asyncio.run(main())


@needs_lab(*NEEDS)
def test_a_worker_that_was_cut_off_by_another_is_replaced(array: CephArray) -> None:
    write(array.files[0], b"locked" * 100)

    async def main() -> None:
        async with array.open() as driver:
            with stopped(pid_of(array.backend.gateway)):
                making = asyncio.create_task(driver.snapshot_group(request("cut-off", 0)))
                while not (holder := await asyncio.to_thread(array.holder)):
                    assert not making.done()
                await asyncio.to_thread(array.cut_off, holder["address"])
                with pytest.raises(UnknownOutcomeError):
                    await making
            assert await tags(driver) == []
            assert (await driver.snapshot_group(request("anew", 0))).unit_ids == unit_ids(0)
            await delete_all(driver)
            assert array.groups() == {}

    asyncio.run(main())


@needs_lab(*NEEDS)
def test_a_cluster_that_was_killed_and_came_back_is_served_again(array: CephArray) -> None:
    """The session of the process that asks may be deaf for good; another one is started then."""

    async def main() -> None:
        async with array.open(timeout=2.0) as driver:
            await driver.snapshot_group(request("before", 0, 1))
            await array.backend.kill()
            await array.backend.restart()
            with suppress(DidNotHappenError):  # it finds out
                await tags(driver)
            assert await tags(driver) == ["before"]
            await delete_all(driver)

    asyncio.run(main())


@needs_lab(*NEEDS)
def test_questions_at_once_wait_for_each_other_at_the_gateway(array: CephArray) -> None:
    async def main() -> None:
        file = DeviceIdentity.parse(f"file.{array.files[0]}")
        async with array.open() as driver, array.open() as other:
            asked = [one.resolve([file]) for one in (driver, other) for _ in range(6)]
            answers = await asyncio.gather(*asked)
            assert all(answer[file].name == "unit-0" for answer in answers)

    asyncio.run(main())


@needs_lab(*NEEDS)
def test_a_gateway_that_another_client_holds_is_a_clear_error(array: CephArray) -> None:
    async def main() -> None:
        socket = array.backend.settings()["gateway_socket"]
        reader, writer = await asyncio.open_unix_connection(socket)
        await reader.readline()
        async with array.open(timeout=0.5) as driver:
            file = DeviceIdentity.parse(f"file.{array.files[0]}")
            with pytest.raises(DidNotHappenError, match="another client"):
                await driver.resolve([file])
            writer.close()
            await writer.wait_closed()
            assert len(await driver.resolve([file])) == 1

    asyncio.run(main())


def settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """Settings of a cluster that is not there."""
    conf = tmp_path / "ceph.conf"
    conf.write_text("[global]\nmon_host = v2:127.0.0.1:1/0\n", encoding="utf-8")
    return {"conf_file": str(conf), "gateway_socket": str(tmp_path / "none"), **more}


async def opened(given: dict[str, Any]) -> None:
    """Open a driver and close it."""
    async with open_ceph_rbd("ceph", given):
        pass


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"python": sys.executable}, "python3-rbd"),
        ({"python": "/nowhere/python3"}, "/nowhere/python3 cannot be started"),
    ],
)
def test_an_interpreter_without_the_bindings_is_a_clear_error(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(StillframeError, match=said):
        asyncio.run(opened(settings(tmp_path, **more)))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"conf_file": "/nowhere/ceph.conf"}, "conf_file"),
        ({"pol": "x"}, "pol"),
        ({"pool": ""}, "pool"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    tmp_path: Path, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputError, match=field):
        asyncio.run(opened(settings(tmp_path, **more)))
