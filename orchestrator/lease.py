"""Holding a job: its lease is renewed while the work goes on, and losing it ends the work.

Whoever has lost the lease touches nothing any more, because another orchestrator is at work on the
same snapshots. So the work is cancelled as soon as the loss is noticed, and nothing that would run
on a cancelled path (releases, sweeps, a catalogue) does: whatever changes a system asks
:meth:`Tenure.check` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from ..drivers.records import VmId
from ..errors import StillframeError
from .journal import Intent, Journal, LeaseLostError, StoredEntry
from .result import CatalogueEntry

T = TypeVar("T")

_FOR_EVER_S = float("inf")

RENEWALS_PER_LEASE = 3
"""Two renewals may fail or come late before the lease runs out."""


class Tenure:
    """A journal in use: implements :class:`~.journal.Journal`, and knows when it was lost.

    Parameters
    ----------
    journal:
        Held by this orchestrator. A journal without ``lease_s`` is never renewed.

    Attributes
    ----------
    lost:
        Why nothing may be touched any more; None while the job is ours.
    trouble:
        The first failure of the journal that stopped nothing: an intent that could not be noted as
        settled costs one more look for its tag, a renewal that failed is tried again. Whoever ends
        the job has to tell of it.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lease_s = journal.lease_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: dict[asyncio.Task[Any], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._held_until_s = _FOR_EVER_S
        self.lost: LeaseLostError | None = None
        self.trouble: StillframeError | None = None

    @property
    def lease_s(self) -> float | None:
        """See :class:`Journal`."""
        return self._lease_s

    # -- the lease ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Renew now and from now on."""
        self._loop = asyncio.get_running_loop()
        self.renew()
        if self._lease_s is not None:
            self._again_in(self._lease_s / RENEWALS_PER_LEASE)

    def end(self) -> None:
        """Renew no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @contextmanager
    def ending(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Have a task cancelled when the lease is lost before this ends."""
        self._work[task] = None
        try:
            yield
        finally:
            del self._work[task]

    def check(self) -> None:
        """Return only if this orchestrator may touch the systems of the job.

        Until the lease runs out, nobody else can have the job, so the journal is not asked.

        Raises
        ------
        LeaseLostError
            It may not: the job was taken over, or the lease has run out (the process was stopped
            for a while, or the journal could not be written) and cannot be renewed.
        """
        if self.lost is not None:
            raise self.lost
        if self._loop is not None and self._loop.time() >= self._held_until_s:
            self.renew()

    def renew(self) -> None:
        """See :class:`Journal`."""
        if self.lost is not None:
            raise self.lost
        if self._lease_s is None:
            return
        now_s = self._loop.time() if self._loop is not None else 0.0
        try:
            self._journal.renew()
        except LeaseLostError as error:
            raise self._lose(error) from None
        except StillframeError as error:
            if now_s >= self._held_until_s:
                reason = f"the lease has run out, and cannot be renewed: {error.what}"
                raise self._lose(LeaseLostError(reason, error.advice)) from error
            if self._held_until_s == _FOR_EVER_S:  # never held, as far as one can tell
                raise
            self.trouble = self.trouble or error
        else:
            self._held_until_s = now_s + self._lease_s

    def _again_in(self, delay_s: float) -> None:
        assert self._loop is not None  # noqa: S101  begin() has set it
        self._timer = self._loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        assert self._lease_s is not None  # noqa: S101  or there would be no timer
        try:
            self.renew()
        except LeaseLostError:
            return  # the work has been cancelled
        self._again_in(self._lease_s / RENEWALS_PER_LEASE)

    def _lose(self, error: LeaseLostError) -> LeaseLostError:
        """Remember the loss and cancel the work; the error to raise."""
        if self.lost is None:
            self.lost = error
            own = asyncio.current_task(self._loop)
            for task in self._work:
                # The own one is ended by the exception; a cancellation would hit it later.
                if task is not own:
                    task.cancel()
        return self.lost

    # -- the journal ----------------------------------------------------------------------------

    def intend(self, intent: Intent) -> None:
        """See :class:`Journal`."""
        if self.lost is not None:
            raise self.lost
        try:
            self._journal.intend(intent)
        except LeaseLostError as error:
            raise self._lose(error) from None

    def settle(self, tag: str) -> None:
        """See :class:`Journal`; of its failures raises only LeaseLostError, see ``trouble``."""
        if self.lost is not None:
            raise self.lost
        try:
            self._journal.settle(tag)
        except LeaseLostError as error:
            raise self._lose(error) from None
        except StillframeError as error:
            self.trouble = self.trouble or error

    def open_intents(self) -> list[Intent]:
        """See :class:`Journal`."""
        return self._ask(self._journal.open_intents)

    def keep(self, entries: Sequence[CatalogueEntry], now_s: float) -> None:
        """See :class:`Journal`."""
        self._ask(lambda: self._journal.keep(entries, now_s))

    def withdraw(self, vm_ids: Sequence[VmId], reason: str) -> None:
        """See :class:`Journal`."""
        self._ask(lambda: self._journal.withdraw(vm_ids, reason))

    def kept(self) -> list[StoredEntry]:
        """See :class:`Journal`."""
        return self._ask(self._journal.kept)

    def finish(self, status: str) -> None:
        """See :class:`Journal`."""
        self._ask(lambda: self._journal.finish(status))
        self.end()

    def _ask(self, question: Callable[[], T]) -> T:
        if self.lost is not None:
            raise self.lost
        try:
            return question()
        except LeaseLostError as error:
            raise self._lose(error) from None


@asynccontextmanager
async def holding(journal: Journal | Tenure) -> AsyncIterator[Tenure]:
    """Renew the lease of a job while the body runs; losing it cancels the body.

    Use the tenure that it gives in place of the journal, and have :meth:`Tenure.check` called
    before each call that changes a system: the body may notice its cancellation only afterwards.
    A :class:`Tenure` that was made before is used itself.

    Raises
    ------
    LeaseLostError
        The lease was lost, before the body or while it ran; whatever else the body raised is
        left out, groups of exceptions included.
    """
    tenure = journal if isinstance(journal, Tenure) else Tenure(journal)
    work = asyncio.current_task()
    assert work is not None  # noqa: S101  a coroutine that runs has a task
    cancelled_before = work.cancelling()
    tenure.begin()
    try:
        with tenure.ending(work):
            yield tenure
    except (Exception, asyncio.CancelledError):
        if tenure.lost is None:
            raise
    finally:
        tenure.end()
    if tenure.lost is not None:
        while work.cancelling() > cancelled_before:
            work.uncancel()
        raise tenure.lost
