"""Each fault site has its effect where it belongs, and the table below leaves none out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support_array import Lab, outcome
from support_array import request as group
from support_faults import sure
from support_hypervisor import WINDOWS, bench, create, refused
from support_world import Bench, request

from stillframe.drivers.contracts import GroupSnapshot, MergeResult, VmSnapshot, VmSnapshotRef
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    PoolFullError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from stillframe.sim.array import ModelArray
from stillframe.sim.array_calls import ArrayEvent
from stillframe.sim.faults import Site


async def timed(call: Awaitable[Any]) -> tuple[Any, float]:
    """The outcome of a call, and how many seconds it took."""
    clock = asyncio.get_running_loop().time
    start_s = clock()
    return await outcome(call), clock() - start_s


def quiesce_fails() -> None:
    b = bench(faults=sure("quiesce-fails"))
    refused(b, QuiesceFailedError)
    assert b.kinds("vc/a") == ["frozen", "world.fault", "thawed"]
    create(b, quiesce=False)


def quiesce_hangs() -> None:
    b = bench(faults=sure("quiesce-hangs"))
    refused(b, QuiesceTimeoutError, timeout_s=7)
    assert b.times("world.vm.thawed") == pytest.approx([8.0])
    create(b, quiesce=False)


def thaw_lost(guest_os: str = "Linux", thawed_s: float = 31.0) -> None:
    b = bench(guest_os=guest_os, faults=sure("thaw-lost", most=1))

    async def main() -> None:
        answer, waited_s = await timed(b.vc.create_snapshot(request(timeout_s=30)))
        assert isinstance(answer, UnknownOutcomeError)
        assert waited_s < 2
        (state,) = await b.vc.list_snapshots()
        assert state.operation_running
        assert "VM vc/a has a guest that is still frozen" in b.world.leftovers()
        await asyncio.sleep(40)
        (state,) = await b.vc.list_snapshots()
        assert (state.operation_running, state.snapshots) == (False, ())

    b.go(main)
    assert b.times("world.vm.thawed") == pytest.approx([thawed_s])
    assert b.world.leftovers() == []
    create(b)


def late_create() -> None:
    b = bench(faults=sure("late-create", slow_task=500))
    assert create(b).created_s > 500
    assert b.times("world.vm.frozen") == pytest.approx([501.0])


def late_remove() -> None:
    b = bench(faults=sure("late-remove", slow_task=500))
    made = create(b)
    answer, waited_s = b.go(lambda: timed(b.vc.remove_snapshot(made.ref)))
    assert isinstance(answer, MergeResult)
    assert waited_s > 500
    assert answer.delta_bytes == pytest.approx(501 * 10e6, rel=0.01), "it grew meanwhile"


def lost_answer_create() -> None:
    b = bench(faults=sure("lost-answer-create"))
    with pytest.raises(UnknownOutcomeError):
        create(b, tag="ours")
    (state,) = b.go(b.vc.list_snapshots)
    assert [ref.tag for ref in state.snapshots] == ["ours"]
    assert isinstance(b.go(lambda: b.vc.remove_snapshot(state.snapshots[0])), MergeResult)


def lost_answer_remove() -> None:
    b = bench(faults=sure("lost-answer-remove"))
    ref = create(b).ref
    with pytest.raises(UnknownOutcomeError):
        b.go(lambda: b.vc.remove_snapshot(ref))
    assert b.world.leftovers() == []
    assert len(b.times("world.vm.merged")) == 1


def hypervisor_busy() -> None:
    b = bench(faults=sure("hypervisor-busy", most=3))
    for call in (
        lambda: b.vc.create_snapshot(request()),
        lambda: b.vc.remove_snapshot(VmSnapshotRef("vc/a", "x", "x")),
        lambda: b.vc.consolidate("vc/a"),
    ):
        error = b.go(lambda call=call: outcome(call()))
        assert isinstance(error, BusyError)
        assert error.retry_after_s == 5.0
    assert b.world.in_flight == 0
    create(b)


def session_expired() -> None:
    # The first call finds the session alive; it expires as the second one comes.
    b = bench(faults=sure("session-expired", most=1, since=0.3, session=20))

    async def main() -> list[Any]:
        first = asyncio.create_task(outcome(b.vc.create_snapshot(request(tag="under-way"))))
        await asyncio.sleep(0.4)
        refused = await outcome(b.vc.consolidate("vc/a"))
        answers = [await first, refused]
        assert asyncio.get_running_loop().time() == pytest.approx(0.4), "told at once"
        answers.append(await outcome(b.vc.list_snapshots()))
        await asyncio.sleep(19.9)
        answers.append(await outcome(b.vc.inventory()))
        await asyncio.sleep(0.2)
        answers.append(await b.vc.list_snapshots())
        return answers

    under_way, *refusals, found = b.go(main)
    assert isinstance(under_way, UnknownOutcomeError)
    assert [type(error) for error in refusals] == [DidNotHappenError] * 3
    assert [ref.tag for ref in found[0].snapshots] == ["under-way"], "it went on without us"
    assert b.world.faults.fired == {Site.SESSION_EXPIRED: 1}


def query_lost() -> None:
    b = bench(faults=sure("query-lost", most=20, silence=100))

    async def main() -> list[tuple[Any, float]]:
        calls = [timed(b.vc.list_snapshots()) for _ in range(10)]
        calls += [timed(b.vc.inventory()) for _ in range(10)]
        return list(await asyncio.gather(*calls))

    answers = b.go(main)
    assert {type(answer) for answer, _ in answers} == {UnknownOutcomeError}
    assert {round(waited_s) for _, waited_s in answers} == {0, 100}, "errors and silences"
    assert len(b.go(b.vc.inventory).vms) == 1


def removal_refused() -> None:
    b = bench(faults=sure("removal-refused", "consolidation-needed", most=1))
    ref = create(b).ref
    with pytest.raises(DidNotHappenError):
        b.go(lambda: b.vc.remove_snapshot(ref))
    assert b.world.leftovers() == ["VM vc/a still has snapshot t"]
    with pytest.raises(HappenedError):
        b.go(lambda: b.vc.remove_snapshot(ref))
    b.go(lambda: b.vc.consolidate("vc/a"))
    assert b.world.leftovers() == []


def consolidation_needed() -> None:
    b = bench(faults=sure("consolidation-needed"))
    ref = create(b).ref
    with pytest.raises(HappenedError):
        b.go(lambda: b.vc.remove_snapshot(ref))
    (state,) = b.go(b.vc.list_snapshots)
    assert (state.snapshots, state.needs_consolidation) == ((), True)
    b.go(lambda: b.vc.consolidate("vc/a"))
    assert b.world.leftovers() == []


def delta_datastore_full() -> None:
    b = bench(faults=sure("delta-datastore-full", most=2))
    error = refused(b, DidNotHappenError)
    assert "datastore" in str(error)
    assert b.kinds("vc/a") == ["frozen", "world.fault", "thawed"]
    refused(b, DidNotHappenError, quiesce=False)
    assert isinstance(create(b), VmSnapshot)


def array_busy() -> None:
    lab = Lab(faults=sure("array-busy", most=1), retry_after=3.0)

    async def main(array: ModelArray) -> list[Any]:
        return [await outcome(array.snapshot_group(group("t"))) for _ in range(2)]

    busy, made = lab.run(main)
    assert isinstance(busy, BusyError)
    assert busy.retry_after_s == 3.0
    assert isinstance(made, GroupSnapshot)
    deleting = Lab(faults=sure("array-busy", since=3, most=1))
    assert [type(one) for one in deleted(deleting)] == [BusyError, type(None)]


def deleted(lab: Lab, pause_s: float = 0.0) -> list[Any]:
    """A snapshot is taken, and then deleted twice."""

    async def main(array: ModelArray) -> list[Any]:
        made = await array.snapshot_group(group("t"))
        await asyncio.sleep(5)
        first = await outcome(array.delete_snapshot(made.ref))
        await asyncio.sleep(pause_s)
        return [first, await outcome(array.delete_snapshot(made.ref))]

    answers: list[Any] = lab.run(main)
    return answers


def lost_answer_group() -> None:
    lab = Lab(faults=sure("lost-answer-group", most=1))

    async def main(array: ModelArray) -> Any:
        lost = await outcome(array.snapshot_group(group("t")))
        await asyncio.sleep(10)
        return lost, await array.list_snapshots("t"), await array.snapshot_group(group("t"))

    lost, listed, again = lab.run(main)
    assert isinstance(lost, UnknownOutcomeError)
    assert listed == [again]


def late_group() -> None:
    lab = Lab(faults=sure("late-group", late_group=50))
    lab.run(lambda array: array.snapshot_group(group("t")))
    (fenced_s,), (unfenced_s,) = lab.times(ArrayEvent.FENCED), lab.times(ArrayEvent.UNFENCED)
    assert fenced_s > 50
    assert unfenced_s - fenced_s < 1, "no write waits longer for it"


def partial_group() -> None:
    lab = Lab(faults=sure("partial-group"))

    async def main(array: ModelArray) -> Any:
        made = await array.snapshot_group(group("t", "u0", "u1", "u2"))
        single = await array.snapshot_group(group("single", "u3"))
        return made, single, await array.list_snapshots("t")

    made, single, listed = lab.run(main)
    assert len(made.unit_ids) == 2
    assert listed == [made]
    assert single.unit_ids == ("u3",), "nothing can be left out of one"
    (cut, _) = [row[4] for row in lab.log.of(ArrayEvent.CUT)]
    assert tuple(cut.split()) == made.unit_ids
    carried = [unit for unit in ("u0", "u1", "u2") if lab.array.pool.snapshots_of(unit)]
    assert tuple(carried) == made.unit_ids


def fence_timeout() -> None:
    lab = Lab(faults=sure("fence-timeout", most=1))

    async def main(array: ModelArray) -> list[Any]:
        requests = [group("t", "u0", "u1", fence_timeout_s=4.0)] * 2
        return [await outcome(array.snapshot_group(one)) for one in requests]

    aborted, made = lab.run(main)
    assert type(aborted) is DidNotHappenError
    assert isinstance(made, GroupSnapshot)
    held = lab.times(ArrayEvent.UNFENCED)[0] - lab.times(ArrayEvent.FENCED)[0]
    assert held == pytest.approx(4.0), "at the limit, and no longer"
    assert len(lab.times(ArrayEvent.CUT)) == 1


def delete_refused() -> None:
    lab = Lab(faults=sure("delete-refused", most=2, in_use=60))
    assert [type(answer) for answer in deleted(lab, pause_s=55)] == [BusyError] * 2, "for a while"
    assert lab.faults.fired == {Site.DELETE_REFUSED: 1}, "one fault, however often one asks"
    lab = Lab(faults=sure("delete-refused", most=1, in_use=60))
    assert [type(answer) for answer in deleted(lab, pause_s=61)] == [BusyError, type(None)]


def lost_answer_delete() -> None:
    lab = Lab(faults=sure("lost-answer-delete"))
    first, second = deleted(lab, pause_s=20)
    assert isinstance(first, UnknownOutcomeError)
    assert "no such" in str(second), "it was deleted all the same"


def refused_group(site: str) -> DriverError:
    lab = Lab(faults=sure(site, most=1))

    async def main(array: ModelArray) -> list[Any]:
        return [await outcome(array.snapshot_group(group(tag))) for tag in ("one", "two")]

    error, made = lab.run(main)
    assert isinstance(made, GroupSnapshot)
    assert [row[4] for row in lab.log.of(ArrayEvent.COMPLETED)] == ["two"]
    assert isinstance(error, DriverError)
    return error


def snapshot_limit() -> None:
    assert isinstance(refused_group("snapshot-limit"), NeverWillError)


def pool_full() -> None:
    assert isinstance(refused_group("pool-full"), PoolFullError)


def array_query_lost() -> None:
    lab = Lab(faults=sure("array-query-lost", most=20, silence=100))

    async def main(array: ModelArray) -> list[tuple[Any, float]]:
        calls = [timed(array.list_snapshots("")) for _ in range(10)]
        calls += [timed(array.resolve(())) for _ in range(10)]
        waiting = asyncio.gather(*calls)
        await asyncio.sleep(50)
        assert array.in_flight == 0, "silence is no work"
        return list(await waiting)

    answers = lab.run(main)
    assert {type(answer) for answer, _ in answers} == {UnknownOutcomeError}
    assert {round(waited_s, -1) for _, waited_s in answers} == {0, 100}
    assert lab.run(lambda array: array.list_snapshots("")) == []


EFFECTS: dict[Site, Callable[[], None]] = {
    Site.QUIESCE_FAILS: quiesce_fails,
    Site.QUIESCE_HANGS: quiesce_hangs,
    Site.THAW_LOST: thaw_lost,
    Site.LATE_CREATE: late_create,
    Site.LATE_REMOVE: late_remove,
    Site.LOST_ANSWER_CREATE: lost_answer_create,
    Site.LOST_ANSWER_REMOVE: lost_answer_remove,
    Site.HYPERVISOR_BUSY: hypervisor_busy,
    Site.SESSION_EXPIRED: session_expired,
    Site.QUERY_LOST: query_lost,
    Site.REMOVAL_REFUSED: removal_refused,
    Site.CONSOLIDATION_NEEDED: consolidation_needed,
    Site.DELTA_DATASTORE_FULL: delta_datastore_full,
    Site.ARRAY_BUSY: array_busy,
    Site.LOST_ANSWER_GROUP: lost_answer_group,
    Site.LATE_GROUP: late_group,
    Site.PARTIAL_GROUP: partial_group,
    Site.FENCE_TIMEOUT: fence_timeout,
    Site.DELETE_REFUSED: delete_refused,
    Site.LOST_ANSWER_DELETE: lost_answer_delete,
    Site.SNAPSHOT_LIMIT: snapshot_limit,
    Site.POOL_FULL: pool_full,
    Site.ARRAY_QUERY_LOST: array_query_lost,
}


@pytest.mark.parametrize("site", list(Site), ids=str)
def test_a_site_has_its_effect(site: Site) -> None:
    assert site in EFFECTS, f"no test says what {site} does"
    EFFECTS[site]()


def test_the_windows_limit_thaws_a_guest_that_was_forgotten() -> None:
    """VSS lets go 10 s after the flush (0.5 s freeze), whatever the caller allows."""
    thaw_lost(WINDOWS, 11.5)


def test_the_thaw_is_lost_though_the_caller_has_gone() -> None:
    b: Bench = bench(faults=sure("thaw-lost"))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.05):
                await b.vc.create_snapshot(request(timeout_s=30))
        await asyncio.sleep(60)

    b.go(main)
    assert b.times("world.vm.thawed") == pytest.approx([31.0])
    assert b.world.leftovers() == []


def test_no_answer_is_lost_that_nobody_waits_for() -> None:
    b = bench(faults=sure("lost-answer-create"))
    lab = Lab(faults=sure("lost-answer-group"), snapshot_base=30.0)

    async def give_up(call: Awaitable[Any]) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.05):
                await call
        await asyncio.sleep(60)

    b.go(lambda: give_up(b.vc.create_snapshot(request())))
    lab.run(lambda array: give_up(array.snapshot_group(group("t"))))
    assert b.world.faults.fired == lab.faults.fired == {}
    assert len(b.times("world.vm.snapshot")) == len(lab.times(ArrayEvent.COMPLETED)) == 1
