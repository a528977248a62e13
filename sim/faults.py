"""What goes wrong in the hypervisors, how often: the ``faults`` section of a world."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..orchestrator.spec import Section
from ..quantity import Seconds

Probability = Annotated[float, Field(ge=0, le=1)]


class Faults(Section):
    """Probabilities per visit, drawn from the run's seed; nothing goes wrong by default.

    Attributes
    ----------
    quiesce_fail_probability:
        The guest refuses to freeze (in vSphere, FilesystemQuiesceFault).
    quiesce_hang_probability:
        The freeze call does not return; the guest is thawed when the quiesce timeout ends it.
    lost_answer_probability:
        The operation completes and its answer is lost: the caller gets UnknownOutcomeError.
    slow_task_probability, slow_task:
        A create or remove waits that much longer before it touches the VM. Longer than the
        caller's patience, this is the late success.
    busy_probability:
        A create or remove is refused as busy.
    consolidation_probability:
        A removal takes the snapshot away and leaves its delta: the VM needs consolidation.
    until:
        Faults stop at this time of the world's clock; None for never.
    """

    quiesce_fail_probability: Probability = 0.0
    quiesce_hang_probability: Probability = 0.0
    lost_answer_probability: Probability = 0.0
    slow_task_probability: Probability = 0.0
    slow_task: Seconds = 900.0
    busy_probability: Probability = 0.0
    consolidation_probability: Probability = 0.0
    until: Seconds | None = None

    @property
    def possible(self) -> bool:
        """Whether any fault has a chance to happen."""
        return any(
            getattr(self, name) > 0.0
            for name in type(self).model_fields
            if name.endswith("_probability")
        )

    def active(self, now_s: float) -> bool:
        """Whether faults still happen."""
        return self.until is None or now_s < self.until


NO_FAULTS = Faults()
