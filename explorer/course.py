"""The course of one run: which processes live on its world, one after the other."""

from __future__ import annotations

import asyncio
import random
import traceback
from functools import partial
from pathlib import Path

from ..drivers.errors import DriverError
from ..errors import StillframeError
from ..orchestrator.journal import LeaseLostError, StoredEntry
from ..orchestrator.plan import NothingSelectedError
from ..orchestrator.retention import RetentionPolicy
from ..orchestrator.strategies import Strategy
from ..scenarios.schema import Scenario
from ..sim.env import SimEnv
from ..sim.world import World
from .calls import Call
from .duties import Duties
from .evidence import Evidence, JobStory, PruneStory
from .incarnation import Ended, HorizonError, Incarnation
from .journals import Hand, Shelf
from .options import RunOptions
from .setting import plant, setting_of
from .watch import WatchedLog
from .witness import Witness

ROUNDS = 6
"""Recoveries after faults have stopped, within which every job must be over."""
HORIZON_S = 4 * 86400.0
"""No process of a run may take longer: with the longest time limits drawn, hours at most."""
_FIRST_PAUSE_S = 30.0
"""Between two recoveries, twice as long each time: what a fault brought about may last a while."""
DRAIN_S = 2 * 86400.0
"""How long the systems may work on what nobody waits for."""


