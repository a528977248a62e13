"""What a run says of its images: read from its own tables, never assumed."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_verify import Ack, claim

from stillframe.drivers.contracts import ConsistencyLevel, GroupSnapshotRef
from stillframe.errors import StillframeError
from stillframe.lab.pattern import PatternReport
from stillframe.lab.verify import ImageLevel, verdict_on
from stillframe.lab.verify_claims import claims_of, held_span, mount_point
from stillframe.lab.verify_image import DiskImage
from stillframe.reports.rundata import SCHEMAS, RunData
from stillframe.reports.tables import table

VM = "host/vm-0"
REF = GroupSnapshotRef("array", "7", "tag-1")
STORES = ("host/lab/ds0", "host/lab/ds1")
UNITS = ("array/unit-0", "array/unit-1")


def row(name: str, **values: Any) -> tuple[Any, ...]:
    empty = {"units": [], "vms": [], "arrays": [], "snapshots": [], "tags": []}
    empty |= {"datastores": [], "disk_levels": [], "excluded_disks": []}
    return tuple(values.get(column, empty.get(column)) for column in SCHEMAS[name])


def run_data(
    files: list[tuple[int, str, str, str]],
    *,
    vm: dict[str, Any] | None = None,
    under: dict[str, tuple[str, ...]] | None = None,
    cut_units: tuple[str, ...] = UNITS,
) -> RunData:
    """A run with one VM with these files: key, path, datastore, role."""
    places = under or {STORES[0]: UNITS[:1], STORES[1]: UNITS[1:]}
    rows = {
        "vms": [row("vms", vm_id=VM, **(vm or {}))],
        "calls": [
            row("calls", tag="tag-1", units=list(cut_units), requested_s=20.0, completed_s=21.0)
        ],
        "placements": [
            row("placements", datastore_id=store, unit_id=unit)
            for store, units in places.items()
            for unit in units
        ],
        "catalogue": [
            row(
                "catalogue",
                vm_id=VM,
                level="filesystem",
                arrays=["array"],
                snapshots=["7"],
                tags=["tag-1"],
                units=list(UNITS),
            )
        ],
        "images": [
            row("images", vm_id=VM, disk_key=key, path=path, datastore_id=store, role=role)
            for key, path, store, role in files
        ],
    }
    return RunData(
        meta={}, **{name: table(rows.get(name, ()), schema) for name, schema in SCHEMAS.items()}
    )


WIDE = [
    (2000, "/lab/ds0/vm-0/disk0.raw", STORES[0], "base"),
    (2001, "/lab/ds1/vm-0/disk1.raw", STORES[1], "base"),
]
SEEN = {
    "requested_s": 9.0,
    "quiesce_start_s": 10.0,
    "quiesce_s": 1.0,
    "stun_create_start_s": 10.4,
    "stun_create_s": 0.2,
    "opened_s": 11.5,
}


def test_every_disk_is_looked_for_where_its_metadata_said() -> None:
    (found,) = claims_of(run_data(WIDE, vm=SEEN))
    assert (found.vm_id, found.name, found.level) == (VM, "vm-0", ConsistencyLevel.FILESYSTEM)
    assert [disk.path for disk in found.disks] == [
        PurePosixPath("vm-0/disk0.raw"),
        PurePosixPath("vm-0/disk1.raw"),
    ]
    assert [disk.unit_id for disk in found.disks] == list(UNITS)
    assert [disk.ref for disk in found.disks] == [REF, REF]
    assert mount_point(STORES[1]) == Path("/lab/ds1")


@pytest.mark.parametrize(
    ("unseen", "span"),
    [
        ((), (10.4, 11.0)),
        (("stun_create_start_s", "stun_create_s"), (10.0, 11.0)),
        (("quiesce_start_s", "quiesce_s"), (10.4, 10.6)),
        (("stun_create_start_s", "quiesce_start_s"), (9.0, 11.5)),
    ],
)
def test_the_image_is_as_of_the_closest_window_that_was_seen(
    unseen: tuple[str, ...], span: tuple[float, float]
) -> None:
    vm = {**SEEN, **dict.fromkeys(unseen)}
    assert held_span(vm) == pytest.approx(span)


def test_a_live_disk_is_as_of_the_call_that_cut_it() -> None:
    live = [(key, path, store, "live") for key, path, store, _ in WIDE]
    (found,) = claims_of(run_data(live, vm=SEEN))
    assert (found.frozen_s, found.thawed_s) == (20.0, 21.0)


def test_a_vm_with_held_and_live_disks_is_bounded_by_both() -> None:
    mixed = [WIDE[0], (*WIDE[1][:3], "live")]
    (found,) = claims_of(run_data(mixed, vm=SEEN))
    assert (found.frozen_s, found.thawed_s) == (10.4, 21.0)


def test_a_chain_of_files_is_not_taken_for_its_base() -> None:
    foreign = (2000, "/lab/ds0/vm-0/disk0.backup.qcow2", STORES[0], "base")
    (found,) = claims_of(run_data([WIDE[0], foreign, WIDE[1]], vm=SEEN))
    assert ["chain of 2" in disk.problem for disk in found.disks] == [True, False]


def test_tables_that_contradict_each_other_are_told() -> None:
    with pytest.raises(StillframeError, match="lies on 2 units"):
        claims_of(run_data(WIDE, vm=SEEN, under={STORES[0]: UNITS, STORES[1]: UNITS[1:]}))
    with pytest.raises(StillframeError, match="lies on 0 units"):
        claims_of(run_data(WIDE, vm=SEEN, under={STORES[0]: UNITS[:1]}))
    with pytest.raises(StillframeError, match="no snapshot of its entry holds unit array/unit-1"):
        claims_of(run_data(WIDE, vm=SEEN, cut_units=UNITS[:1]))
    with pytest.raises(StillframeError, match="does not lie on datastore"):
        claims_of(run_data([(2000, "/elsewhere/disk0.raw", STORES[0], "base")], vm=SEEN))


def test_a_vm_without_a_file_is_worth_nothing() -> None:
    (found,) = claims_of(run_data([], vm=SEEN))
    verdict = verdict_on(found, [], [])
    assert (verdict.level_found, verdict.holds) == (ImageLevel.DAMAGED, False)


def image(max_seq: int, *, replayed: bool = False, clean: bool = True) -> DiskImage:
    return DiskImage(replayed, clean, PatternReport(max_seq + 1, 0, 0, max_seq))


acks = st.lists(st.builds(Ack, st.floats(0, 3), st.integers(0, 50)), max_size=20)


@given(acks, st.integers(-1, 52), st.booleans(), st.sampled_from(ConsistencyLevel))
def test_a_verdict_agrees_with_every_acknowledgement(
    heard: list[Ack], last: int, replayed: bool, reported: ConsistencyLevel
) -> None:
    asked = claim("vm-0/disk0.raw", level=reported)
    verdict = verdict_on(asked, [image(last, replayed=replayed)], heard)
    lost = any(ack.t_s <= 1.0 and ack.seq > last for ack in heard)
    late = last > 1 + max((ack.seq for ack in heard if ack.t_s <= 2.0), default=-1)
    good = ImageLevel.CRASH if replayed else ImageLevel.FILESYSTEM
    assert verdict.level_found is (ImageLevel.DAMAGED if lost or late else good)
    enough = {
        ConsistencyLevel.APPLICATION: not (lost or late or replayed),
        ConsistencyLevel.FILESYSTEM: not (lost or late or replayed),
        ConsistencyLevel.CRASH: not (lost or late),
        ConsistencyLevel.UNKNOWN: True,
    }
    assert verdict.holds is enough[reported]


def test_damage_is_worse_than_being_torn() -> None:
    heard = [Ack(0.5, 9), Ack(1.5, 12)]
    disks = ("vm-0/disk0.raw", "vm-0/disk1.raw")
    torn = verdict_on(claim(*disks), [image(9), image(12)], heard)
    lost = verdict_on(claim(*disks), [image(12), image(8)], heard)
    dirty = verdict_on(claim(*disks), [image(12, clean=False), image(9)], heard)
    assert torn.level_found is ImageLevel.TORN
    assert lost.level_found is dirty.level_found is ImageLevel.DAMAGED
    assert not dirty.fsck_clean


def test_a_guest_that_writes_nothing_is_judged_by_its_file_system() -> None:
    asked = claim("vm-0/disk0.raw")
    verdict = verdict_on(asked, [DiskImage(False, True, None)], None)
    assert (verdict.level_found, verdict.max_seq) == (ImageLevel.FILESYSTEM, ())
    assert (verdict.acked_before, verdict.acked_after) == (None, None)
