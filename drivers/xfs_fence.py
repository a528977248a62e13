"""Holding the writes of datastores for as long as something is done, and not a moment longer.

Nothing here runs on the event loop: whoever runs it may have to write to a file system that is
held, and would then wait for itself. Each datastore has a thread that freezes it, waits for the
word and thaws it. A freeze that the kernel does not finish in time cannot be broken off: its thread
thaws at once when it has finished, and the fence is given up long before.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

from ..errors import StillframeError
from . import xfs_ioctl
from .contracts import Window
from .deadman import DeadMan
from .errors import BusyError, DidNotHappenError, DriverError, NeverWillError
from .xfs_markers import Marker, open_mounted, write_marker
from .xfs_users import DeviceNumber

SNAPSHOT = "snapshot_group"
_RETRY_S = 1.0


class Held(NamedTuple):
    """What was done under a fence, and for how long writes were held."""

    started_s: float
    """When the thing was begun to be done, on the monotonic clock."""
    fence: Window | None
    """None when there was nothing to hold."""


class _Datastore:
    """One datastore of a fence, frozen and thawed by a thread of its own."""

    def __init__(self, at: Path, folder: int, release: Event) -> None:
        self.at = at
        self.folder = folder
        self.frozen: Future[None] = Future()
        self.thawed: Future[bool] = Future()
        """Whether it was still frozen when it was thawed."""
        self.begin_s = self.end_s = 0.0
        self._release = release

    def run(self) -> None:
        self.begin_s = time.monotonic()
        try:
            xfs_ioctl.freeze(self.folder)
        except OSError as error:
            self.thawed.set_result(True)
            self.frozen.set_exception(error)
            return
        self.frozen.set_result(None)
        self._release.wait()
        try:
            was_frozen = xfs_ioctl.thaw(self.folder)
            self.end_s = time.monotonic()
            self.thawed.set_result(was_frozen)
        except OSError as error:
            self.thawed.set_exception(error)


class Fence:
    """One fence; use it once, in any thread but the event loop's.

    Parameters
    ----------
    tag:
        What errors say that it was for.
    devices:
        The datastores whose writes are to be held.
    markers:
        The folder for the note that a later process finds (see ``xfs_markers``).
    switch:
        Started; it thaws when this process dies.

    Raises
    ------
    DidNotHappenError
        A datastore is not mounted any more.
    """

    def __init__(
        self, tag: str, devices: Sequence[DeviceNumber], markers: Path, switch: DeadMan
    ) -> None:
        self._tag = tag
        self._devices = devices
        self._markers = markers
        self._switch = switch
        self._release = Event()
        self._threads: list[Thread] = []
        self._jobs: list[Future[Any]] = []
        self._held: list[_Datastore] = []
        self._marker: Marker | None = None
        self._begun = 0
        for device in devices:
            found = open_mounted(device)
            if found is None:
                self._close()
                raise self._failed(f"device {device} is not mounted any more")
            self._held.append(_Datastore(*found, self._release))

    def flush(self, limit_s: float, *files: int) -> None:
        """Write out what is cached of the datastores and of open files, holding nobody.

        What is done here need not be done while writes are held.

        Raises
        ------
        DidNotHappenError
            It took longer than ``limit_s`` seconds, or failed.
        """
        jobs = [self._start(xfs_ioctl.flush, one.folder) for one in self._held]
        jobs += [self._start(os.fdatasync, file) for file in files]
        done, late = wait(jobs, limit_s)
        if late:
            raise self._failed(f"writing out what is cached took longer than {limit_s:g} s")
        for job in done:
            error = job.exception()
            if error is not None:
                raise self._failed(f"what is cached cannot be written out: {error}")

    def hold_while(self, act: Callable[[], None], limit_s: float) -> Held:
        """Freeze all datastores, do ``act``, thaw them whatever happened.

        Parameters
        ----------
        act:
            Runs in a thread of its own. It is not waited for beyond the limit, and may then still
            be running: what it makes must not count unless this returns.
        limit_s:
            Seconds from the first freeze after which everything is thawed.

        Raises
        ------
        DidNotHappenError
            The time was up; or a datastore cannot be frozen; or somebody thawed one meanwhile.
        BusyError
            A datastore is frozen by somebody else.
        NeverWillError
            A datastore cannot be frozen, or this process is not permitted to.
        """
        give_up_s = time.monotonic() + limit_s
        try:
            self._tell_of_it()
            for one in self._held:
                self._start_thread(one.run, one.thawed)
                self._begun += 1
            self._await_frozen(give_up_s, limit_s)
            started_s = time.monotonic()
            self._await_done(self._start(act), give_up_s, limit_s)
        finally:
            self._release.set()
            # One that is still being frozen when the time is up thaws itself later.
            wait([one.frozen for one in self._held[: self._begun]], _left_s(give_up_s))
            wait([one.thawed for one in self._held if one.frozen.done()])
        self._check_thaws()
        return Held(started_s, self._window())

    def when_over(self, then: Callable[[], None]) -> Thread | None:
        """Call ``then`` when nothing is frozen or running any more: now, or in a thread."""

        def finish() -> None:
            for thread in self._threads:
                thread.join()
            try:
                self._close()
            finally:
                then()

        if all(job.done() for job in self._jobs):
            finish()
            return None
        waiting = Thread(target=finish)
        waiting.start()
        return waiting

    def _tell_of_it(self) -> None:
        """Before anything is frozen: who is to thaw it if we cannot."""
        try:
            if self._held:
                self._marker = write_marker(self._markers, self._devices)
            for one in self._held:
                self._switch.hold("mount", one.at)
        except (StillframeError, OSError) as error:
            raise self._failed(f"nobody could thaw after a crash: {error}") from error

    def _await_frozen(self, give_up_s: float, limit_s: float) -> None:
        freezes = {one.frozen: one for one in self._held}
        done, _ = wait(freezes, _left_s(give_up_s), FIRST_EXCEPTION)
        for freeze in done:
            error = freeze.exception()
            if error is not None:
                raise self._refused(freezes[freeze].at, error)
        slow = [str(one.at) for one in self._held if not one.frozen.done()]
        if slow:
            raise self._failed(f"{', '.join(slow)} could not be frozen within {limit_s:g} s")

    def _await_done(self, job: Future[None], give_up_s: float, limit_s: float) -> None:
        wait([job], _left_s(give_up_s))
        if not job.done():
            raise self._failed(f"writes would have been held for longer than {limit_s:g} s")
        job.result()

    def _check_thaws(self) -> None:
        for one in self._held:
            error = one.thawed.exception()
            if error is not None:
                raise self._failed(
                    f"{one.at} cannot be thawed: {error}", f"as root: fsfreeze --unfreeze {one.at}"
                )
            if not one.thawed.result():
                raise self._failed(f"somebody thawed {one.at} while its writes had to be held")

    def _window(self) -> Window | None:
        if not self._held:
            return None
        return Window(min(one.begin_s for one in self._held), max(one.end_s for one in self._held))

    def _refused(self, at: Path, error: BaseException) -> DriverError:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EBUSY:
            reason = f"{at} is frozen by somebody else"
            return BusyError(SNAPSHOT, self._tag, reason, retry_after_s=_RETRY_S)
        if number in (errno.EPERM, errno.EACCES):
            reason = f"this process is not permitted to freeze {at}"
            return NeverWillError(SNAPSHOT, self._tag, reason, "run it as root")
        if number in (errno.EOPNOTSUPP, errno.ENOTTY):
            reason = f"the file system at {at} cannot be frozen"
            return NeverWillError(SNAPSHOT, self._tag, reason, "put the datastore on ext4 or XFS")
        return self._failed(f"{at} cannot be frozen: {error}")

    def _failed(self, reason: str, advice: str = "") -> DidNotHappenError:
        return DidNotHappenError(SNAPSHOT, self._tag, reason, advice)

    def _start(self, call: Callable[..., None], *args: object) -> Future[None]:
        outcome: Future[None] = Future()

        def run() -> None:
            try:
                call(*args)
                outcome.set_result(None)
            except BaseException as error:  # noqa: BLE001  it belongs to whoever waits
                outcome.set_exception(error)

        self._start_thread(run, outcome)
        return outcome

    def _start_thread(self, work: Callable[[], None], outcome: Future[Any]) -> None:
        thread = Thread(target=work)
        thread.start()
        self._threads.append(thread)
        self._jobs.append(outcome)

    def _close(self) -> None:
        """Nothing is running any more. What could not be thawed stays in the note."""
        stuck = [one for one in self._held if one.thawed.done() and one.thawed.exception()]
        for one in self._held:
            if one not in stuck:
                self._switch.release("mount", one.at)
            os.close(one.folder)
        if self._marker is not None:
            if stuck:
                self._marker.leave()
            else:
                self._marker.remove()


def _left_s(until_s: float) -> float:
    return max(0.0, until_s - time.monotonic())
