"""One orchestrator's process: its event loop, drivers and journal, until it ends or dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from enum import Enum
from typing import Any

from ..drivers.contracts import ArrayDriver, HypervisorDriver
from ..drivers.records import ArrayId, VCenterId
from ..errors import StillframeError
from ..orchestrator.journal import Store
from ..sim.crash import Standstill, go_on, kill, stand_still
from ..sim.env import SimEnv
from ..sim.loop import SimLoop, SimStepLimitError
from ..sim.world import World
from .calls import Call, Caller, FencedArray, FencedHypervisor
from .journals import FencedStore, Hand
from .watch import WatchedLog


class Ended(Enum):
    """How a stretch of a process's life ended."""

    FINISHED = "finished"
    STEP = "reached its step"
    BARRIER = "reached its barrier"
    STUCK = "never came to an end"
    PAUSE = "stands still at its event"


class Incarnation:
    """A process that runs one coroutine on the world.

    Parameters
    ----------
    number:
        Its place among the processes of the run, from 1.
    ready_order:
        For a drawn order of ready callbacks.

    Attributes
    ----------
    hypervisors, arrays, store:
        What its code works with: noted, and refused once it is dead.
    dead:
        It was killed.
    """

    def __init__(
        self,
        number: int,
        env: SimEnv,
        world: World,
        store: Store,
        log: WatchedLog,
        calls: list[Call],
        hands: list[Hand],
        *,
        ready_order: random.Random | None = None,
    ) -> None:
        self.number = number
        self.log = log
        log.deaf = False
        self._caller = caller = Caller(number, calls, lambda: env.now)
        self.loop = SimLoop(env, ready_order=ready_order)
        self.hypervisors: dict[VCenterId, HypervisorDriver] = {
            vcenter_id: FencedHypervisor(driver, caller)
            for vcenter_id, driver in world.hypervisors.items()
        }
        self.arrays: dict[ArrayId, ArrayDriver] = {
            array_id: FencedArray(array_id, driver, caller)
            for array_id, driver in world.arrays.items()
        }
        self.store = FencedStore(store, caller, hands)
        self._task: asyncio.Task[Any] | None = None
        self._standstill: Standstill | None = None
        self._at_barrier = self._at_pause = False

    @property
    def dead(self) -> bool:
        """Whether it was killed, or has reached its barrier."""
        return self._caller.dead

    @property
    def name(self) -> str:
        """What it calls itself in the journal."""
        return f"process-{self.number}"

    @property
    def steps(self) -> int:
        """Steps of its event loop so far."""
        return self.loop.steps_run

    def begin(self, main: Coroutine[Any, Any, object]) -> asyncio.Task[Any]:
        """Say what it runs."""
        self._task = self.loop.create_task(main)
        return self._task

    def run(self, *, step: int = 0, barrier: str = "", pause: str = "") -> Ended:
        """Run until the coroutine is done, or the process has reached its step or barrier.

        What the coroutine raises stays in its task.

        Parameters
        ----------
        step:
            Stop before this step of the loop's life is exceeded; 0 for no such limit.
        barrier:
            ``kind#n``: stop at the n-th event of this kind from now on. What the code does from
            there to its next await has no effect.
        pause:
            ``kind#n``: stop soon after the n-th event of this kind; what is ready at this instant
            still runs. It can :meth:`pause` and go on.

        Raises
        ------
        StillframeError
            The loop found a deadlock, a livelock or the run's horizon.
        """
        assert self._task is not None, "begin() says what to run"  # noqa: S101
        self.loop.step_limit = step or None
        self._at_pause = False
        waiting = None
        if barrier or pause:
            waiting = self.log.when(barrier or pause, self._reached if barrier else self._stop)
        try:
            self.loop.run_until_complete(self._task)
        except SimStepLimitError:
            return Ended.STEP
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # what the coroutine raised stays in its task
            if self._at_barrier:
                return Ended.BARRIER
            if self._at_pause and not self._task.done():
                return Ended.PAUSE
            if not self._task.done():
                raise
        finally:
            if waiting is not None:
                self.log.forget(waiting)
        return Ended.BARRIER if self._at_barrier else Ended.FINISHED

    def _reached(self) -> None:
        self._at_barrier = True
        self._caller.dead = True
        self.log.deaf = True
        self.loop.stop()

    def _stop(self) -> None:
        self._at_pause = True
        self.loop.stop()

    def pause(self) -> None:
        """Let the process stand still; the world and other processes can go on."""
        self._standstill = stand_still(self.loop)

    def resume(self) -> None:
        """Let the process go on where it stood still."""
        assert self._standstill is not None, "only who stands still can go on"  # noqa: S101
        go_on(self.loop, self._standstill)
        self._standstill = None

    def kill(self) -> None:
        """End the process at once; one whose coroutine is done may have left tasks behind."""
        self._caller.dead = True
        self.log.deaf = True
        kill(self.loop)
        self.log.deaf = False

    def cancel(self) -> None:
        """Cancel what it runs, as a user does."""
        assert self._task is not None, "begin() says what to run"  # noqa: S101
        self._task.cancel()

    def failure(self) -> BaseException | None:
        """What its coroutine raised, None if it returned."""
        task = self._task
        assert task is not None, "begin() says what to run"  # noqa: S101
        if not task.done():
            return None
        return asyncio.CancelledError() if task.cancelled() else task.exception()


class HorizonError(StillframeError):
    """The run went on for longer than anything in it may take."""
