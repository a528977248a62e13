"""A live job: the systems of a configuration, opened through their drivers, and the job on them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .drivers.records import ArrayId
from .errors import StillframeError
from .live_clear import Cleared, Earlier
from .live_recover import Recovered, RunJournal
from .live_systems import (
    Systems,
    Tell,
    modelled_arrays,
    notes_on,
    open_systems,
    survey,
    telling,
)
from .orchestrator.events import EventLog, Kind
from .orchestrator.job import Job
from .orchestrator.leftovers import clear_leftovers
from .orchestrator.plan import Plan, make_plan
from .orchestrator.result import JobResult, JobStatus
from .placements import placement_rows
from .reports.rundata import RunData, from_result
from .scenarios.live import LiveConfig
from .topology.graph import Topology

_PATIENCE = 2
"""After so many times Ctrl-C, the next one gives up waiting for the releases."""


@dataclass(slots=True)
class LiveRun:
    """A finished live job.

    Attributes
    ----------
    started_at:
        The time of day at which it began, in UTC.
    notes:
        What a reader has to know: drivers, what they cannot see, which parts are models.
    models:
        Arrays that are models: nothing can be restored from them.
    troubles:
        What went wrong beside the job, such as a session that could not be closed.
    terminated:
        The process was asked to end (SIGTERM), not interrupted at the keyboard.
    failure:
        A defect that ended the job early; it had released everything before.
    cleared:
        What was removed of an earlier job before this one, if that was asked for.
    recovered:
        Jobs of this configuration that had not ended in good order, and what became of them.
    """

    config: LiveConfig
    job_id: str
    started_at: datetime.datetime
    topology: Topology
    plan: Plan
    result: JobResult
    notes: list[str]
    models: list[ArrayId]
    troubles: list[str]
    terminated: bool = False
    failure: Exception | None = None
    cleared: Cleared | None = None
    recovered: list[Recovered] = field(default_factory=list)

    @property
    def clean_before(self) -> bool:
        """Nothing of an earlier job was left when this one began, as far as that was asked for."""
        cleared = self.cleared is None or self.cleared.complete
        return cleared and all(one.complete for one in self.recovered)

    @property
    def interrupted(self) -> bool:
        """Whether somebody pressed Ctrl-C."""
        return self.result.status is JobStatus.CANCELLED and not self.terminated

    def run_data(self, command: str = "", clearing_command: str = "") -> RunData:
        """The run as tables for reports, by the same way as a modelled one.

        ``command`` repeats the run; ``clearing_command`` also removes what this one left behind.
        """
        config = self.config
        notes = self.notes + [note for one in self.recovered for note in one.notes()]
        notes += [] if self.cleared is None else self.cleared.notes()
        meta: dict[str, Any] = {
            "name": config.name,
            "title": config.label,
            "description": config.description,
            "command": command,
            "assumptions": notes + self.troubles,
            "live": {
                "started_at": self.started_at.isoformat(timespec="seconds"),
                "hypervisors": {key: one.driver for key, one in config.hypervisors.items()},
                "arrays": {key: one.driver for key, one in config.arrays.items()},
                "models": self.models,
                "guests": [rule.model_dump(mode="json") for rule in config.world.guests],
                "journal": str(config.journal),
                "recovered": [one.document() for one in self.recovered],
                "clearing_command": clearing_command,
                "cleared": None if self.cleared is None else self.cleared.meta(),
            },
        }
        return from_result(self.result, placement_rows(self.topology, self.plan), (), meta)


def new_job_id() -> str:
    """An identifier that no other job has: the time in UTC, and a random part."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dt%H%M%S}-{secrets.token_hex(3)}"


def run_live(
    config: LiveConfig,
    job_id: str,
    tell: Tell,
    notice: Callable[[str], None] = lambda _sentence: None,
    earlier: Earlier | None = None,
    *,
    recover_first: bool = True,
) -> LiveRun:
    """Run the configuration's job on its systems, noted in its journal.

    Snapshots of other jobs are never touched, left behind or not, except those of ``earlier`` and
    of jobs of this configuration that the journal knows as unfinished.

    Ctrl-C (or SIGTERM) cancels the job, which then releases every VM; what it had protected by
    then is in the result. A second Ctrl-C changes nothing about that, a third gives up.

    Parameters
    ----------
    job_id:
        Part of every tag; see :func:`new_job_id`.
    tell:
        Hears what is being done, and the share of it that is done.
    notice:
        Hears at once that a signal came, and what happens now; also each thing that is removed
        of the earlier job, and each that is not.
    earlier:
        A job that has ended: what is left of it is removed before this job begins.
    recover_first:
        Recover what the journal has of unfinished jobs before this one begins.

    Raises
    ------
    InputError
        The journal or a system's settings cannot be used, or a driver is not for this kind of
        system.
    LeaseLostError
        Another process has taken this job over; it was left as it was.
    StillframeError
        Another job of this configuration is at work; nothing has been touched.
    DriverError
        A system could not be reached, or its inventory not be read; nothing has been touched.
    NothingSelectedError
        The job's selection matches no VM.
    KeyboardInterrupt
        Ctrl-C came before the job began, or came a third time.
    """
    journal = RunJournal(config, recover_first=recover_first)
    run = _Run(config, job_id, tell, notice, journal, earlier)
    try:
        with contextlib.closing(journal), asyncio.Runner() as runner:
            runner.run(run.main())
    except asyncio.CancelledError:
        # Only a signal cancels main(), and it lets nothing of a job that has begun pass.
        if run.terminated:
            raise StillframeError("asked to end (SIGTERM) before the job began") from None
        raise KeyboardInterrupt from None
    except (StillframeError, OSError) as error:
        if run.job is None or run.job.result is None:
            raise
        run.troubles.append(f"A system could not be closed in good order: {error}.")
    return run.finished()


