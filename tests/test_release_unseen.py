"""A release that nobody could look at is looked at again before its intent is settled."""

from __future__ import annotations

from support_jobs import assert_clean, bench
from support_memory import Fault

from stillframe.drivers.contracts import VmSnapshotRef
from stillframe.drivers.errors import DidNotHappenError
from stillframe.orchestrator.spec import JobSpec


def test_a_delta_left_by_a_release_that_was_not_seen_is_merged_by_the_sweep() -> None:
    """The removal is reported as done, its delta is loose, and the hypervisor is silent then."""
    spec = JobSpec.model_validate(
        {"select": {"include": {"name": "vm4"}}, "retry": {"attempts": 2}}
    )
    ran = bench(spec)

    def loosen(ref: VmSnapshotRef) -> None:
        ran.hypervisor.loose_deltas[ref.vm_id] = 1
        silent = Fault(DidNotHappenError("list_snapshots", "vc", "no answer"))
        ran.faults.add("list", "", silent, silent)

    ran.hypervisor.on_removed = loosen
    result = ran.run()
    assert not result.orphans
    assert_clean(ran)
