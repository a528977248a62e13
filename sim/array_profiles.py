"""How a modelled array behaves: the numbers, and where each of them comes from."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from ..drivers.contracts import ArrayCapabilities, SnapshotMethod
from ..orchestrator.spec import Count, Section
from ..quantity import Bytes, BytesPerSecond, Seconds

Fraction = Annotated[float, Field(ge=0, le=1)]
Sigma = Annotated[float, Field(ge=0, le=3)]

INFERENCE = "inference"
"""The source of a number for which none was found."""

CONFIGURED = "set in the configuration"
"""The source of a number that differs from the named profile's."""


class PoolFullPolicy(StrEnum):
    """What an array does when a write needs snapshot space and there is none left."""

    INVALIDATE_SNAPSHOTS = "invalidate-snapshots"
    """The oldest snapshots are given up until there is space; guests notice nothing."""
    FAIL_WRITES = "fail-writes"
    """The snapshots stay; writes that need space fail until some is freed."""


class ArrayProfile(Section):
    """The behaviour of one array. Medians are those of lognormal times with the sigma beside them.

    In a file, ``profile`` names the profile to start from, and every other field that is given
    replaces its value: ``{profile: cow-hybrid, snapshots_per_unit: 4}``.

    Attributes
    ----------
    method:
        How old data is kept. ``unknown`` is refused: a model has to know.
    units_per_group, snapshots_per_unit:
        Limits of the array; None when there is none.
    group_operations:
        Group snapshots that may run at once. One more, or a second one on a unit that is part of
        a running one, is refused as busy, as ONTAP does for a consistency group.
    management_calls:
        Calls that the management channel works on at once; more wait first in, first out.
    management_latency, management_sigma:
        Time that the channel takes over each call.
    snapshot_base, snapshot_per_unit, snapshot_sigma:
        Work of a group snapshot outside its fence: the base before, the part per unit after it.
    snapshot_per_writer:
        The share by which a group snapshot, its fence included, takes longer for every guest on the
        array that writes all the time (see :class:`.writers.Writers`).
    fence_base, fence_per_unit, fence_sigma:
        Time for which writes to the whole group are held: until the cut for the writes in flight
        to end, and after it per unit.
    fence_timeout_max:
        The longest fence that the array grants, whatever the caller allows.
    snapshot_extent:
        Granularity at which old data is kept: the first write to an extent keeps all of it.
    pool_reserve, pool_bytes:
        Size of the snapshot space: a share of the capacity of all units, unless given in bytes.
    pool_minimum_free:
        Share of the space that must be free for a new snapshot to be accepted.
    on_pool_full:
        See :class:`PoolFullPolicy`.
    io_bandwidth, flow_bandwidth:
        What the array moves for guests, merges and copies together, and what a single stream can
        use of it.
    delete_latency, delete_sigma, reclaim_bandwidth:
        Time until a deleted snapshot is gone, and how fast its space then becomes free.
    retry_after:
        The estimate that a busy array gives.
    sample_first, sample_factor, sample_interval, sample_horizon:
        When the space of a unit is looked at after a cut: after ``sample_first``, then at steps
        that grow by the factor up to the interval (or to an eighth of the snapshot's age, if that
        is longer), until the horizon, when growth ends; it is linear between looks. Properties of
        the model, not of an array.
    load_interval:
        How long a mean of the guests' write rate is used before it is taken anew.
    sources:
        Where the number in a field comes from; see :meth:`source_of`.
    """

    profile: str = "row-flash"
    method: SnapshotMethod = SnapshotMethod.REDIRECT_ON_WRITE
    units_per_group: Count | None = 80
    snapshots_per_unit: Count | None = 1023
    group_operations: Count = 5
    management_calls: Count = 8
    management_latency: Seconds = 0.15
    management_sigma: Sigma = 0.4
    snapshot_base: Seconds = 0.4
    snapshot_per_unit: Seconds = 0.02
    snapshot_sigma: Sigma = 0.3
    snapshot_per_writer: Annotated[float, Field(ge=0, le=1000)] = 0.0
    fence_base: Seconds = 0.2
    fence_per_unit: Seconds = 0.02
    fence_sigma: Sigma = 0.5
    fence_timeout_max: Seconds = 120.0
    snapshot_extent: Annotated[Bytes, Field(gt=0)] = 4 * 1024
    pool_reserve: Annotated[float, Field(gt=0)] = 0.2
    pool_bytes: Annotated[Bytes, Field(gt=0)] | None = None
    pool_minimum_free: Fraction = 0.02
    on_pool_full: PoolFullPolicy = PoolFullPolicy.FAIL_WRITES
    io_bandwidth: Annotated[BytesPerSecond, Field(gt=0)] = 4e9
    flow_bandwidth: Annotated[BytesPerSecond, Field(gt=0)] | None = 100e6
    delete_latency: Seconds = 0.5
    delete_sigma: Sigma = 0.4
    reclaim_bandwidth: Annotated[BytesPerSecond, Field(gt=0)] = 2e9
    retry_after: Seconds = 2.0
    sample_first: Annotated[Seconds, Field(gt=0)] = 2.0
    sample_factor: Annotated[float, Field(ge=1, le=100)] = 3.0
    sample_interval: Annotated[Seconds, Field(gt=0)] = 900.0
    sample_horizon: Seconds = 30 * 86400.0
    load_interval: Annotated[Seconds, Field(gt=0)] = 300.0
    sources: Mapping[str, str] = {}

    @model_validator(mode="after")
    def _start_from_profile(self) -> ArrayProfile:
        base = _SHIPPED.get(self.profile)
        if base is None:
            known = ", ".join(_SHIPPED)
            raise ValueError(f"no array profile is called {self.profile!r}; there are {known}")
        given = self.model_fields_set
        # The instance is frozen for its users, but not finished yet.
        self.__dict__.update({name: base[name] for name in base if name not in given})
        standard = {name: base.get(name, field.default) for name, field in _fields()}
        changed = [name for name in standard if getattr(self, name) != standard[name]]
        sources = {**base["sources"], **dict.fromkeys(changed, CONFIGURED)}
        self.__dict__["sources"] = sources | (dict(self.sources) if "sources" in given else {})
        if self.method is SnapshotMethod.UNKNOWN:
            raise ValueError("method 'unknown' cannot be modelled; name one of the two")
        return self

    def source_of(self, field: str) -> str:
        """Where the value of a field comes from; ``inference`` when no source is known.

        Raises
        ------
        KeyError
            The profile has no such field.
        """
        if field not in type(self).model_fields:
            raise KeyError(field)
        return self.sources.get(field, INFERENCE)

    def capabilities(self) -> ArrayCapabilities:
        """What a driver for an array of this profile declares."""
        return ArrayCapabilities(
            method=self.method,
            atomic_groups=True,
            units_per_group=self.units_per_group,
            snapshots_per_unit=self.snapshots_per_unit,
            group_operations=self.group_operations,
        )


