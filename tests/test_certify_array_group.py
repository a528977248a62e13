"""Group atomicity and fences: the reference passes, every canary fails, and the control works."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest
from support_certify import certified

from stillframe.certify import writers
from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canaries import array_fence as fence_canaries
from stillframe.certify.canaries import array_group as group_canaries
from stillframe.certify.canaries.loaded import Retelling, loaded
from stillframe.certify.canary import BrokenDriver, Canary, with_driver
from stillframe.certify.checks import array_fence, array_group
from stillframe.certify.outcome import Outcome, Verdict
from stillframe.certify.targets.modelled_array import CopyOnWriteArray, RedirectOnWriteArray
from stillframe.drivers.contracts import (
    ArrayCapabilities,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    Window,
)
from stillframe.drivers.records import UnitId

REQUIREMENTS = (*array_group.TOPIC.requirements, *array_fence.TOPIC.requirements)
CANARIES = (*group_canaries.CANARIES, *fence_canaries.CANARIES)
KINDS = (RedirectOnWriteArray, CopyOnWriteArray)


def outcomes(
    kind: type[ArrayTarget], *ids: str, settings: Any = None, **options: Any
) -> dict[str, Outcome]:
    """What became of these requirements (of all, if none is named)."""
    result = certified(kind, REQUIREMENTS, settings, only=frozenset(ids), **options)
    return {one.requirement_id: one for one in result.outcomes}


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_passes_and_tells_its_power(kind: type[ArrayTarget]) -> None:
    found = outcomes(kind)
    assert {one.verdict for one in found.values()} == {Verdict.PASS}, found
    for number in (2, 3, 4, 5, 6):
        evidence = found[f"ARR-GRP-0{number}"].evidence
        assert evidence["control"]["torn"]
        power, writes = evidence["power"], evidence["writes"]
        assert power["rounds"] >= 2
        assert writes["spacing_s"] < power["gap_found_s"] < power["gap_found_each_round_s"]
        assert power["gap_found_in_theory_s"] < power["gap_found_each_round_s"]
    assert found["ARR-GRP-01"].evidence["control"]["torn"]
    assert all(found[f"ARR-GRP-0{number}"].compared_bytes > 2**20 for number in range(1, 10))


@pytest.mark.parametrize(
    ("canary", "kind"),
    list(zip(CANARIES, cycle(KINDS), strict=False)),
    ids=[canary.id for canary in CANARIES],
)
def test_a_canary_fails_what_it_breaks(canary: Canary[Any], kind: type[ArrayTarget]) -> None:
    made = canary.make(kind)
    options: dict[str, Any] = {"settings": dict(canary.settings), "limits": dict(canary.limits)}
    broken = outcomes(made, canary.breaks, **options)[canary.breaks]
    assert broken.verdict is Verdict.FAIL, broken
    assert outcomes(kind, canary.breaks, **options)[canary.breaks].verdict is Verdict.PASS


def test_the_same_seed_gives_the_same_evidence() -> None:
    first, again = (outcomes(RedirectOnWriteArray, "ARR-GRP-03", seed=7) for _ in range(2))
    assert first == again
    other = outcomes(RedirectOnWriteArray, "ARR-GRP-03", seed=8)
    assert other["ARR-GRP-03"].evidence != first["ARR-GRP-03"].evidence


def test_a_torn_sequence_is_the_evidence() -> None:
    torn = outcomes(loaded(Retelling)(RedirectOnWriteArray), "ARR-GRP-02")["ARR-GRP-02"]
    evidence = torn.evidence
    by_number = {one["write"]: one for one in evidence["sequence"]}
    missing = by_number[evidence["missing"]]
    assert evidence["round"] == 1
    assert len(evidence["unit_ids"]) == len(evidence["group"]) == 4
    assert not missing["in_image"]
    later = [
        one for one in evidence["sequence"] if one["in_image"] and one["write"] > missing["write"]
    ]
    assert later
    assert all(missing["acknowledged_s"] <= one["issued_s"] for one in later)
    assert min(one["write"] for one in later) == evidence["held"]
    before = [one for one in evidence["sequence"] if one["write"] < missing["write"]]
    assert all(one["in_image"] for one in before)


def test_a_gap_that_the_power_says_is_found_is_found() -> None:
    found = outcomes(RedirectOnWriteArray, "ARR-GRP-02")["ARR-GRP-02"]
    wide = type("Wide", (Retelling,), {"gap_s": found.evidence["power"]["gap_found_s"]})
    for seed in range(3):
        torn = outcomes(loaded(wide)(RedirectOnWriteArray), "ARR-GRP-02", seed=seed)
        assert torn["ARR-GRP-02"].verdict is Verdict.FAIL


class Blind(BrokenDriver):
    """Reads every snapshot from the first one of the unit that it ever made."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        self._held: dict[tuple[UnitId, int, int], bytes] = {}

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        key = (unit_id, offset_bytes, length_bytes)
        if key not in self._held:
            self._held[key] = await self.inner.read_back(ref, unit_id, offset_bytes, length_bytes)
        return self._held[key]


