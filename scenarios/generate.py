"""Seeded estates with the features that make targeted snapshots interesting.

The generator follows how estates are cabled: a cluster sees a *neighbourhood* of a few datastores
on one array, and a VM whose disks lie on several datastores stays inside its neighbourhood. Without
that locality a tenth of spanning VMs would tie a whole estate into one component, which real
estates do not show; ``neighbourhood`` and ``cross_array_share`` set how far a VM may reach.

Shares are inputs of a model, not measurements: none of the defaults has a source.
"""

from __future__ import annotations

import random
from bisect import bisect
from itertools import accumulate
from typing import Annotated

from pydantic import Field, model_validator

from ..drivers.records import (
    Disk,
    DiskMode,
    Estate,
    Inventory,
    PowerState,
    Vm,
)
from ..errors import InputError
from ..orchestrator.spec import Count, Section
from .cabling import TIB, Cabling, Counts, Neighbourhood, Store

Share = Annotated[float, Field(ge=0, le=1)]

GIB = 2**30

# Environment, its folder, its share of the VMs, and the backup tag its VMs carry.
_ENVIRONMENTS = (
    ("prod", "Production", 0.60, "backup:daily"),
    ("test", "Test", 0.25, "backup:weekly"),
    ("dev", "Development", 0.15, "backup:none"),
)
# Role, its folder, its share, whether it runs on Windows more often than the estate as a whole.
_ROLES = (
    ("web", "Web", 0.24, 0.6),
    ("app", "Applications", 0.26, 1.0),
    ("db", "Databases", 0.18, 1.0),
    ("file", "Files", 0.10, 1.6),
    ("mail", "Mail", 0.06, 1.6),
    ("ci", "Build", 0.10, 0.3),
    ("erp", "ERP", 0.06, 1.2),
)
_WINDOWS = (
    "Microsoft Windows Server 2016 (64-bit)",
    "Microsoft Windows Server 2019 (64-bit)",
    "Microsoft Windows Server 2022 (64-bit)",
)
_LINUX = (
    "Red Hat Enterprise Linux 8 (64-bit)",
    "Ubuntu Linux (64-bit)",
    "SUSE Linux Enterprise 15 (64-bit)",
    "Debian GNU/Linux 11 (64-bit)",
)
_BOOT_SIZES = (40 * GIB, 60 * GIB, 80 * GIB, 100 * GIB)
_DATA_SIZES = (50 * GIB, 100 * GIB, 200 * GIB, 500 * GIB, TIB)


