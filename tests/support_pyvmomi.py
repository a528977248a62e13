"""Plain pyvmomi for tests: what a person with a short script sees of a vCenter."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim, vmodl
from support_vsim import Vsim, small_inventory


class Client:
    """A session on an endpoint; use it as a context manager."""

    def __init__(self, vsim: Vsim) -> None:
        self.si = SmartConnect(
            host=vsim.host,
            port=vsim.port,
            user=vsim.user,
            pwd=vsim.password,
            sslContext=vsim.context(),
        )
        self.content = self.si.content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        Disconnect(self.si)
        self.close_connections()

    def close_connections(self) -> None:
        """Close what the pool holds: pyvmomi leaves that to the garbage collector."""
        self.si._stub.DropConnections()

    def all(self, kind: type) -> dict[str, Any]:
        """The managed objects of a kind, by name."""
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        found = {one.name: one for one in view.view}
        view.Destroy()
        return found

    def vm(self, name: str) -> Any:
        """A VM by its name."""
        return self.all(vim.VirtualMachine)[name]

    def store(self, name: str) -> Any:
        """A datastore by its name."""
        return self.all(vim.Datastore)[name]

    def read(self, thing: Any, *paths: str) -> dict[str, Any]:
        """Properties in one call; those that are unset are missing."""
        collector = vmodl.query.PropertyCollector
        spec = collector.FilterSpec(
            objectSet=[collector.ObjectSpec(obj=thing)],
            propSet=[collector.PropertySpec(type=type(thing), pathSet=list(paths))],
        )
        answer = self.content.propertyCollector.RetrievePropertiesEx(
            [spec], collector.RetrieveOptions()
        )
        return {one.name: one.val for one in answer.objects[0].propSet}

    def finish(self, task: Any) -> Any:
        """Wait for a task; its result, or its fault raised."""
        while True:
            seen = self.read(task, "info.state", "info.result", "info.error")
            if seen["info.state"] == "success":
                return seen.get("info.result")
            if seen["info.state"] == "error":
                raise seen["info.error"]

    def snapshots(self, vm: Any) -> list[Any]:
        """All snapshot tree nodes of a VM, parents first."""
        info = self.read(vm, "snapshot").get("snapshot")
        waiting = list(info.rootSnapshotList) if info else []
        found = []
        while waiting:
            node = waiting.pop(0)
            found.append(node)
            waiting.extend(node.childSnapshotList)
        return found

    def names(self, vm: Any) -> list[str]:
        """The names of a VM's snapshots."""
        return [node.name for node in self.snapshots(vm)]

    def create(self, vm: Any, name: str, *, quiesce: bool = False) -> Any:
        """Take a snapshot and wait for it."""
        return self.finish(vm.CreateSnapshot_Task(name, "", False, quiesce))


@contextlib.contextmanager
def sockets_left_open() -> Iterator[None]:
    """Around calls in which pyvmomi forgets to close a socket (a login that fails).

    The garbage collector finds it, and says so, within this block and not in a later test.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def disks(config: Any) -> dict[int, list[str]]:
    """The files of each disk by device key, base first."""
    found = {}
    for device in config.hardware.device:
        if isinstance(device, vim.vm.device.VirtualDisk):
            layer, files = device.backing, []
            while layer is not None:
                files.insert(0, layer.fileName)
                layer = layer.parent
            found[device.key] = files
    return found


def layout_disks(layout: Any) -> dict[int, list[str]]:
    """The same from ``layoutEx``: the descriptors of each disk's chain."""
    names = {file.key: file.name for file in layout.file if file.type == "diskDescriptor"}
    return {
        disk.key: [names[key] for unit in disk.chain for key in unit.fileKey if key in names]
        for disk in layout.disk
    }


@pytest.fixture
def vsim() -> Iterator[Vsim]:
    """Six VMs on three datastores; the first one carries somebody else's snapshot."""
    with Vsim(small_inventory(foreign=1), keep=True) as running:
        yield running


@pytest.fixture
def client(vsim: Vsim) -> Iterator[Client]:
    """A session on it."""
    with Client(vsim) as connected:
        yield connected
