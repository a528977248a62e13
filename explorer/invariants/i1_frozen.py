"""I1: guests thaw."""

from __future__ import annotations

from ..evidence import Evidence
from ..report import Violation

ID = "I1 frozen"
SENTENCE = "No guest stays frozen past its quiesce timeout, whatever fails."

_ROUNDING_S = 1e-6


def check(evidence: Evidence) -> list[Violation]:
    """Hold every freeze in the world against the job's quiesce timeout."""
    limit_s = evidence.spec.quiesce.timeout + _ROUNDING_S
    frozen_at: dict[str, float] = {}
    found = []
    for at_s, kind, _, vm_id, _ in evidence.rows:
        if kind == "world.vm.frozen":
            frozen_at[vm_id] = at_s
        elif kind == "world.vm.thawed" and vm_id in frozen_at:
            held_s = at_s - frozen_at.pop(vm_id)
            if held_s > limit_s and not _host_failed(evidence, vm_id, at_s):
                sentence = f"{vm_id} was frozen for {held_s:.6g} s, its limit is {limit_s:.6g} s"
                found.append(Violation(ID, sentence, vm_id, at_s))
    found += [
        Violation(ID, f"{vm_id} is still frozen", vm_id)
        for vm_id, state in evidence.states.items()
        if state.frozen
    ]
    return found


def _host_failed(evidence: Evidence, vm_id: str, thawed_s: float) -> bool:
    """The host that should have thawed the guest did not; the tools' own limit did."""
    return any(
        row[3] == vm_id and row[4] == "thaw-lost" and row[0] <= thawed_s
        for row in evidence.of("world.fault")
    )
