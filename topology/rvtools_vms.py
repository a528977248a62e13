"""VMs and their disks out of the vInfo, vDisk, vSnapshot and vTools tabs.

VM names are not unique. Rows of different tabs belong together by server and VM ID, else by server
and VM UUID, and by the name only if one VM bears it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from ..drivers.records import Disk, DiskMode, PowerState, Vm, VmId
from .estate_names import FIRST_DISK_KEY
from .rvtools_compute import Compute, free_id
from .rvtools_read import Row, Table
from .rvtools_report import Report, Severity, Tally
from .rvtools_storage import Storage
from .rvtools_values import (
    DISK_MODES,
    POWER_STATES,
    datastore_of,
    flag,
    is_delta,
    mebibytes,
    number,
    text,
    word,
)

_Key = tuple[str, str, str]


class VmReader:
    """Puts the VMs together, row by row."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        compute: Compute,
        storage: Storage,
        report: Report,
        tally: Tally,
    ) -> None:
        self._tables = tables
        self._compute = compute
        self._storage = storage
        self._report = report
        self._tally = tally
        self._rows: dict[VmId, Row] = {}
        self._index: dict[_Key, VmId | None] = {}
        self._left_out: set[_Key] = set()
        self._kinds: set[str] = set()
        self._enter_vms()
        self._disk_rows = self._grouped("vDisk")
        self._snapshots = Counter(
            vm_id for vm_id, rows in self._grouped("vSnapshot").items() for _ in rows
        )
        self._tools = {vm_id: rows[0] for vm_id, rows in self._grouped("vTools").items()}

    def vms(self) -> tuple[Vm, ...]:
        """The VMs in the order of vInfo, placeholders left out."""
        return tuple(self._vm(vm_id, row) for vm_id, row in self._rows.items())

    def _enter_vms(self) -> None:
        for row in self._tables["vInfo"].rows:
            name = text(row, "vm")
            if not name:
                self._tally.add("nameless", f"row of {text(row, 'host') or 'no host'}")
                continue
            keys = list(self._keys(row))
            if flag(row, "srm"):
                self._tally.add("placeholder", name)
                self._left_out.update(keys)
                self._kinds.update(key[0] for key in keys)
                continue
            exact = [key for key in keys if key[0] != "name"]
            if any(key in self._index for key in exact[:1]):
                self._tally.add("doubled", name)
                continue
            usual = f"{keys[0][1]}/{keys[0][2]}"
            vm_id = free_id(usual, self._rows)
            self._rows[vm_id] = row
            for key in keys:
                self._kinds.add(key[0])
                # None marks what fits several VMs and therefore identifies none.
                self._index[key] = None if key in self._index else vm_id
            if not exact:
                self._tally.add("unidentified", name)

    def _keys(self, row: Row) -> Iterator[_Key]:
        """How a row says which VM it is about, the most certain way first."""
        server = self._compute.server(row)
        for kind, column in (("id", "vm_id"), ("uuid", "vm_uuid"), ("name", "vm")):
            value = text(row, column)
            if value:
                yield kind, server, value

    def _grouped(self, tab: str) -> dict[VmId, list[Row]]:
        """The rows of a tab by VM; rows that fit no VM or several are reported."""
        found: dict[VmId, list[Row]] = {}
        lost: list[str] = []
        table = self._tables.get(tab)
        for row in table.rows if table else ():
            # Only the most certain key that both tabs have counts: a row with the id of a VM
            # that is not there must not fall to another VM of the same name.
            key = next((key for key in self._keys(row) if key[0] in self._kinds), None)
            vm_id = self._index.get(key) if key else None
            if vm_id is not None:
                found.setdefault(vm_id, []).append(row)
            elif key not in self._left_out:
                lost.append(text(row, "vm") or "no name")
        self._report.about(
            Severity.CANNOT,
            tab,
            "VM UUID",
            lost,
            "row",
            "belong to no VM of vInfo, or by their name to several; they are left out, and VMs "
            "of these names may be incomplete",
        )
        return found

    def _vm(self, vm_id: VmId, row: Row) -> Vm:
        name = text(row, "vm")
        server, host = self._compute.server(row), text(row, "host")
        datacenter = text(row, "datacenter") or self._compute.datacenter_of(server, host)
        power = POWER_STATES.get(word(row, "power"))
        if power is None:
            self._tally.add("power", name)
        for topic, problem in (
            ("unconnected", word(row, "connection") not in ("", "connected")),
            ("consolidation", flag(row, "consolidation")),
            ("template", flag(row, "template")),
        ):
            if problem:
                self._tally.add(topic, name)
        home_path = text(row, "path")
        home = self._datastore(home_path, server, host, datacenter, "home", name)
        count = self._snapshots.get(vm_id, 0)
        disks = self._disks(vm_id, name, (server, host, datacenter), count)
        if not disks:
            self._tally.add("diskless", name)
        return Vm(
            id=vm_id,
            vcenter_id=server,
            name=name,
            host_id=self._compute.host_id(row),
            power_state=power or PowerState.ON,
            home_datastore_id=home,
            disks=disks,
            folder=text(row, "folder"),
            is_template=bool(flag(row, "template")),
            guest_os=text(row, "os_tools") or text(row, "os_config"),
            can_quiesce=self._can_quiesce(vm_id),
            snapshot_count=count,
        )

    def _datastore(
        self, path: str, server: str, host: str, datacenter: str, what: str, name: str
    ) -> str | None:
        datastore = datastore_of(path)
        if datastore is None:
            self._tally.add(f"{what} unknown", name)
            return None
        found = self._storage.locate(server, datastore, host, datacenter)
        if found is None:
            self._tally.add(f"{what} ambiguous", name)
        return found

    def _can_quiesce(self, vm_id: VmId) -> bool | None:
        row = self._tools.get(vm_id)
        if row is None:
            return None
        if word(row, "tools") in ("toolsnotinstalled", "toolsnotrunning"):
            return False
        return flag(row, "ready")

    def _disks(
        self, vm_id: VmId, name: str, where: tuple[str, str, str], snapshots: int
    ) -> tuple[Disk, ...]:
        disks: dict[int, Disk] = {}
        for index, row in enumerate(self._disk_rows.get(vm_id, ())):
            key = number(row.get("key"))
            if key is None or key != int(key) or int(key) in disks:
                self._tally.add("disk key", name)
                key = FIRST_DISK_KEY + index
                while key in disks:
                    key += 1
            disks[int(key)] = self._disk(row, int(key), name, where)
        if any(is_delta(disk.path) for disk in disks.values()):
            self._tally.add("delta", name)
            if not snapshots:
                self._tally.add("delta without snapshot", name)
        return tuple(disks.values())

    def _disk(self, row: Row, key: int, name: str, where: tuple[str, str, str]) -> Disk:
        capacity = mebibytes(row, "capacity")
        if capacity is None:
            self._tally.add("disk capacity", name)
        if word(row, "sharing") == "sharingmultiwriter" or word(row, "shared_bus") in (
            "physicalsharing",
            "virtualsharing",
        ):
            self._tally.add("shared", name)
        mode = DISK_MODES.get(word(row, "mode"))
        if mode is None:
            if "mode" in self._tables["vDisk"].columns:
                self._tally.add("disk mode", f"{name}: {text(row, 'mode') or 'empty'}")
            mode = DiskMode.PERSISTENT
        path = text(row, "path")
        raw = bool(flag(row, "raw"))
        what = "raw pointer" if raw else "disk"
        datastore = self._datastore(path, *where, what, name)
        if not raw:
            if mode is not DiskMode.PERSISTENT:
                self._tally.add("independent", name)
            return Disk(key, path, datastore, capacity or 0, mode)
        physical = word(row, "raw_mode").startswith("physical")
        if not physical and not word(row, "raw_mode").startswith("virtual"):
            self._tally.add("raw mode", name)
            physical = True
        device = self._storage.raw_device(text(row, "raw_lun"), capacity or 0)
        if device is None:
            self._tally.add("raw device", name)
            if not physical:
                # Without its device it must not pass for a disk that lies on the pointer's
                # datastore.
                datastore = None
        return Disk(key, path, datastore, capacity or 0, mode, device, physical)
