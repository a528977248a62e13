"""Whatever a few faults and a cancellation do together: nothing is left, nothing is claimed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_jobs import assert_clean, assert_protected_where_cut, bench, error, kinds
from support_memory import Fault

from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    QuiesceFailedError,
    UnknownOutcomeError,
)
from stillframe.orchestrator.events import Kind
from stillframe.orchestrator.result import JobStatus, VmStatus


class TestCancellation:
    @settings(max_examples=60, deadline=None)
    @given(step=st.integers(0, 120), seed=st.integers(0, 5))
    def test_nothing_is_left_wherever_the_job_is_cancelled(self, step: int, seed: int) -> None:
        ran = bench(seed=seed)
        result = ran.run(cancel_at_step=step)
        assert not result.orphans
        assert_clean(ran)
        assert_protected_where_cut(ran)

    def test_a_slow_create_that_outlives_a_cancelled_job_is_swept(self) -> None:
        ran = bench()
        ran.faults.add("create", "vc/vm3", Fault(delay_s=50.0))
        result = ran.run(cancel_at_s=10.0)
        assert result.status is JobStatus.CANCELLED
        assert kinds(ran, Kind.SWEPT) == ["vc/vm3"]
        assert_clean(ran)

    def test_cancelling_during_the_release_does_not_stop_it(self) -> None:
        ran = bench()
        ran.faults.add("remove", "vc/vm3", Fault(delay_s=50.0))
        result = ran.run(cancel_at_s=10.0)
        assert result.status is JobStatus.CANCELLED
        assert ran.vm("vm3").merged_s == pytest.approx(50.0)
        assert_clean(ran)
        assert ran.vm("vm3").status is VmStatus.PROTECTED  # its cut was complete and verified


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    faults=st.lists(
        st.tuples(
            st.sampled_from(["create", "remove", "cut", "delete"]),
            st.integers(0, 5),
            st.sampled_from(
                [
                    DidNotHappenError,
                    BusyError,
                    UnknownOutcomeError,
                    NeverWillError,
                    QuiesceFailedError,
                    None,
                ]
            ),
            st.booleans(),
            st.sampled_from([0.0, 3.0, 650.0, 1300.0]),
        ),
        max_size=5,
    ),
    cancel_at_s=st.none() | st.floats(0, 20),
)
def test_any_few_faults_leave_nothing_behind(
    seed: int,
    faults: list[tuple[str, int, type[DriverError] | None, bool, float]],
    cancel_at_s: float | None,
) -> None:
    """Whatever a few faults do: no orphan, nothing foreign touched, no false claim."""
    ran = bench(seed=seed)
    for operation, number, kind, after, delay_s in faults:
        subject = "a1" if operation in ("cut", "delete") else f"vc/vm{number}"
        lies = after and kind is not None and kind is not UnknownOutcomeError
        fault = Fault(error(kind) if kind else None, after and not lies, delay_s)
        ran.faults.add(operation, subject, fault)
    result = ran.run(cancel_at_s=cancel_at_s)
    orphan_tags = {sentence.split()[2] for sentence in result.orphans}
    if not orphan_tags:
        assert_clean(ran)
    assert_protected_where_cut(ran)