class GeneratedEstate(Section):
    """An estate made from counts and shares; the same values always make the same estate.

    Attributes
    ----------
    vms, datastores, arrays, vcenters:
        How many of each. ``datastores`` does not count ``local_datastores``.
    clusters, hosts:
        How many; left out, one cluster per 16 hosts and one host per 25 VMs.
    seed:
        Drives every draw here; the scenario's seed does not, so that runs with several seeds
        study one estate.
    neighbourhood:
        Datastores that one cluster shares on one array; a VM spans datastores inside it only.
    nfs_share:
        Share of datastores that are NFS exports; the others are VMFS.
    multi_extent_share:
        Share of VMFS datastores that lie on two LUNs.
    two_disk_share, three_disk_share:
        Shares of VMs with two and with three disks; the others have one.
    span_share:
        Share of VMs whose last disk lies on another datastore of the neighbourhood. They have
        two disks at least, whatever the two shares above say.
    cross_array_share:
        Share of VMs whose last disk lies on another array.
    raw_share:
        Share of VMs with a physical raw device mapping, on a LUN of its own.
    independent_share:
        Share of VMs whose last disk is independent, so that no VM snapshot holds it still.
    mixed_share:
        Share of VMs placed without regard to their environment. The others keep to
        neighbourhoods of production, test or development; with fewer than four neighbourhoods
        all VMs are mixed.
    template_share, off_share:
        Shares of VMs that are templates, and of the others that are powered off.
    windows_share:
        Share of Windows guests; it varies by role around this.
    no_tools_share:
        Share of running VMs whose guest tools cannot quiesce.
    foreign_snapshot_share:
        Share of VMs that already carry a snapshot that is not ours.
    home_elsewhere_share:
        Share of VMs whose configuration lies on another datastore than their first disk.
    local_datastores, local_share:
        Datastores on disks inside a host, which no array can snapshot, and the share of VMs
        there.
    """

    vms: Count = 100
    datastores: Count = 8
    arrays: Count = 2
    vcenters: Count = 1
    clusters: Count | None = None
    hosts: Count | None = None
    seed: int = 1
    neighbourhood: Count = 3
    nfs_share: Share = 0.25
    multi_extent_share: Share = 0.1
    two_disk_share: Share = 0.25
    three_disk_share: Share = 0.08
    span_share: Share = 0.06
    cross_array_share: Share = 0.0
    raw_share: Share = 0.005
    independent_share: Share = 0.02
    mixed_share: Share = 0.03
    template_share: Share = 0.01
    off_share: Share = 0.08
    windows_share: Share = 0.5
    no_tools_share: Share = 0.05
    foreign_snapshot_share: Share = 0.03
    home_elsewhere_share: Share = 0.0
    local_datastores: Annotated[int, Field(ge=0)] = 0
    local_share: Share = 0.01

    @property
    def neighbourhoods(self) -> int:
        """Into how many neighbourhoods the datastores fall."""
        return -(-self.datastores // self.neighbourhood)

    @property
    def host_count(self) -> int:
        """``hosts``, or one per 25 VMs, but at least one per cluster and two in all."""
        return self.hosts or max(2, -(-self.vms // 25), self.clusters or 1)

    @property
    def cluster_count(self) -> int:
        """``clusters``, or one per 16 hosts as far as neighbourhoods and vCenters allow."""
        hosts = self.hosts or max(2, -(-self.vms // 25))
        return self.clusters or max(self.vcenters, min(self.neighbourhoods, -(-hosts // 16)))

    @model_validator(mode="after")
    def _counts_fit(self) -> GeneratedEstate:
        room = f"the {self.neighbourhoods} neighbourhoods of {self.neighbourhood} datastores"
        if self.arrays > self.neighbourhoods:
            raise ValueError(f"arrays: {self.arrays} is more than {room}")
        if self.cluster_count > self.neighbourhoods:
            raise ValueError(f"clusters: {self.cluster_count} is more than {room}")
        if self.vcenters > self.cluster_count:
            raise ValueError(f"vcenters: {self.vcenters} is more than the clusters")
        if self.host_count < self.cluster_count:
            raise ValueError(f"hosts: {self.host_count} is less than the clusters")
        if self.two_disk_share + self.three_disk_share > 1:
            raise ValueError("two_disk_share and three_disk_share together exceed 1")
        if self.cross_array_share and self.arrays < 2:
            raise ValueError("cross_array_share needs two arrays at least")
        return self

    def build(self) -> Estate:
        """The estate; 50,000 VMs take about a second."""
        return _Builder(self).build()


class _Builder:
    """One estate in the making; every draw comes from one generator in a fixed order.

    Only ``Random.random`` is used: its sequence for a seed is the same on every Python version.
    """

    def __init__(self, config: GeneratedEstate) -> None:
        self.config = config
        self.draw = random.Random(config.seed).random
        self.cabling = Cabling(
            Counts(
                config.datastores,
                config.arrays,
                config.vcenters,
                config.cluster_count,
                config.host_count,
                config.neighbourhood,
                config.local_datastores,
                config.nfs_share,
                config.multi_extent_share,
            ),
            self.draw,
        )

    def build(self) -> Estate:
        vms = self._vms()
        cabling = self.cabling
        inventory = Inventory(
            cabling.vcenters, cabling.clusters, cabling.hosts, cabling.datastores(), vms
        )
        return Estate(inventory, cabling.arrays, cabling.units())

    def _vms(self) -> tuple[Vm, ...]:
        config, draw, cabling = self.config, self.draw, self.cabling
        areas, local_stores = cabling.areas, cabling.local
        width = len(str(config.vms))
        # A neighbourhood takes VMs by its number of datastores: the last one may be smaller.
        area_ends = list(accumulate(len(area.stores) for area in areas))
        environments = list(accumulate(env[2] for env in _ENVIRONMENTS))
        count = len(areas)
        mixed_share = config.mixed_share if count > 3 else 1.0
        roles = list(accumulate(role[2] for role in _ROLES))
        numbers: dict[str, int] = {}
        vms = []
        for i in range(config.vms):
            index = bisect(area_ends, draw() * area_ends[-1])
            area = areas[index]
            share = draw() if draw() < mixed_share else (index + 0.5) / count
            env = _ENVIRONMENTS[min(bisect(environments, share), len(_ENVIRONMENTS) - 1)]
            role = _ROLES[min(bisect(roles, draw()), len(_ROLES) - 1)]
            stem = f"{env[0]}-{role[0]}"
            number = numbers[stem] = numbers.get(stem, 0) + 1
            name = f"{stem}-{number:03d}"
            host_id: str | None = area.host_ids[int(draw() * len(area.host_ids))]
            vcenter_id = area.vcenter_id
            stores = self._placement(area)
            if local_stores and draw() < config.local_share:
                local = int(draw() * len(local_stores))
                stores = [local_stores[local]]
                host = cabling.hosts[local % len(cabling.hosts)]
                host_id, vcenter_id = host.id, host.vcenter_id
            disks = self._disks(area, name, stores)
            home = stores[0]
            if draw() < config.home_elsewhere_share and stores[0].array_id is not None:
                home = area.stores[int(draw() * len(area.stores))]
            windows = draw() < config.windows_share * role[3]
            guests = _WINDOWS if windows else _LINUX
            template = draw() < config.template_share
            on = not template and draw() >= config.off_share
            tools = draw() >= config.no_tools_share
            vms.append(
                Vm(
                    id=f"{vcenter_id}/vm-{i + 1:0{width}d}",
                    vcenter_id=vcenter_id,
                    name=name,
                    host_id=host_id,
                    power_state=PowerState.ON if on else PowerState.OFF,
                    home_datastore_id=home.id,
                    disks=disks,
                    folder=f"{env[1]}/{role[1]}",
                    tags=(env[3], f"role:{role[0]}"),
                    is_template=template,
                    guest_os=guests[int(draw() * len(guests))],
                    can_quiesce=tools if on else None,
                    snapshot_count=1 if draw() < config.foreign_snapshot_share else 0,
                )
            )
        return tuple(vms)

    def _placement(self, area: Neighbourhood) -> list[Store]:
        """The datastore of every disk of one VM."""
        config, draw = self.config, self.draw
        weights = area.weights
        home_index = min(bisect(weights, draw() * weights[-1]), len(weights) - 1)
        home = area.stores[home_index]
        u = draw()
        disks = 3 if u < config.three_disk_share else 1
        if disks == 1 and u < config.three_disk_share + config.two_disk_share:
            disks = 2
        u = draw()
        if u < config.cross_array_share:
            other = self._elsewhere(area)
            return [home] * max(1, disks - 1) + [other]
        if u < config.cross_array_share + config.span_share and len(area.stores) > 1:
            step = 1 + int(draw() * (len(area.stores) - 1))
            other = area.stores[(home_index + step) % len(area.stores)]
            return [home] * max(1, disks - 1) + [other]
        return [home] * disks

    def _elsewhere(self, area: Neighbourhood) -> Store:
        """A datastore of the next neighbourhood on another array, the same one every time.

        One fixed partner keeps components small: free choice would tie everything together.
        """
        areas = self.cabling.areas
        start = areas.index(area)
        for step in range(1, len(areas)):
            partner = areas[(start + step) % len(areas)]
            if partner.array_index != area.array_index and partner.vcenter_id == area.vcenter_id:
                return partner.stores[0]
        raise InputError(
            "generate",
            "cross_array_share",
            f"{area.vcenter_id} sees one array only",
            "fewer vcenters, more datastores, or a share of 0",
        )

    def _disks(self, area: Neighbourhood, name: str, stores: list[Store]) -> tuple[Disk, ...]:
        config, draw = self.config, self.draw
        raw = draw() < config.raw_share and stores[0].array_id is not None
        independent = draw() < config.independent_share and len(stores) > 1
        disks = []
        for i, store in enumerate(stores):
            sizes = _DATA_SIZES if i else _BOOT_SIZES
            size = sizes[int(draw() * len(sizes))]
            store.used_bytes += size
            suffix = f"_{i}" if i else ""
            disks.append(
                Disk(
                    2000 + i,
                    f"[{store.name}] {name}/{name}{suffix}.vmdk",
                    store.id,
                    size,
                    DiskMode.INDEPENDENT_PERSISTENT
                    if independent and i == len(stores) - 1
                    else DiskMode.PERSISTENT,
                )
            )
        if raw:
            disks.append(self._raw_disk(area.array_index, name, stores[0], len(stores)))
        return tuple(disks)

    def _raw_disk(self, array_index: int, name: str, store: Store, position: int) -> Disk:
        device = self.cabling.lun(array_index)
        size = _DATA_SIZES[int(self.draw() * len(_DATA_SIZES))]
        self.cabling.add_raw_unit(device, array_index, size)
        return Disk(
            2000 + position,
            f"[{store.name}] {name}/{name}_rdm.vmdk",
            store.id,
            size,
            raw_device=device,
            raw_is_physical=True,
        )