class Course:
    """One run.

    Parameters
    ----------
    strategy:
        A grouping function in place of the drawn one.

    Attributes
    ----------
    steps, outcomes:
        Of each incarnation that is over.
    crashes, recoveries:
        Incarnations that were killed; recoveries that ended.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        options: RunOptions,
        strategy: Strategy | None,
        retention: RetentionPolicy | None = None,
    ) -> None:
        self.options = options
        self.seed = seed
        self.setting = setting_of(scenario, options)
        self.env = SimEnv(ties=random.Random(f"{seed}/ties") if options.ties else None)
        self.log = WatchedLog()
        self.world = World(
            self.env, self.setting.estate, self.setting.config, seed=seed, log=self.log
        )
        self.job_id = f"e{seed}"
        self.planted = plant(self.world, options, self.job_id)
        self.witness = Witness(self.world, self.log)
        self.world.schedule(self.setting.events)
        for event, planned in self.setting.awaited:
            self.log.when(event, partial(self.world.schedule, (planned,)))
        self.shelf = Shelf(options.journal, lambda: self.env.now)
        self._duties = Duties(
            scenario.name, seed, options, self.setting, self.env, self.log, strategy, retention
        )
        self.calls: list[Call] = []
        self.jobs: list[JobStory] = []
        self.hands: list[Hand] = []
        self._alive: list[Incarnation] = []
        self.prunes: list[PruneStory] = []
        self.trouble: list[str] = []
        self.unfinished: list[str] = []
        self.steps: list[int] = []
        self.outcomes: list[str] = []
        self.crashes = self.recoveries = self._lives = 0

    # -- phases -------------------------------------------------------------------------------

    def run(self) -> None:
        """Both phases. What the model itself fails with is trouble like any other."""
        try:
            self.safety()
            self.convergence()
        except Exception as error:  # noqa: BLE001 - a finding, with the seed that repeats it
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.trouble.append(
                f"{type(error).__name__} in {where.name} ({Path(where.filename).name}:"
                f"{where.lineno}): {error}"
            )

    def safety(self) -> None:
        """Everything that may go wrong, goes wrong."""
        self._first_job()
        for number in range(1, max(len(self.options.crash_steps), len(self.options.barriers))):
            self._recovery(number)
        if self.options.second_job:
            self._job(f"{self.job_id}-1")
        if self.options.prune is not None:
            self._prune()

    def convergence(self) -> None:
        """No more faults: recover until nothing is unfinished, and let the systems come to rest."""
        self.world.faults.stop()
        pause_s = max(self.options.lease_s, _FIRST_PAUSE_S)
        for _ in range(ROUNDS):
            if not self._unfinished():
                break
            self._recovery(None)
            if self._unfinished():
                self._wait(pause_s)
                self._drain()
                pause_s *= 2
        self.unfinished = self._unfinished()
        self._drain()

    def evidence(self) -> Evidence:
        """What the run is judged by."""
        store = self.shelf.store
        entries = store.entries()
        return Evidence(
            options=self.options,
            spec=self.setting.spec,
            estate=self.setting.estate,
            world=self.world,
            rows=self.log.rows,
            calls=self.calls,
            jobs=self.jobs,
            prunes=self.prunes,
            hands=self.hands,
            cuts=self.witness.cuts,
            moves=self.witness.moves,
            planted=self.planted,
            foreign=self.witness.foreign,
            loose=self.witness.loose,
            entries=entries,
            records=store.jobs(),
            unfinished=self.unfinished,
            trouble=self.trouble,
        )

    def fired(self) -> dict[str, int]:
        """How often each fault site fired."""
        return {site.value: count for site, count in self.world.faults.fired.items()}

    def close(self) -> None:
        """Let go of what the run holds outside of memory, and of processes that never ended."""
        for life in self._alive:
            life.kill()
        self.shelf.close()

    # -- processes ----------------------------------------------------------------------------

    def _incarnation(self) -> Incarnation:
        self._lives += 1
        order = None
        if self.options.ready_order:
            order = random.Random(f"{self.seed}/ready order/{self._lives}")
        life = Incarnation(
            self._lives,
            self.env,
            self.world,
            self.shelf.store,
            self.log,
            self.calls,
            self.hands,
            ready_order=order,
        )
        self._alive.append(life)
        return life

    def _mortality(self, number: int | None) -> tuple[int, str]:
        """The step and the barrier at which incarnation ``number`` dies."""
        if number is None:
            return 0, ""
        steps, barriers = self.options.crash_steps, self.options.barriers
        return (
            steps[number] if number < len(steps) else 0,
            barriers[number] if number < len(barriers) else "",
        )

    def _first_job(self) -> None:
        rival = self.options.rival
        life = self._incarnation()
        story = self._begin_job(life, self.job_id)
        if rival is None:
            step, barrier = self._mortality(0)
            self._live(life, "job", story, step=step, barrier=barrier)
            return
        ended = self._stretch(life, step=rival.at_step, pause=rival.at_event)
        if ended is Ended.STEP or ended is Ended.PAUSE:
            life.pause()
            self._wait(rival.after_s)
            self._rival(life, story, rival.its_steps)
        elif ended is Ended.FINISHED:
            self._over(life, "job", story)
        else:
            self._die(life, f"job died: {ended.value}")

    def _rival(self, life: Incarnation, story: JobStory, its_steps: int) -> None:
        """Another recovers while the first stands still; then both go on, if both still can."""
        other = self._incarnation()
        other.begin(self._duties.recovery(other))
        ended = self._stretch(other, step=its_steps)
        if ended is Ended.STEP:
            other.pause()
            life.resume()
            self._live(life, "stalled job", story)
            other.resume()
            self._live(other, "rival", None)
        else:
            if ended is Ended.FINISHED:
                self._over(other, "rival", None)
            else:
                self._die(other, f"rival died: {ended.value}")
            life.resume()
            self._live(life, "stalled job", story)

    def _job(self, job_id: str) -> None:
        life = self._incarnation()
        self._live(life, "job", self._begin_job(life, job_id))

    def _recovery(self, number: int | None) -> None:
        life = self._incarnation()
        life.begin(self._duties.recovery(life))
        step, barrier = self._mortality(number)
        self._live(life, "recovery", None, step=step, barrier=barrier)

    def _prune(self) -> None:
        life = self._incarnation()
        before = self._entries()
        restorable = self.witness.restorable()
        life.begin(self._duties.pruning(life))
        self._live(life, "prune", None)
        self.prunes.append(PruneStory(before, self._entries(), restorable, self.env.now))

    def _live(
        self,
        life: Incarnation,
        what: str,
        story: JobStory | None,
        *,
        step: int = 0,
        barrier: str = "",
    ) -> None:
        ended = self._stretch(life, step=step, barrier=barrier)
        if ended is Ended.FINISHED:
            self._over(life, what, story)
        else:
            self._die(life, f"{what} died: {ended.value}")

    def _stretch(
        self, life: Incarnation, *, step: int = 0, barrier: str = "", pause: str = ""
    ) -> Ended:
        """Let a process run, no longer than the horizon."""
        alarm = self.env.after(HORIZON_S, self._horizon)
        try:
            return life.run(step=step, barrier=barrier, pause=pause)
        except StillframeError as error:
            self.trouble.append(f"process {life.number}: {error.what}")
            return Ended.STUCK
        finally:
            alarm.cancel()

    def _horizon(self) -> None:
        raise HorizonError(f"still at work after {HORIZON_S:.0f} s")

    def _over(self, life: Incarnation, what: str, story: JobStory | None) -> None:
        failure = life.failure()
        self.steps.append(life.steps)
        self.outcomes.append(f"{what} ended{_named(failure)}")
        if story is not None:
            story.error = failure
            story.result = story.job.result if story.job is not None else None
            story.ended_s = self.env.now
            story.truth_at_end = self.witness.leftovers(story.job_id)
            story.kept_at_end = [entry for entry in self._entries() if entry.job_id == story.job_id]
        elif failure is None:
            self.recoveries += what in ("recovery", "rival")
        if failure is not None and not self._may_raise(failure, story):
            self.trouble.append(f"{what} raised {type(failure).__name__}: {failure}")
        self._kill(life)

    def _die(self, life: Incarnation, outcome: str) -> None:
        self.crashes += 1
        self.steps.append(life.steps)
        self.outcomes.append(outcome)
        self._kill(life)
        if self.options.lose_tail:
            for journal in life.store.journals:
                journal.lose_tail()
        self.shelf.after_death(torn=self.options.lose_tail)
        self._wait(self.options.downtime_s)

    def _kill(self, life: Incarnation) -> None:
        life.kill()
        self._alive.remove(life)

    def _may_raise(self, failure: BaseException, story: JobStory | None) -> bool:
        """Whether a process may end with this error."""
        if story is None:
            return False
        if story.began_s is None:  # nothing has been touched yet
            return isinstance(failure, NothingSelectedError | DriverError)
        if isinstance(failure, asyncio.CancelledError):
            return story.cancelled
        return isinstance(failure, LeaseLostError) and self._lease_ran_out()

    def _lease_ran_out(self) -> bool:
        """Whether the job stood still for so long that another could take it over."""
        rival = self.options.rival
        # It is renewed when a third of it is over, so two thirds hold at any moment.
        return rival is not None and rival.after_s > self.options.lease_s * 0.66

    def _begin_job(self, life: Incarnation, job_id: str) -> JobStory:
        story = JobStory(job_id, life.number, second=bool(self.jobs))
        self.jobs.append(story)
        life.begin(self._duties.job(life, story))
        return story

    # -- time ---------------------------------------------------------------------------------

    def _wait(self, span_s: float) -> None:
        """Let the world go on with nobody at work."""
        if span_s > 0.0:
            self.env.run(until=self.env.now + span_s)

    def _drain(self) -> None:
        """Let the systems end what they are at."""
        env, until_s = self.env, self.env.now + DRAIN_S
        while self.world.in_flight and env.peek() <= until_s:
            env.step()

    def _unfinished(self) -> list[str]:
        return [record.job_id for record in self.shelf.store.jobs() if record.unfinished]

    def _entries(self) -> list[StoredEntry]:
        return self.shelf.store.entries()


def _named(failure: BaseException | None) -> str:
    return f" with {type(failure).__name__}" if failure is not None else ""
