"""Pruning over an array in memory: what goes, what stays, and being cut off anywhere."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support_jobs import error
from support_memory import Fault, Faults, MemoryArray, small_estate
from support_store import Clock, begin, entry, intent

from stillframe.drivers.contracts import (
    ArrayCapabilities,
    ConsistencyLevel,
    GroupSnapshot,
    GroupSnapshotRef,
)
from stillframe.drivers.errors import BusyError, NeverWillError
from stillframe.orchestrator.journal import IntentKind, Store, StoredEntry
from stillframe.orchestrator.memory_store import MemoryStore
from stillframe.orchestrator.prune import GONE, NO_ROOM, TOO_OLD, Pruned, prune
from stillframe.orchestrator.recover import recover_all
from stillframe.orchestrator.retention import Retention
from stillframe.orchestrator.spec import JobSpec
from stillframe.orchestrator.sqlite_store import SqliteStore
from stillframe.orchestrator.verify import Verification, owner_of, verify_catalogue
from stillframe.sim.loop import SimLoop

SPEC = JobSpec.model_validate({"retry": {"attempts": 2}})
FOREIGN = ["daily", "stillframe-", "stillframe-job1-x", "stillframe-other-3", "stillframe-job1-1-2"]
KEEP_ONE = Retention(keep_last=1)


class Scene:
    """Some ended jobs of two VMs each on one array, an hour apart, and foreign snapshots."""

    def __init__(
        self,
        jobs: int = 3,
        capabilities: ArrayCapabilities | None = None,
        path: Path | None = None,
    ) -> None:
        self.clock = Clock(0.0)
        self.store: Store = (
            MemoryStore(self.clock)
            if path is None
            else SqliteStore(path, clock=self.clock, synchronous="OFF")
        )
        self.faults = Faults()
        self.array = MemoryArray("a1", small_estate(2, 1).units, self.faults, capabilities)
        self.told: list[str] = []
        for tag in FOREIGN:
            self.hold(tag)
        for number in range(1, jobs + 1):
            self.ended_job(f"job{number}", 3600.0 * number)

    def hold(self, tag: str) -> None:
        """An array snapshot that exists."""
        self.array.snapshots.append(
            GroupSnapshot(GroupSnapshotRef("a1", f"id of {tag}", tag), ("a1/lun0",))
        )

    def ended_job(
        self, job_id: str, at_s: float, level: ConsistencyLevel = ConsistencyLevel.CRASH
    ) -> None:
        """A job that has protected two VMs, each in a cut of its own."""
        self.clock.now_s = at_s
        journal = begin(self.store, job_id)
        tags = [f"stillframe-{job_id}-{number}" for number in (1, 2)]
        for tag in tags:
            self.hold(tag)
        entries = [entry(f"vm{i}", [tag], level, 0.0) for i, tag in enumerate(tags)]
        journal.keep(entries, now_s=0.0)
        journal.finish("protected")

    def run(
        self,
        retention: Retention = KEEP_ONE,
        steps: int | None = None,
        policy: Callable[..., list[StoredEntry]] | None = None,
    ) -> Pruned | None:
        """Prune in virtual time; None when the process died after so many steps of the loop."""

        async def main() -> Pruned | None:
            loop = asyncio.get_running_loop()
            work = loop.create_task(
                prune(
                    self.store,
                    retention,
                    {"a1": self.array},
                    now_s=self.clock(),
                    holder="pruner",
                    lease_s=60.0,
                    random=random.Random(1),
                    spec=SPEC,
                    policy=policy,
                    tell=self.told.append,
                )
            )
            if steps is not None:
                for _ in range(steps):
                    await asyncio.sleep(0)
                if not work.done():
                    work.cancel()
                    await asyncio.wait([work])
                    await self._let_it_finish()
                    return None
            answer = await work
            await self._let_it_finish()
            return answer

        with asyncio.Runner(loop_factory=SimLoop) as runner:
            pruned = runner.run(main())
        if pruned is not None:
            assert sorted(self.told) == sorted([*pruned.removed, *pruned.left])
        self.told.clear()
        assert set(FOREIGN) <= set(self.tags())
        return pruned

    async def _let_it_finish(self) -> None:
        await self.array.worker.settle()
        self.array.worker.tasks.clear()

    def recover(self) -> None:
        """Recover what is unfinished instead."""

        async def main() -> None:
            await recover_all(
                self.store,
                SPEC,
                {},
                {"a1": self.array},
                holder="recovery",
                lease_s=60.0,
                random=random.Random(1),
            )
            await self._let_it_finish()

        with asyncio.Runner(loop_factory=SimLoop) as runner:
            runner.run(main())

    def verify(self) -> Verification:
        """Compare catalogue and array, in virtual time."""

        async def main() -> Verification:
            return await verify_catalogue(
                self.store, {"a1": self.array}, spec=SPEC, random=random.Random(1)
            )

        with asyncio.Runner(loop_factory=SimLoop) as runner:
            return runner.run(main())

    def tags(self) -> list[str]:
        """Tags of all array snapshots."""
        return [one.ref.tag for one in self.array.snapshots]

    def ours(self) -> list[str]:
        """Tags of those that are not foreign."""
        return [tag for tag in self.tags() if tag not in FOREIGN]

    def catalogue(self) -> list[tuple[str, str]]:
        """Job and VM of each entry."""
        return [(one.job_id, one.vm_id) for one in self.store.entries()]


def test_what_is_not_kept_goes_with_its_snapshots_and_nothing_else() -> None:
    scene = Scene()
    pruned = scene.run()
    assert pruned is not None
    assert (pruned.withdrawn, pruned.lost, pruned.kept, pruned.left) == (4, 0, 2, [])
    assert scene.catalogue() == [("job3", "vm0"), ("job3", "vm1")]
    assert scene.ours() == ["stillframe-job3-1", "stillframe-job3-2"]
    assert {one.reason for one in scene.store.withdrawn()} == {TOO_OLD}
    assert [(one.status, one.holder, one.open_intents) for one in scene.store.jobs()] == [
        ("protected", "", 0)
    ] * 3
    again = scene.run()
    assert again is not None
    assert again.removed == again.left == []
    assert len(scene.store.withdrawn()) == 2


def test_a_policy_cannot_go_below_the_last_good_entry() -> None:
    scene = Scene(2)
    scene.ended_job("job3", 20_000.0, ConsistencyLevel.UNKNOWN)
    scene.ended_job("job4", 30_000.0)
    scene.array.snapshots.pop()  # of vm1, outside of the program
    pruned = scene.run(policy=lambda entries, now_s: list(entries))
    assert pruned is not None
    assert scene.catalogue() == [("job2", "vm1"), ("job4", "vm0")]
    assert scene.ours() == ["stillframe-job2-2", "stillframe-job4-1"]
    assert pruned.lost == 1
    [(gone, vm_ids)] = [
        (one.job_id, one.vm_ids) for one in scene.store.withdrawn() if one.reason == GONE
    ]
    assert (gone, vm_ids) == ("job4", ("vm1",))


def test_an_array_without_an_answer_keeps_everything() -> None:
    scene = Scene()
    scene.faults.add("list", "a1", *[Fault(error=error(BusyError))] * 2)
    before = (scene.catalogue(), scene.ours())
    pruned = scene.run()
    assert pruned is not None
    assert "array a1 does not list its snapshots" in pruned.left[0]
    assert (scene.catalogue(), scene.ours()) == before


def test_a_snapshot_that_is_not_deleted_is_tried_again_next_time() -> None:
    scene = Scene(2)
    scene.faults.add("delete", "a1", Fault(error=error(NeverWillError)))
    pruned = scene.run()
    assert pruned is not None
    assert [sentence for sentence in pruned.left if "is not deleted: op on object" in sentence]
    assert len(scene.ours()) == 3
    assert scene.store.jobs()[0].open_intents == 1
    assert scene.store.jobs()[0].unfinished
    scene.run()
    assert len(scene.ours()) == 2
    assert not scene.store.jobs()[0].unfinished


def test_a_job_in_other_hands_is_left() -> None:
    scene = Scene(2)
    scene.store.take_over("job1", holder="somebody", lease_s=60.0)
    pruned = scene.run()
    assert pruned is not None
    assert [one for one in pruned.left if "in the hands of somebody" in one]
    assert len(scene.catalogue()) == len(scene.ours()) == 4


def test_a_job_that_has_not_ended_is_left() -> None:
    scene = Scene(2)
    scene.clock.now_s += 100.0
    journal = begin(scene.store, "job0", lease_s=1.0)
    journal.keep([entry("vm0", ["stillframe-job0-1"], point_in_time_s=-9e3)], now_s=0.0)
    journal.intend(intent("stillframe-job0-2", IntentKind.ARRAY_SNAPSHOT))
    scene.hold("stillframe-job0-2")
    scene.clock.now_s += 100.0
    pruned = scene.run()
    assert pruned is not None
    assert pruned.left == ["job job0 has not ended, and is left as it is"]
    assert ("job0", "vm0") in scene.catalogue()
    assert "stillframe-job0-2" in scene.tags()


@pytest.mark.parametrize(("limit", "left"), [(15, 6), (10, 4), (8, 2), (1, 2)])
def test_room_is_kept_for_the_next_job(limit: int, left: int) -> None:
    """Five foreign snapshots count, and a reserve of one; the floor is two."""
    scene = Scene(3, ArrayCapabilities(snapshots_per_unit=limit))
    pruned = scene.run(Retention(reserve=1))
    assert pruned is not None
    assert len(scene.catalogue()) == len(scene.ours()) == left
    assert all(one.reason == NO_ROOM for one in scene.store.withdrawn())
    too_little = limit - 1 < left + len(FOREIGN)
    assert bool(pruned.left) == too_little
    lower = Scene(3, ArrayCapabilities(snapshots_per_unit=100))
    lower.run(Retention(snapshots_per_unit=limit))
    assert len(lower.ours()) == left


def test_room_is_not_counted_on_from_jobs_that_have_not_ended() -> None:
    scene = Scene(2, ArrayCapabilities(snapshots_per_unit=10))
    scene.clock.now_s += 100.0
    journal = begin(scene.store, "job0")
    journal.keep([entry("vm0", ["stillframe-job0-1"], point_in_time_s=-9e3)], now_s=0.0)
    scene.hold("stillframe-job0-1")
    scene.run(Retention(reserve=1))
    assert len(scene.tags()) == 9
    assert "stillframe-job0-1" in scene.ours()


def test_what_goes_anyhow_makes_room() -> None:
    scene = Scene(3, ArrayCapabilities(snapshots_per_unit=10))
    scene.run(Retention(keep_last=2))
    assert len(scene.tags()) == 9
    assert {one.reason for one in scene.store.withdrawn()} == {TOO_OLD}


def test_an_entry_that_is_lost_does_not_count_as_kept() -> None:
    scene = Scene(3)
    scene.array.snapshots.pop()
    scene.run(Retention(keep_last=2))
    assert scene.catalogue() == [("job1", "vm1"), ("job2", "vm0"), ("job2", "vm1"), ("job3", "vm0")]


def test_a_tag_of_another_form_is_never_deleted_whatever_the_journal_says() -> None:
    scene = Scene(1)
    journal = scene.store.take_over("job1", holder="somebody", lease_s=0.0)
    for tag in FOREIGN:
        journal.intend(intent(tag, IntentKind.ARRAY_SNAPSHOT))
    journal.finish("protected")
    scene.run()
    assert set(FOREIGN) <= set(scene.tags())


def test_a_cut_that_another_job_names_stays() -> None:
    scene = Scene(2)
    scene.clock.now_s += 10.0
    other = begin(scene.store, "other")
    other.keep([entry("vm9", ["stillframe-job1-1"])], now_s=0.0)
    other.finish("protected")
    scene.run()
    assert scene.ours() == ["stillframe-job1-1", "stillframe-job2-1", "stillframe-job2-2"]


@settings(deadline=None)
@given(st.integers(0, 30), st.booleans(), st.booleans())
def test_pruning_that_is_cut_off_anywhere_is_finished_by_who_comes_next(
    steps: int, sqlite: bool, recover: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.db") if sqlite else None
        scene = Scene(path=path)
        cut_off = scene.run(steps=steps) is None
        if path is not None:
            assert isinstance(scene.store, SqliteStore)
            scene.store.abandon()
            scene.store = SqliteStore(path, clock=scene.clock, synchronous="OFF")
        assert not scene.verify().lost
        assert {("job3", "vm0"), ("job3", "vm1")} <= set(scene.catalogue())
        scene.clock.now_s += 61.0  # the lease of the one that died
        if recover:
            scene.recover()
            assert scene.verify().true
            assert not [one for one in scene.store.jobs() if one.unfinished]
        scene.run()
        assert scene.catalogue() == [("job3", "vm0"), ("job3", "vm1")]
        assert scene.ours() == ["stillframe-job3-1", "stillframe-job3-2"]
        assert scene.verify().true
        scene.store.close()
        event("cut off" if cut_off else "to its end")


def test_verifying_tells_what_is_lost_forgotten_and_unknown() -> None:
    scene = Scene(2)
    assert scene.verify().true
    scene.array.snapshots = [
        one for one in scene.array.snapshots if one.ref.tag != "stillframe-job1-2"
    ]
    scene.hold("stillframe-job2-7")
    scene.hold("stillframe-job9-1")
    found = scene.verify()
    assert [(one.entry.job_id, one.cuts[0].tag) for one in found.lost] == [
        ("job1", "stillframe-job1-2")
    ]
    assert [ref.tag for ref in found.unnamed] == ["stillframe-job2-7"]
    assert (len(found.good), found.unknown, found.silent, found.true) == (3, [], [], False)
    scene.store.take_over("job2", holder="somebody", lease_s=60.0)
    assert scene.verify().unnamed == []
    scene.faults.add("list", "a1", *[Fault(error=error(BusyError))] * 2)
    found = scene.verify()
    assert (len(found.unknown), found.silent, found.true) == (4, ["a1"], False)


def test_a_tag_is_ours_by_its_whole_form() -> None:
    assert owner_of("stillframe-a-1-12") == "a-1"
    for tag in ("stillframe-12", "stillframe--12", "stillframe-a-", "stillframe-a-\u0661", "a-1"):
        assert owner_of(tag) is None
