"""Recovering live jobs that did not end in good order, on their own or before the next job."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .drivers.errors import DriverError
from .errors import StillframeError
from .live_journal import (
    LEASE_S,
    Holder,
    is_dead,
    is_held,
    is_running,
    may_be_made,
    open_journal,
    unfinished,
    who,
)
from .live_systems import Systems, Tell, open_systems, telling
from .orchestrator.journal import JobRecord, Journal, LeaseHeldError, LeaseLostError, Store
from .orchestrator.recover import Recovery, recover_job
from .orchestrator.sqlite_store import SqliteStore
from .scenarios.live import LiveConfig

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one unfinished job.

    Attributes
    ----------
    job:
        As the journal knew it before; as it knows it now, if it was left alone.
    recovery:
        What was done; None when the job was left to who holds it.
    """

    job: JobRecord
    recovery: Recovery | None

    @property
    def complete(self) -> bool:
        """Nothing of the job is left open."""
        return self.recovery is not None and self.recovery.complete

    def summary(self) -> str:
        """One sentence, without its full stop."""
        job_id, done = self.job.job_id, self.recovery
        if done is None:
            return f"job {job_id} is left alone: {held_sentence(self.job)}"
        parts = [f"{len(done.removed)} removed", f"{done.kept} kept"]
        if done.withdrawn:
            parts.append(f"{done.withdrawn} withdrawn")
        if done.left:
            parts.append(f"{len(done.left)} left")
        return f"recovered job {job_id}: {', '.join(parts)}"

    def notes(self) -> list[str]:
        """What a reader of the next job's report has to know."""
        left = [] if self.recovery is None else self.recovery.left
        sentence = self.summary()
        return [f"{sentence[0].upper()}{sentence[1:]}.", *(f"Left: {one}." for one in left)]

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        done, job = self.recovery, self.job
        return {
            "job_id": job.job_id,
            "begun_at": in_utc(job.begun_s),
            "held_by": job.holder if done is None else None,
            "lease_until": in_utc(job.lease_until_s) if done is None else None,
            "removed": [] if done is None else list(done.removed),
            "kept": None if done is None else done.kept,
            "withdrawn": None if done is None else done.withdrawn,
            "left": [] if done is None else list(done.left),
            "complete": self.complete,
        }


def in_utc(time_s: float) -> str:
    """A time on the journal's clock, as ISO 8601 in UTC."""
    there = datetime.datetime.fromtimestamp(time_s, datetime.UTC)
    return there.isoformat(timespec="seconds")


def in_zone(time_s: float) -> str:
    """A time on the journal's clock, as clocks on the wall show it, with the zone's name."""
    there = datetime.datetime.fromtimestamp(time_s, datetime.UTC).astimezone()
    return f"{there:%Y-%m-%d %H:%M:%S %Z}"


def held_sentence(job: JobRecord) -> str:
    """By whom a job is held, and until when."""
    return f"it is in the hands of {who(job.holder)}, whose lease holds until " + in_zone(
        job.lease_until_s
    )


def recover_live(
    config: LiveConfig,
    store: Store,
    jobs: Sequence[JobRecord],
    *,
    take_over: bool,
    tell: Tell,
    notice: Notice,
) -> list[Recovered]:
    """Open the configuration's systems and recover these jobs on them, one after the other.

    Parameters
    ----------
    take_over:
        Also jobs that somebody alive still holds the lease of.
    tell:
        Hears what is being done.
    notice:
        Hears of each thing that is removed or left when it is.

    Raises
    ------
    InputError
        A system's settings cannot be used.
    DriverError
        No system can be reached. What lies on one that cannot is left for the next recovery.
    """

    def missing(system_id: str, error: DriverError) -> None:
        notice(f"{system_id} cannot be reached, what is left there is left: {error}")

    async def main() -> list[Recovered]:
        async with telling(tell) as say, open_systems(config, say, missing) as systems:
            return await recover_jobs(
                config, store, jobs, systems, take_over=take_over, tell=say, notice=notice
            )

    with asyncio.Runner() as runner:
        return runner.run(main())