def _fields() -> list[tuple[str, FieldInfo]]:
    fields = ArrayProfile.model_fields.items()
    return [item for item in fields if item[0] not in ("profile", "sources")]


_ROW_FLASH_SOURCES = {
    "method": "ONTAP documentation, snapshot-copies-concept",
    "units_per_group": "ONTAP documentation, consistency-groups/limits: 80 volumes in a group",
    "snapshots_per_unit": "ONTAP documentation, manage-local-snapshot-copies: 1023 per volume",
    "fence_base": "inference, 0.2 to 2 s; the fence itself: ONTAP documentation, "
    "consistency-groups/index",
    "fence_timeout_max": "ONTAP REST documentation, consistency-group snapshots: 5 to 120 s",
    "snapshot_base": "inference; about 1 s in all: Dell SC with Veeam, 4061-SC-SG p. 18 (example)",
    "pool_reserve": "storageknowhow.com, rule of thumb: 10 to 20 % more space",
    "flow_bandwidth": "inference, 30 to 100 MB/s, from VMware KB 316414: 500 GB merge in hours",
}
_ROW_FLASH: dict[str, Any] = {"sources": _ROW_FLASH_SOURCES}
_ROW_RESERVE: dict[str, Any] = {
    "units_per_group": 16,
    "snapshots_per_unit": 512,
    "group_operations": 2,
    "management_calls": 4,
    "management_latency": 0.4,
    "snapshot_base": 1.0,
    "snapshot_per_unit": 0.1,
    "fence_base": 0.3,
    "fence_per_unit": 0.05,
    "fence_timeout_max": 20.0,
    "snapshot_extent": 1024**2,
    "pool_reserve": 1.0,
    "on_pool_full": PoolFullPolicy.INVALIDATE_SNAPSHOTS,
    "io_bandwidth": 1e9,
    "reclaim_bandwidth": 1e9,
    "sources": {
        "snapshots_per_unit": "EqualLogic PS Series, BP1027: 512 per volume",
        "pool_reserve": "EqualLogic PS Series, BP1027: reserve of 100 % of the volume",
        "snapshot_per_unit": "inference; EqualLogic PS Series, BP1027 p. 13: the page table is "
        "copied",
        "flow_bandwidth": _ROW_FLASH_SOURCES["flow_bandwidth"],
    },
}
_COW_HYBRID: dict[str, Any] = {
    "method": SnapshotMethod.COPY_ON_WRITE,
    "units_per_group": 32,
    "snapshots_per_unit": 96,
    "group_operations": 2,
    "management_calls": 4,
    "management_latency": 0.4,
    "snapshot_base": 0.8,
    "snapshot_per_unit": 0.05,
    "fence_base": 0.4,
    "fence_per_unit": 0.05,
    "fence_timeout_max": 30.0,
    "snapshot_extent": 64 * 1024,
    "pool_reserve": 0.4,
    "pool_minimum_free": 0.05,
    "on_pool_full": PoolFullPolicy.INVALIDATE_SNAPSHOTS,
    "io_bandwidth": 1.5e9,
    "delete_latency": 1.0,
    "reclaim_bandwidth": 1e9,
    "sources": {
        "method": "three I/Os at a first overwrite: dcig.com 2011/03, storageswiss.com 2016/04",
        "snapshots_per_unit": "E-Series: 32 per group, 3 groups per volume (Cinder 6b7f476)",
        "on_pool_full": "E-Series CLI, create consistencyGroup: purgeSnapImages by default",
        "flow_bandwidth": _ROW_FLASH_SOURCES["flow_bandwidth"],
    },
}
_COW_SMALL: dict[str, Any] = _COW_HYBRID | {
    "units_per_group": 8,
    "snapshots_per_unit": 8,
    "group_operations": 1,
    "management_calls": 1,
    "management_latency": 1.0,
    "snapshot_base": 2.0,
    "snapshot_per_unit": 0.2,
    "fence_base": 0.8,
    "fence_per_unit": 0.1,
    "fence_timeout_max": 10.0,
    "snapshot_extent": 256 * 1024,
    "pool_reserve": 0.2,
    "pool_minimum_free": 0.1,
    "io_bandwidth": 400e6,
    "flow_bandwidth": 60e6,
    "delete_latency": 2.0,
    "reclaim_bandwidth": 200e6,
    "sources": {name: _COW_HYBRID["sources"][name] for name in ("method", "on_pool_full")},
}

_SHIPPED = {
    "row-flash": _ROW_FLASH,
    "row-reserve": _ROW_RESERVE,
    "cow-hybrid": _COW_HYBRID,
    "cow-small": _COW_SMALL,
}

ARRAY_PROFILES: Mapping[str, ArrayProfile] = {name: ArrayProfile(profile=name) for name in _SHIPPED}
"""The profiles that ship. They are named for their mechanism: most of their numbers are inference,
and none of them claims to be a product. Every field can be overridden."""