@pytest.mark.parametrize("requirement", ["ARR-GRP-01", "ARR-GRP-02", "ARR-GRP-03"])
def test_what_would_not_show_a_tear_is_not_a_pass(requirement: str) -> None:
    blind = outcomes(with_driver(Blind)(RedirectOnWriteArray), requirement)[requirement]
    assert blind.verdict is Verdict.NOT_TESTED
    assert "the control did not come out torn" in blind.reason
    assert not blind.evidence["control"]["torn"]


class Declaring(BrokenDriver):
    """Declares less than it can do."""

    less: ArrayCapabilities

    @property
    def capabilities(self) -> ArrayCapabilities:
        return self.less


def declaring(**less: Any) -> type[ArrayTarget]:
    """The reference with a driver that declares this."""
    kind = type("Less", (Declaring,), {"less": ArrayCapabilities(**less)})
    made: type[ArrayTarget] = with_driver(kind)(RedirectOnWriteArray)
    return made


def test_a_driver_without_atomic_groups_is_held_to_single_units_only() -> None:
    found = outcomes(declaring(units_per_group=4, snapshots_per_unit=8, reads_back=True))
    absent = {f"ARR-GRP-0{number}" for number in range(2, 7)} | {"ARR-FNC-01"}
    assert {one for one, what in found.items() if what.verdict is Verdict.ABSENT} == absent
    assert {found[one].verdict for one in set(found) - absent} == {Verdict.PASS}


def test_images_are_read_through_clones_where_snapshots_cannot_be_read() -> None:
    kind = declaring(atomic_groups=True, units_per_group=4, snapshots_per_unit=8, clones=True)
    found = outcomes(kind, "ARR-GRP-02", "ARR-GRP-07")
    assert {one.verdict for one in found.values()} == {Verdict.PASS}
    neither = declaring(atomic_groups=True, units_per_group=4, snapshots_per_unit=8)
    found = outcomes(neither, "ARR-GRP-02", "ARR-GRP-07", "ARR-GRP-09", "ARR-FNC-01")
    assert {one.reason for one in found.values()} == {
        "the driver can neither read a snapshot back nor clone it"
    }


def test_a_driver_that_takes_one_unit_at_a_time_shows_nothing_of_groups() -> None:
    kind = declaring(atomic_groups=True, units_per_group=1, snapshots_per_unit=8, reads_back=True)
    found = outcomes(kind, "ARR-GRP-02", "ARR-GRP-05", "ARR-GRP-07")
    assert found["ARR-GRP-02"].reason == "a group call takes one unit only"
    assert found["ARR-GRP-05"].verdict is Verdict.NOT_TESTED
    assert found["ARR-GRP-07"].verdict is Verdict.PASS


class Vague(BrokenDriver):
    """Tells no point in time, and an upper bound of the fence."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        assert made.fence is not None
        fence = Window(made.fence.start_s, made.fence.end_s, exact=False)
        return GroupSnapshot(made.ref, made.unit_ids, None, fence)


def test_what_is_not_told_is_not_tested() -> None:
    found = outcomes(with_driver(Vague)(RedirectOnWriteArray), "ARR-FNC-01", "ARR-FNC-02")
    assert {one.verdict for one in found.values()} == {Verdict.NOT_TESTED}


class Failing(BrokenDriver):
    """Breaks the writes of hosts when it makes a snapshot."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        self.target.broken = True
        return made


def broken(how: str) -> type[ArrayTarget]:
    """A target whose hosts' writes fail, or hang, once a snapshot has been made."""

    class Broken(with_driver(Failing)(RedirectOnWriteArray)):  # type: ignore[misc]
        broken = False

        async def write(self, *args: Any) -> None:
            if self.broken and how == "fail":
                raise OSError("all paths are down")
            if self.broken:
                self.array.data.stop()
            await super().write(*args)

    return Broken


@pytest.mark.parametrize(
    ("how", "reason"), [("fail", "a write failed"), ("hang", "writes stand still")]
)
def test_hosts_whose_writes_fail_or_hang_break_their_own_requirement_only(
    how: str, reason: str
) -> None:
    own = outcomes(broken(how), "ARR-FNC-04")["ARR-FNC-04"]
    assert own.verdict is Verdict.FAIL
    assert reason in own.reason
    other = outcomes(broken(how), "ARR-GRP-02")["ARR-GRP-02"]
    assert other.verdict is Verdict.BLOCKED
    assert reason in other.reason


def test_loads_fit_into_what_checks_may_write() -> None:
    for load in (writers.LIGHT, writers.HEAVY):
        assert load.length_bytes <= 1 << 20
        assert all(shape.write_bytes % 4096 == 0 for shape in load.shapes)