async def recover_jobs(
    config: LiveConfig,
    store: Store,
    jobs: Sequence[JobRecord],
    systems: Systems,
    *,
    take_over: bool,
    tell: Tell,
    notice: Notice,
) -> list[Recovered]:
    """See :func:`recover_live`; on systems that are open."""
    done = []
    for number, job in enumerate(jobs):
        tell(f"job {job.job_id}", number / len(jobs))
        one = await _recover(config, store, job, systems, take_over=take_over, notice=notice)
        notice(one.summary())
        done.append(one)
    return done


async def _recover(
    config: LiveConfig,
    store: Store,
    job: JobRecord,
    systems: Systems,
    *,
    take_over: bool,
    notice: Notice,
) -> Recovered:
    breaking = job.holder if take_over or is_dead(job.holder) else ""
    holder = str(Holder.here())
    try:
        journal = store.take_over(job.job_id, holder=holder, lease_s=LEASE_S, breaking=breaking)
        with _given_back(journal, job.status):
            recovery = await recover_job(
                journal,
                job.job_id,
                config.job,
                systems.hypervisors,
                systems.arrays,
                random=random.Random(f"{job.job_id} is recovered"),
                tell=notice,
            )
    except (LeaseHeldError, LeaseLostError):
        return Recovered(next(one for one in store.jobs() if one.job_id == job.job_id), None)
    return Recovered(job, recovery)


@contextlib.contextmanager
def _given_back(journal: Journal, status: str) -> Iterator[None]:
    """Give the lease back when the work does not come to its end, as it was before."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(StillframeError):
            journal.finish(status)
        raise


class RunJournal:
    """The journal as a live run uses it: look first, recover, then begin a job of its own.

    Parameters
    ----------
    config:
        Names the journal.
    recover_first:
        Whether the run recovers what earlier ones left unfinished.

    Raises
    ------
    InputError
        The journal cannot be used, or not be made where it should lie.
    StillframeError
        A job of this configuration is at work.
    """

    def __init__(self, config: LiveConfig, *, recover_first: bool) -> None:
        self._config = config
        self._recover_first = recover_first
        may_be_made(config.journal)
        self._store: SqliteStore | None = None
        self.waiting: list[JobRecord] = []
        if not config.journal.exists():
            return
        self._store = open_journal(config.journal)
        try:
            found = unfinished(self._store, config.name)
            if found.held:
                raise self._beside(found.held[0])
        except StillframeError:
            self._store.close()
            raise
        self.waiting = found.free

    def _beside(self, job: JobRecord) -> StillframeError:
        """Two jobs of one configuration would each keep to its limits, and both exceed them."""
        return StillframeError(
            f"job {job.job_id} of {self._config.name!r} is at work, nothing was touched: "
            + held_sentence(job),
            f"wait for its end; if it hangs: stillframe recover {self._config.source} "
            f"--job {job.job_id} --take-over",
        )

    async def recover(self, systems: Systems, tell: Tell, notice: Notice) -> list[Recovered]:
        """Recover what waits for it, or say by which command somebody else can."""
        if not self.waiting or self._store is None:
            return []
        names = ", ".join(job.job_id for job in self.waiting)
        command = f"stillframe recover {self._config.source}"
        if not self._recover_first:
            notice(f"not finished by earlier runs: {names}; this recovers them: {command}")
            return []
        notice(f"not finished by earlier runs, and recovered first (like `{command}`): {names}")
        return await recover_jobs(
            self._config,
            self._store,
            self.waiting,
            systems,
            take_over=False,
            tell=tell,
            notice=notice,
        )

    def begin(self, job_id: str) -> Journal:
        """A new job in the hands of this process; makes the journal if there is none.

        Raises
        ------
        StillframeError
            Another job of this configuration has begun in the meantime.
        """
        if self._store is None:
            self._store = open_journal(self._config.journal, create=True)
        journal = self._store.begin(
            job_id,
            name=self._config.name,
            spec=self._config.job.model_dump_json(by_alias=True),
            holder=str(Holder.here()),
            lease_s=LEASE_S,
        )
        first = next(
            job
            for job in self._store.jobs()
            if job.name == self._config.name and is_running(job) and is_held(job)
        )
        if first.job_id != job_id:
            journal.finish("refused")
            raise self._beside(first)
        return journal

    def close(self) -> None:
        """Let go of the file."""
        if self._store is not None:
            self._store.close()
