"""What a driver may say went wrong, sorted by what the orchestrator has to do about it.

The question that decides everything after a failed call is *did it happen?* Each branch of the
tree is one answer:

========================  =================================  ===============================
class                     did it happen?                     what the orchestrator does
========================  =================================  ===============================
DidNotHappenError         no                                 may repeat it
  QuiesceFailedError      no, the guest refused              applies the quiesce policy
  QuiesceTimeoutError     no, the freeze outlived its limit  applies the quiesce policy
  BusyError               no, try later                      waits, then repeats
  NotFoundError           no, the object is gone             removal counts as done
  PoolFullError           no, no snapshot space              reports, does not repeat
HappenedError             yes, but something after it broke  keeps the result, consolidates
UnknownOutcomeError       unknown                            looks for its tag before all else
NeverWillError            no, and repeating cannot help      reports, does not repeat
========================  =================================  ===============================

A driver that cannot tell raises UnknownOutcomeError: claiming "did not happen" wrongly is what
leaves orphans behind.
"""

from __future__ import annotations

from ..errors import StillframeError


class DriverError(StillframeError):
    """Any failure of a driver call.

    Parameters
    ----------
    operation:
        The contract's method, for example ``create_snapshot``.
    subject:
        The identifier of the VM, unit or group it was called on.
    reason:
        What the system said, in one sentence.
    advice:
        What a user can do about it.
    """

    def __init__(self, operation: str, subject: str, reason: str, advice: str = "") -> None:
        super().__init__(f"{operation} on {subject} failed: {reason}", advice)
        self.operation = operation
        self.subject = subject
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what} ({self.advice})" if self.advice else self.what


class DidNotHappenError(DriverError):
    """The operation certainly had no effect; repeating it is safe."""


class QuiesceFailedError(DidNotHappenError):
    """The guest refused to freeze, or thawed too early, and the snapshot was rolled back."""


class QuiesceTimeoutError(DidNotHappenError):
    """The guest did not freeze in time, or stayed frozen too long, and was thawed."""


class BusyError(DidNotHappenError):
    """The object is in use by another operation; ``retry_after_s`` is the driver's estimate."""

    def __init__(
        self,
        operation: str,
        subject: str,
        reason: str,
        advice: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(operation, subject, reason, advice)
        self.retry_after_s = retry_after_s


class NotFoundError(DidNotHappenError):
    """The object does not exist (any more)."""


class PoolFullError(DidNotHappenError):
    """There is no snapshot space left on the array."""


class HappenedError(DriverError):
    """The operation took effect, but a later part of it failed (for example the clean-up)."""


class UnknownOutcomeError(DriverError):
    """The answer was lost: the operation may have happened, may yet happen, or may never."""


class NeverWillError(DriverError):
    """The system refuses this operation on this object, and repeating it cannot help."""