@dataclass(slots=True)
class _Run:
    """What the run's coroutine works with, and what it leaves."""

    config: LiveConfig
    job_id: str
    tell: Tell
    notice: Callable[[str], None]
    journal: RunJournal
    earlier: Earlier | None = None
    recovered: list[Recovered] = field(default_factory=list)
    cleared: Cleared | None = None
    job: Job | None = None
    interrupts: int = 0
    terminated: bool = False
    failure: Exception | None = None
    notes: list[str] = field(default_factory=list)
    models: list[ArrayId] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    started_at: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC)
    )
    topology: Topology | None = None
    plan: Plan | None = None

    async def main(self) -> None:
        """Open, recover, survey, plan, clear if asked to, run, close."""
        self._end_on_signals()
        config = self.config
        async with telling(self.tell) as say, open_systems(config, say) as systems:
            self.recovered = await self.journal.recover(systems, say, self.notice)
            self.topology = await survey(config, systems, say)
            self.plan = make_plan(self.topology, config.job)
            if self.earlier is not None:
                await self._clear(self.earlier, self.topology, systems, say)
            self.notes = notes_on(config, systems)
            self.models = modelled_arrays(systems)
            self.started_at = datetime.datetime.now(datetime.UTC)
            self.job = Job(
                self.job_id,
                config.job,
                self.plan,
                self.topology,
                systems.hypervisors,
                systems.arrays,
                random=random.Random(self.job_id),
                log=EventLog(),
                journal=self.journal.begin(self.job_id),
                progress=lambda done, total: say(f"{done} of {total} VMs", done / max(total, 1)),
            )
            say(f"0 of {sum(len(group.vm_ids) for group in self.plan.groups)} VMs", 0.0)
            await self._run_job(self.job)

    async def _clear(
        self, earlier: Earlier, topology: Topology, systems: Systems, say: Tell
    ) -> None:
        """Remove what is left of the earlier job, and plan again if anything has changed."""
        say("removing what an earlier job left", None)
        clearance = await clear_leftovers(
            earlier.job,
            self.config.job,
            topology,
            systems.hypervisors,
            systems.arrays,
            random=random.Random(f"{self.job_id} clears"),
            tell=self.notice,
        )
        self.cleared = Cleared(earlier, clearance)
        self.notice(self.cleared.summary())
        if clearance.removed:
            self.topology = await survey(self.config, systems, say)
            self.plan = make_plan(self.topology, self.config.job)

    def _end_on_signals(self) -> None:
        """Let Ctrl-C and SIGTERM cancel the job, not break into whatever is running.

        asyncio's own handler raises KeyboardInterrupt at a second Ctrl-C, in the middle of a
        release as likely as anywhere.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine that runs has a task

        def interrupt() -> None:
            self.interrupts += 1
            self._stop(task)
            if self.interrupts == _PATIENCE:
                loop.remove_signal_handler(signal.SIGINT)
                self.notice("once more Ctrl-C gives up, and leaves snapshots behind for `recover`")

        def terminate() -> None:
            self.terminated = True
            self._stop(task)

        # Not every platform and not every thread can have signal handlers.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGINT, interrupt)
            loop.add_signal_handler(signal.SIGTERM, terminate)

    def _stop(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        if self.job is not None and self.interrupts < _PATIENCE:
            self.notice("stopping: the job is cancelled and releases its VMs, which takes a while")

    async def _run_job(self, job: Job) -> None:
        """Run to the end; a cancellation ends the job, not the closing of the systems."""
        task = asyncio.get_running_loop().create_task(job.run())
        try:
            await task
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if job.result is None or own is None:
                raise
            while own.cancelling():
                own.uncancel()
        except Exception as error:  # a defect; what the job did is written first
            if job.result is None:
                raise
            self.failure = error

    def finished(self) -> LiveRun:
        """The finished run."""
        assert self.job is not None  # noqa: S101  run_live() has checked
        assert self.job.result is not None  # noqa: S101
        assert self.topology is not None  # noqa: S101
        assert self.plan is not None  # noqa: S101
        self.troubles += [
            f"The journal could not be kept up to date: {row[4]}."
            for row in self.job.result.events.of(Kind.JOURNAL_TROUBLE)
        ]
        return LiveRun(
            config=self.config,
            job_id=self.job_id,
            started_at=self.started_at,
            topology=self.topology,
            plan=self.plan,
            result=self.job.result,
            notes=self.notes,
            models=self.models,
            troubles=self.troubles,
            terminated=self.terminated,
            failure=self.failure,
            cleared=self.cleared,
            recovered=self.recovered,
        )
