"""The job's process killed at any step, and the recovery's: nothing is left, nothing is lost."""

from __future__ import annotations

import pytest
from support_recovery import SPEC, Site, quick_world

from stillframe.orchestrator.events import Kind
from stillframe.orchestrator.journal import RUNNING, LeaseLostError
from stillframe.orchestrator.recover import RECOVERED
from stillframe.orchestrator.sqlite_store import SqliteStore

SLOW = quick_world(task_latency=20.0)
"""Operations that outlive a process and its lease."""


TOUCHING = (
    Kind.VM_SNAPSHOT_REQUESTED,
    Kind.ARRAY_SNAPSHOT_REQUESTED,
    Kind.VM_RELEASE_REQUESTED,
    Kind.ARRAY_SNAPSHOT_DISCARDED,
    Kind.CATALOGUED,
    Kind.SWEPT,
)
"""What an orchestrator notes when it has a system do something."""


def site(kind: str) -> Site:
    """A site by name; in each the job's operations meet the recovery in another state."""
    if kind == "quick":
        return Site()
    if kind == "sqlite":
        return Site(store=lambda clock: SqliteStore(":memory:", clock=clock))
    return Site(world=SLOW, lease_s=3.0, blind=kind == "slow and blind")


def steps_of(kind: str) -> int:
    whole = site(kind)
    result = whole.job()
    assert result is not None
    assert len(result.catalogue) == 5
    whole.assert_clean()
    whole.store.close()
    return whole.steps


def assert_recovered(killed: Site) -> None:
    """All is well now, stays so while time passes, and a second recovery changes nothing."""
    assert killed.record.status == RECOVERED or not killed.record.unfinished
    killed.pass_time(5000.0)
    killed.assert_clean()
    before = (killed.store.entries(), killed.log.of("world.vm.merged"))
    again = killed.recover_again()
    assert again.complete
    assert not again.removed
    assert not again.withdrawn
    assert (killed.store.entries(), killed.log.of("world.vm.merged")) == before
    killed.assert_clean()


@pytest.mark.parametrize("kind", ["quick", "sqlite", "slow", "slow and blind"])
def test_a_job_killed_at_any_step_is_recovered(kind: str) -> None:
    kept, late = set(), 0
    for step in range(1, steps_of(kind), 7):
        killed = site(kind)
        killed.job(step)
        if not killed.store.jobs():
            killed.store.close()
            continue
        open_before = killed.record.open_intents
        late += killed.world.in_flight > 0
        unfinished = killed.record.unfinished
        recoveries = killed.recover()
        assert recoveries is not None
        assert [one.complete for one in recoveries] == [True] * unfinished
        kept.update(one.kept for one in recoveries)
        assert not open_before or unfinished
        assert_recovered(killed)
        killed.store.close()
    assert {0, 5} <= kept
    assert late, "no operation outlived the process: nothing was tried"


def test_what_a_finished_group_protects_outlives_the_process() -> None:
    """Killed while the second component is released, the first one's entries are there."""
    spec = SPEC.model_copy(update={"limits": SPEC.limits.model_copy(update={"groups": 1})})
    whole = Site(spec=spec)
    whole.job()
    ends = [row[0] for row in whole.log.of(Kind.GROUP_FINISHED)]
    assert len(ends) == 3
    protected = {}
    for step in range(1, whole.steps, 3):
        killed = Site(spec=spec)
        killed.job(step)
        protected[len(killed.log.of(Kind.GROUP_FINISHED))] = len(killed.store.entries())
        if not killed.store.jobs():
            continue
        killed.recover()
        assert len(killed.log.of(Kind.GROUP_FINISHED)) <= len(
            {entry.unit_ids[0] for entry in killed.store.entries()}
        )
        assert_recovered(killed)
    assert set(protected) == {0, 1, 2, 3}


@pytest.mark.parametrize("at", [0.35, 0.6, 0.8])
def test_a_recovery_killed_at_any_step_is_recovered(at: float) -> None:
    kind = "slow and blind"
    job_steps = round(at * steps_of(kind))
    whole = site(kind)
    whole.job(job_steps)
    whole.recover()
    for step in range(1, whole.steps, max(2, whole.steps // 40)):
        killed = site(kind)
        killed.job(job_steps)
        killed.recover(step)
        killed.recover()
        assert_recovered(killed)


def test_a_job_that_lives_is_not_touched() -> None:
    killed = Site()
    killed.job(100)
    assert killed.record.status == RUNNING
    before = killed.orchestrator_events()
    (held,) = killed.recover_now()
    assert held.held
    assert not held.complete
    assert "in the hands of one" in held.held
    assert killed.orchestrator_events() == before


def test_a_process_that_stood_still_touches_nothing_of_a_job_it_has_lost() -> None:
    """It goes on at the very instruction where it stood; meanwhile the job was recovered."""
    lost = 0
    for step in range(20, steps_of("quick"), 2):
        stalled = Site()
        noted: list[int] = []

        def recovered(stalled: Site = stalled, noted: list[int] = noted) -> None:
            stalled.recover()
            noted.append(len(stalled.log))

        process = stalled.stalled_job(step, recovered)
        if not noted:  # it had ended before that step
            continue
        own = [row[1] for row in stalled.log.rows[noted[0] :] if row[1] in TOUCHING]
        if stalled.record.status == RECOVERED:
            lost += 1
            assert isinstance(process.task.exception(), LeaseLostError)
            assert own == []
        assert_recovered(stalled)
    assert lost > 25


@pytest.mark.parametrize("stood_s", [1.0, 40.0])
def test_a_process_that_stood_still_and_was_not_replaced_goes_on(stood_s: float) -> None:
    for step in range(20, steps_of("quick"), 5):
        stalled = Site()
        process = stalled.stalled_job(step, lambda stalled=stalled: stalled.pass_time(stood_s))
        assert process.task.result().catalogue
        assert not stalled.record.unfinished
        stalled.assert_clean()
