"""One measured client of the test endpoint, in a process of its own.

``python -m benchmarks.vsphere_worker MODE SETTINGS``, where SETTINGS is JSON with host, port,
ca_file, user, vms (names) and in_flight; the password comes from the environment. Prints JSON.

``script``  a straightforward pyvmomi script: threads, a call, and a look at the task until it ends
``driver``  the same creates and removes through the driver
``config``  the whole ``config`` of every VM, read with one call
``pull``    what ``stillframe estate pull`` reads, made into an estate
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stillframe.drivers.vsphere_settings import PASSWORD_ENV

SCRIPT_POLL_S = 0.1
MODULES = {
    "config": ("pyVim.connect", "pyVmomi"),
    "pull": ("stillframe.drivers.vsphere", "stillframe.live_systems", "stillframe.topology.estate"),
}
"""What each reader needs: loaded before the clock starts."""


def connect(settings: dict[str, Any], connections: int) -> Any:
    """A pyvmomi session with as many connections as threads."""
    from pyVim.connect import SmartConnect

    instance = SmartConnect(
        host=settings["host"],
        port=settings["port"],
        user=settings["user"],
        pwd=os.environ[PASSWORD_ENV],
        sslContext=ssl.create_default_context(cafile=settings["ca_file"]),
    )
    instance._stub.poolSize = connections
    return instance


def view_of_vms(instance: Any) -> Any:
    """A container view of all VMs."""
    from pyVmomi import vim

    content = instance.content
    return content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)


def script(settings: dict[str, Any]) -> Callable[[], None]:
    """What a person writes in an afternoon."""
    threads = settings["in_flight"]
    instance = connect(settings, threads)
    vms = view_of_vms(instance).view

    def wait(task: Any) -> Any:
        while True:
            info = task.info
            if info.state == "success":
                return info.result
            if info.state == "error":
                raise info.error
            time.sleep(SCRIPT_POLL_S)

    def cycle(vm: Any) -> None:
        made = wait(vm.CreateSnapshot_Task("evidence", "", memory=False, quiesce=True))
        wait(made.RemoveSnapshot_Task(removeChildren=False))

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(cycle, vms))

    return work


def driver_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The part of the settings that the driver takes."""
    return {key: settings[key] for key in ("host", "port", "ca_file", "user")}


async def driver(settings: dict[str, Any]) -> dict[str, float]:
    """The same work through the contract; it also reads where each VM lies, as a job needs."""
    from stillframe.drivers.contracts import VmSnapshotRequest
    from stillframe.drivers.vsphere import open_vsphere

    async with open_vsphere("vc", driver_settings(settings)) as opened:
        vm_ids = [vm.id for vm in (await opened.inventory()).vms]
        places = asyncio.Semaphore(settings["in_flight"])

        async def cycle(vm_id: str) -> None:
            async with places:
                request = VmSnapshotRequest(vm_id, "evidence", True, 300.0)
                made = await opened.create_snapshot(request)
                await opened.remove_snapshot(made.ref)

        async def work() -> None:
            async with asyncio.TaskGroup() as tasks:
                for vm_id in vm_ids:
                    tasks.create_task(cycle(vm_id))

        told("ready")
        clock = Clock()
        await work()
        return clock.spent()


def config(settings: dict[str, Any]) -> None:
    """Every VM's whole configuration."""
    from pyVmomi import vim, vmodl

    instance = connect(settings, 1)
    view = view_of_vms(instance)
    kinds = vmodl.query.PropertyCollector
    walk = kinds.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
    spec = kinds.FilterSpec(
        objectSet=[kinds.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
        propSet=[kinds.PropertySpec(type=vim.VirtualMachine, pathSet=["config"])],
    )
    answer = instance.content.propertyCollector.RetrievePropertiesEx(
        [spec], kinds.RetrieveOptions()
    )
    check(len(answer.objects), settings)


def pull(settings: dict[str, Any]) -> None:
    """The estate of the vCenter, ready to be written."""
    from stillframe.live_systems import pull_estate
    from stillframe.topology.estate import dump_estate

    found = pull_estate({"vc": driver_settings(settings)}, "vsphere", lambda *_: None)
    check(len(found.estate.inventory.vms), settings)
    dump_estate(found.estate)


def check(vms: int, settings: dict[str, Any]) -> None:
    """A client that reads too little is not fast."""
    if vms != settings["vms"]:
        raise RuntimeError(f"read {vms} VMs, not {settings['vms']}")


def told(word: str) -> None:
    """Tell the measuring process that counting may begin, and wait for its go-ahead."""
    print(word, flush=True)
    sys.stdin.readline()


def peak_bytes() -> int:
    """The most memory that the process has had resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Clock:
    """Started when the work begins."""

    def __init__(self) -> None:
        self.bytes = peak_bytes()
        self.wall_s, self.cpu_s = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        """Wall and CPU seconds since the start, peak memory, and by how much that has grown."""
        wall_s, cpu_s = time.perf_counter() - self.wall_s, time.process_time() - self.cpu_s
        peak = peak_bytes()
        return {
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            "peak_bytes": peak,
            "grown_bytes": peak - self.bytes,
        }


def main() -> None:
    """Measure one mode."""
    mode, settings = sys.argv[1], json.loads(sys.argv[2])
    if mode == "driver":
        answer = asyncio.run(driver(settings))
    else:
        if mode == "script":
            work = script(settings)
        else:
            for module in MODULES[mode]:
                importlib.import_module(module)
            reader = {"config": config, "pull": pull}[mode]

            def work() -> None:
                reader(settings)

        told("ready")
        clock = Clock()
        work()
        answer = clock.spent()
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
